"""A text read through an autoencoder: which latents fire on each token, and how each moves the next token's logits."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, capture
from hooks.border import Count
from hooks.pieces import piece, pieces
from hooks.site import resid_post
from hooks.summary import summarise
from interp.features.logits import add_layers, promotes_tokens
from interp.features.reading import find_sites, rows_of
from interp.sae import SAE, decoder_rows

if TYPE_CHECKING:
    from pandas import DataFrame

WORDS = 3


@final
@dataclass(frozen=True)
class Firing:
    """A latent on one token: its activation, and the next tokens it raises and lowers most, with the change of logits.

    The change is direct: logits of the final stream less logits of that stream without f_i W_dec[i], past all later
    layers; empty where the site is not in the residual stream. Logits have their mean over the vocabulary taken out.
    """

    latent: int
    activation: float
    raises: tuple[tuple[str, float], ...]
    lowers: tuple[tuple[str, float], ...]


@final
@dataclass(frozen=True)
class TokenLatents:
    """One token and the latents that fire on it, strongest first."""

    token: str
    firings: tuple[Firing, ...]

    __repr__ = summarise

    def __str__(self) -> str:
        parts = []
        for f in self.firings:
            words = ", ".join(f"{word!r} {rise:+.2f}" for word, rise in f.raises)
            parts.append(f"{f.latent} at {f.activation:.2f}" + (f" ({words})" if words else ""))
        return f"{self.token!r:<14} " + ("; ".join(parts) or "nothing")

    def to_pandas(self) -> "DataFrame":
        """A row for each latent that fires: its number and activation, and the next token that it raises most."""
        from pandas import DataFrame

        rows = [(one.latent, one.activation, one.raises[0][0] if one.raises else None) for one in self.firings]
        return DataFrame(rows, columns=["latent", "activation", "raises"])


@torch.no_grad()
def explain_text(sae: SAE, model: Model, text: str, *, top: Count = 5) -> tuple[TokenLatents, ...]:
    """For every token of a text, special ones left out, the `top` latents that are highest on it.

    Cost: one forward pass; memory for `top` rows of logits per token.

    Raises:
        InvalidArgument: the autoencoder belongs to another model.

    Examples:
        ```python
        for read in explain_text(sae, model, "Fog hid the Golden Gate Bridge."):
            print(read)
        ```
    """
    sites, final = find_sites(sae, model), resid_post[model.n_layers - 1]
    acts = capture(model, text, [*sites, final])
    values, indices = sae.encode_sparse(rows_of(acts, sites))
    values, order = values.topk(min(top, values.shape[1]))
    indices = indices.gather(1, order)
    in_stream = promotes_tokens(model, sae.sites[-1])
    ids = acts.tokens.ids[acts.tokens.content].tolist()
    reads = []
    for token, x, f, latent in zip(pieces(model.tokenizer, ids), acts.flat(final), values, indices, strict=True):
        on = f > 0
        rows = add_layers(decoder_rows(sae, latent[on])) * f[on, None] if in_stream else None
        moved = _moves(model, x, rows) if rows is not None and len(rows) else [((), ())] * int(on.sum())
        firings = [
            Firing(i, v, *change) for i, v, change in zip(latent[on].tolist(), f[on].tolist(), moved, strict=True)
        ]
        reads.append(TokenLatents(token, tuple(firings)))
    return tuple(reads)


Words = tuple[tuple[str, float], ...]


def _moves(model: Model, x: Float[Tensor, "d_model"], rows: Float[Tensor, "n d_model"]) -> list[tuple[Words, Words]]:
    change = model.unembed(x[None]).float() - model.unembed(x - rows.to(x)).float()
    change = change - change.mean(1, keepdim=True)
    count = min(WORDS, change.shape[1])
    up, down = change.topk(count), (-change).topk(count)

    def words(ids: Tensor, amounts: Tensor) -> Words:
        return tuple((piece(model.tokenizer, i), v) for i, v in zip(ids.tolist(), amounts.tolist(), strict=True))

    return [(words(up.indices[i], up.values[i]), words(down.indices[i], -down.values[i])) for i in range(len(rows))]
