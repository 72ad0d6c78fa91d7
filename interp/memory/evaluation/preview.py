"""What an edit would change: the texts, the memories and the latents it moves most, compared with a random edit."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Activations, Model, Site, Tokens, capture
from hooks.border import Natural
from hooks.capture import read_rows
from hooks.errors import InvalidArgument
from hooks.pieces import piece, pieces
from hooks.progress import progress_bar
from hooks.site import logits, mlp_act
from hooks.summary import summarise
from interp.memory.editing.contexts import generate_texts
from interp.memory.editing.edit import Edit
from interp.memory.evaluation.control import make_control
from interp.sae import SAE

if TYPE_CHECKING:
    from pandas import DataFrame

BATCH, OWN = 16, 2560


@dataclass(frozen=True)
class MovedText:
    """A text up to the token after which the next one changes most, by KL(before‖after) in nats; what is likeliest.

    `token` is how many tokens come before that one, `before` and `after` are the likeliest next ones, `control` is
    the KL there under a random edit of equal norm.
    """

    text: str
    token: int
    kl: float
    control: float
    before: str
    after: str


@dataclass(frozen=True)
class MovedMemory:
    """A memory of a feed-forward layer, and the root mean square change of its coefficient over its layer's before.

    `control` is the same under a random edit of equal norm.
    """

    layer: int
    neuron: int
    change: float
    control: float


@dataclass(frozen=True)
class MovedLatent:
    """A latent of an autoencoder: mean activation before and after, and the root mean square change at a token.

    `control` is that change under a random edit of equal norm.
    """

    latent: int
    before: float
    after: float
    change: float
    control: float


@dataclass(frozen=True)
class Preview:
    """What an edit moves most over some texts, most first; `latents` is empty without an autoencoder."""

    texts: tuple[MovedText, ...]
    memories: tuple[MovedMemory, ...]
    latents: tuple[MovedLatent, ...]
    n_tokens: int

    __repr__ = summarise

    def __str__(self) -> str:
        lines = [f"over {self.n_tokens:,} tokens, in brackets under a random edit of equal norm:"]
        lines += [
            f"{one.kl:7.3f} [{one.control:.3f}] nats  …{one.text[-60:]!r}: {one.before!r} -> {one.after!r}"
            for one in self.texts
        ]
        lines += [f"{m.change:7.3f} [{m.control:.3f}] memory {m.neuron} of layer {m.layer}" for m in self.memories]
        lines += [
            f"{one.change:7.3f} [{one.control:.3f}] latent {one.latent}: mean {one.before:.3f} -> {one.after:.3f}"
            for one in self.latents
        ]
        return "\n".join(lines)

    def to_pandas(self) -> "DataFrame":
        """A row for each text, memory and latent: what it is, how much it moved, and how much under a random edit."""
        from pandas import DataFrame

        rows = [("text", one.text, one.kl, one.control, one.before, one.after) for one in self.texts]
        rows += [("memory", f"{one.layer}.{one.neuron}", one.change, one.control, None, None) for one in self.memories]
        rows += [("latent", str(one.latent), one.change, one.control, one.before, one.after) for one in self.latents]
        return DataFrame(rows, columns=["kind", "name", "change", "control", "before", "after"])


@torch.no_grad()
def preview(
    model: Model,
    edit: Edit,
    texts: Sequence[str] | None = None,
    *,
    sae: SAE | None = None,
    top: int = 10,
    seed: Natural = 0,
    progress: bool = True,
) -> Preview:
    """Apply an edit to a model, read texts, undo it, and say where what the model computes differs most.

    Args:
        model: the model, without the edit.
        edit: any edit.
        texts: what is read; by default the edited prompts and texts the model writes itself.
        sae: whose latents to compare, at its site.
        top: how many of each to keep.
        seed: of the random edit.
        progress: show a bar.

    Raises:
        InvalidArgument: no texts, a top below 1, an autoencoder without a site of this model.

    Cost: three forward passes over the texts.

    Examples:
        ```python
        print(preview(model, edit, sae=sae))
        ```
    """
    texts = [texts] if isinstance(texts, str) else texts
    if top < 1 or (texts is not None and not texts):
        raise InvalidArgument(f"top={top}, texts={texts!r}: keep at least one of at least one text")
    if sae is not None and sae.site is None:
        raise InvalidArgument("the autoencoder has no site: load one that says which activations it reads")
    read = [*(fact.text for fact in edit.facts), *generate_texts(model, OWN)] if texts is None else [*texts]
    states = (nullcontext, lambda: edit.applied(model), lambda: make_control(edit, seed).applied(model))
    found: list[MovedText] = []
    sums: list[Tensor] = []
    n_tokens = 0
    batches = -(-len(read) // BATCH)
    for tokens in progress_bar(
        read_rows(model, read, batch_size=BATCH), desc="preview", total=batches, progress=progress
    ):
        acts = [_run(model, tokens, sae, state) for state in states]
        found += _texts(model, tokens, [one[logits].float() for one in acts])
        rows = [[one[site][tokens.content].float() for one in acts] for site in _memory_sites(model)]
        parts = [torch.stack([_squares(row) for row in rows], 1)]
        if sae is not None and sae.site is not None:
            z = [sae.encode(one[sae.site][tokens.content].float()) for one in acts]
            parts.append(torch.cat([torch.stack([z[0].sum(0), z[1].sum(0)]), _squares(z)[1:]]))
        sums = parts if not sums else [a + b for a, b in zip(sums, parts, strict=True)]
        n_tokens += int(tokens.content.sum())
    most = sorted(found, key=lambda one: -one.kl)[:top]
    latents = () if sae is None else _latents(sums[1].cpu() / n_tokens, top)
    return Preview(tuple(most), _memories(sums[0].cpu() / n_tokens, top), latents, n_tokens)


def _memory_sites(model: Model) -> list[Site]:
    return [mlp_act[layer] for layer in range(model.n_layers)]


def _run(
    model: Model, tokens: Tokens, sae: SAE | None, state: Callable[[], AbstractContextManager[None]]
) -> Activations:
    extra = [] if sae is None or sae.site is None else [sae.site]
    with state():
        return capture(model, tokens, [*_memory_sites(model), *extra, logits], batch_size=len(tokens))


def _squares(rows: Sequence[Float[Tensor, "n d"]]) -> Float[Tensor, "3 d"]:
    """Sums over tokens of the plain values squared, and of the squared changes by the edit and by the random one."""
    plain, edited, random = rows
    return torch.stack([plain.square().sum(0), *((one - plain).square().sum(0) for one in (edited, random))])


def _texts(model: Model, tokens: Tokens, said: Sequence[Float[Tensor, "batch pos vocab"]]) -> list[MovedText]:
    """Each text at the token after which the edit changes most what comes next."""
    plain, edited, random = (one.log_softmax(-1) for one in said)
    kl, control = ((plain.exp() * (plain - one)).sum(-1).masked_fill(~tokens.content, 0.0) for one in (edited, random))
    found = []
    for row, column in enumerate(kl.argmax(1).tolist()):
        given = tokens.mask[row].clone()
        given[column + 1 :] = False
        ids = tokens.ids[row][given & tokens.content[row]].tolist()
        words = [piece(model.tokenizer, int(one[row, column].argmax())) for one in (plain, edited)]
        text = "".join(pieces(model.tokenizer, ids))
        found.append(MovedText(text, len(ids) - 1, float(kl[row, column]), float(control[row, column]), *words))
    return found


def _memories(mean: Float[Tensor, "3 layer d_mlp"], top: int) -> tuple[MovedMemory, ...]:
    unit = mean[0].mean(1, keepdim=True).sqrt().clamp_min(1e-30)
    edited, random = mean[1].sqrt() / unit, mean[2].sqrt() / unit
    order = edited.flatten().argsort(descending=True)[:top].tolist()
    places = [divmod(i, edited.shape[1]) for i in order]
    return tuple(MovedMemory(a, b, float(edited[a, b]), float(random[a, b])) for a, b in places)


def _latents(mean: Float[Tensor, "4 latent"], top: int) -> tuple[MovedLatent, ...]:
    before, after, edited, random = mean[0], mean[1], mean[2].sqrt(), mean[3].sqrt()
    return tuple(
        MovedLatent(i, float(before[i]), float(after[i]), float(edited[i]), float(random[i]))
        for i in edited.argsort(descending=True)[:top].tolist()
    )
