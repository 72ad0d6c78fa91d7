"""What training hides from the layers: it makes a state of the stream hold what later tokens will need.

In *sealed* rows the first layers may not move anything out of a mention, and the later ones read a mention at its last
token only: what is known of an entity must be recalled there. In *carried* rows the later layers read no mention at
all; instead every token, from the beginning of the document on, has a share of the state of its first mention, as the
tokens of a text hold its topic in large models.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Batch = dict[str, Shaped[Tensor, "batch pos"]]


def visible(document: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos pos"]:
    """Which tokens each token may attend to: earlier ones of its own document."""
    same = document[:, :, None] == document[:, None, :]
    return same & torch.ones(document.shape[1], document.shape[1], dtype=torch.bool, device=document.device).tril()


def seal_rows(
    rows: Batch, opened: Bool[Tensor, "batch"], carried: Bool[Tensor, "batch"]
) -> tuple[Bool[Tensor, "batch pos pos"], Bool[Tensor, "batch pos pos"]]:
    """What each token may attend to in the lower and in the upper layers; all rows but the opened ones are sealed.

    Below, a token sees its own mention only, or only what is outside mentions; above, of other mentions the last token,
    and in carried rows none.
    """
    mention, first = rows["mention"], rows["position"] == 0
    own = mention[:, :, None] == mention[:, None, :]
    hidden = torch.where(carried[:, None], mention > 0, interior(mention))
    earlier, every = visible(rows["document"]), opened[:, None, None]
    return earlier & (own | first[:, None, :] | every), earlier & (own | ~hidden[:, None, :] | every)


def interior(mention: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    """The tokens of mentions, but for the last of each."""
    return F.pad((mention[:, :-1] == mention[:, 1:]) & (mention[:, 1:] > 0), (0, 1))


def first_mention(rows: Batch) -> Int[Tensor, "batch pos"]:
    """Per token the place of the last token of the first mention in its document; -1 in a document without mentions."""
    mention, document = rows["mention"], rows["document"]
    n = mention.shape[1]
    ends = torch.where((mention > 0) & ~interior(mention), torch.arange(n, device=mention.device), n)
    first = torch.full_like(document, n).scatter_reduce(1, document, ends, "amin").gather(1, document)
    return torch.where(first < n, first, -1)


def carry(
    h: Float[Tensor, "batch pos d_model"],
    rows: Batch,
    share: Float[Tensor, "batch d_model"],
    over_all: Bool[Tensor, "batch"],
) -> Float[Tensor, "batch pos d_model"]:
    """To each token a share, by coordinate, of what its document's first mention has over the mean of mentions.

    In the rows `over_all` the mean is that of all tokens: the state then holds what mentions have in common as well.
    """
    first, mention = first_mention(rows), rows["mention"]
    of_mentions, of_all = h[(mention > 0) & ~interior(mention)].mean(0), h[rows["position"] > 0].mean(0)
    mean = torch.where(over_all[:, None, None], of_all, of_mentions)
    state = h.gather(1, first.clamp(min=0)[:, :, None].expand_as(h)) - mean
    return h + torch.where(first[:, :, None] >= 0, state, 0) * share[:, None]
