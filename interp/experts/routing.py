"""Which experts each token of some texts runs through, without padding and special tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Site, Tokens, capture
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.site import expert_choice, expert_weights, resid_post, router_logits
from hooks.summary import summarise


@dataclass(frozen=True, eq=False)
class Routing:
    """The routing of one layer: a row for each token, in the order of the texts.

    Attributes:
        layer: which.
        n_experts: how many there are.
        choice: the experts of each token, the router's first one first.
        weights: how much each counts.
        p: the router's probabilities over all experts.
        ids: the token.
        document: the text it is of.
    """

    layer: int
    n_experts: int
    choice: Int[Tensor, "n choice"]
    weights: Float[Tensor, "n choice"]
    p: Float[Tensor, "n expert"]
    ids: Int[Tensor, "n"]
    document: Int[Tensor, "n"]

    __repr__ = summarise

    def __len__(self) -> int:
        return len(self.ids)


def capture_routing(
    model: Model, texts: Sequence[str], *, batch_size: Count = 32, progress: bool = True
) -> dict[int, Routing]:
    """Capture the routing of every layer that is a mixture; beginnings of texts and padding are left out.

    Raises:
        InvalidArgument: the model has no experts.

    Cost: one forward pass over the texts.

    Examples:
        ```python
        capture_routing(load_world("experts"), texts)[2].choice
        ```
    """
    layers = [s.layer for s in model.sites if s.name == "expert_choice" and s.layer is not None]
    if not layers:
        raise InvalidArgument(
            f"{model.name} has no experts: take a mixture, or cluster_routing of a dense model's states"
        )
    names = (expert_choice, expert_weights, router_logits)
    acts = capture(
        model,
        list(texts),
        [name[layer] for layer in layers for name in names],
        batch_size=batch_size,
        progress=progress,
    )
    ids, document, real = _places(acts.tokens)
    found = {}
    for layer in layers:
        choice, weights, logits = (acts[name[layer]][real] for name in names)
        p = logits.float().softmax(-1)
        found[layer] = Routing(layer, p.shape[1], choice.long(), weights.float(), p, ids, document)
    return found


def cluster_routing(
    model: Model,
    texts: Sequence[str],
    n_experts: Count,
    *,
    site: Site | None = None,
    seed: Natural = 0,
    progress: bool = True,
) -> Routing:
    """Cluster the states of a dense model by k-means, as if clusters were experts: the control for specialisation.

    If clusters of plain states say as much of the topic as experts do, experts say no more than their states.

    Args:
        model: any model.
        texts: that are read.
        n_experts: how many clusters; each token has one.
        site: whose states; by default the stream half of the way up.
        seed: of k-means.
        progress: show a bar.

    Raises:
        InvalidArgument: fewer tokens than clusters.

    Cost: one forward pass over the texts, and a k-means.

    Examples:
        ```python
        cluster_routing(load("landmark"), texts, 8)
        ```
    """
    from sklearn.cluster import KMeans

    place = site or resid_post[model.n_layers // 2]
    acts = capture(model, list(texts), place, progress=progress)
    ids, document, real = _places(acts.tokens)
    rows = acts[place][real].float()
    if len(rows) < n_experts:
        raise InvalidArgument(f"{len(rows)} tokens and {n_experts} clusters: give more texts")
    means = KMeans(n_experts, n_init=2, random_state=seed).fit(rows.numpy())  # pyright: ignore[reportArgumentType]
    choice = torch.from_numpy(means.labels_).long()[:, None]
    p = torch.nn.functional.one_hot(choice[:, 0], n_experts).float()
    return Routing(place.layer or 0, n_experts, choice, torch.ones(len(choice), 1), p, ids, document)


def _places(tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """The ids and texts of the tokens that are no padding and nothing special, and where they are."""
    real = tokens.content
    return tokens.ids[real].cpu(), real.nonzero()[:, 0].cpu(), real
