"""The parts that write to the residual stream, and what each adds along a direction."""

from collections.abc import Callable, Sequence
from typing import Protocol, Self, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Activations, Model, Site, Tokens, capture
from hooks.errors import InvalidArgument
from hooks.site import attn_out, embed, mlp_act, mlp_out, pos_embed, resid_pre, z
from hooks.weights import width

Ends: TypeAlias = Bool[Tensor, "batch pos"]
Split: TypeAlias = tuple[tuple[str, ...], Float[Tensor, "example n"]]
Parts: TypeAlias = Callable[[Model, Tokens, Ends, Float[Tensor, "example d_model"]], Split]


@runtime_checkable
class Dictionary(Protocol):
    """Sparse latents f(x) of the activations at a site, and the decoder that sums their directions: x ~ f W_dec + b.

    Every autoencoder of `interp.sae` is one.
    """

    site: Site | None
    d_sae: int
    W_dec: Tensor
    b_dec: Tensor

    @property
    def sites(self) -> Sequence[Site]:
        """The places it reads."""
        ...

    def raw(self) -> Self:
        """The same dictionary for activations as the model has them."""
        ...

    def encode(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n latent"]:
        """The latents."""
        ...

    def decode(self, f: Float[Tensor, "*n latent"]) -> Float[Tensor, "*n d_model"]:
        """What they say the activations are."""
        ...


@torch.no_grad()
def components(
    model: Model, tokens: Tokens, ends: Bool[Tensor, "batch pos"], g: Float[Tensor, "example d_model"]
) -> tuple[tuple[str, ...], Float[Tensor, "example n"]]:
    """Embeddings, and the attention and feed-forward output of each layer: g . c for each part c."""
    names, parts = _embeddings(model, tokens, ends, g)
    rest = _outputs(model)
    acts = _capture(model, tokens, rest)
    return (*names, *map(str, rest)), torch.cat([parts, _along(acts, rest, ends, g)], 1)


@torch.no_grad()
def heads(
    model: Model, tokens: Tokens, ends: Bool[Tensor, "batch pos"], g: Float[Tensor, "example d_model"]
) -> tuple[tuple[str, ...], Float[Tensor, "example n"]]:
    """As `components`, with attention split into heads: g . z_h W_O,h for each, and the output's bias.

    Raises:
        InvalidArgument: a family whose attention output is normalised before it is added, so that heads do not
            sum to it.
    """
    layers = range(model.n_layers)
    names, parts = _embeddings(model, tokens, ends, g)
    acts = _capture(model, tokens, [*(z[layer] for layer in layers), *_outputs(model)])
    columns = [parts]
    for layer in layers:
        W_O, b_O = output_of(model, z[layer], attn_out[layer])
        reads = torch.einsum("hkd,nd->nhk", W_O.to(g).unflatten(0, (model.n_heads, -1)), g)
        columns += [torch.einsum("nhk,nhk->nh", acts[z[layer]][ends].to(g), reads), (g @ b_O.to(g))[:, None]]
        names = (*names, *(f"head {layer}.{head}" for head in range(model.n_heads)), f"bias of attention {layer}")
    outs = [mlp_out[layer] for layer in layers]
    return (*names, *map(str, outs)), torch.cat([*columns, _along(acts, outs, ends, g)], 1)


@torch.no_grad()
def neurons(
    model: Model, tokens: Tokens, ends: Bool[Tensor, "batch pos"], g: Float[Tensor, "example d_model"]
) -> tuple[tuple[str, ...], Float[Tensor, "example n"]]:
    """As `components`, with feed-forward layers split into neurons: a_i g . W_out,i for each, and the output's bias.

    Raises:
        InvalidArgument: a family whose feed-forward output is normalised before it is added.
    """
    layers = range(model.n_layers)
    names, parts = _embeddings(model, tokens, ends, g)
    attention = [attn_out[layer] for layer in layers]
    acts = _capture(model, tokens, [*(mlp_act[layer] for layer in layers), *attention])
    columns = [parts, _along(acts, attention, ends, g)]
    names = (*names, *map(str, attention))
    for layer in layers:
        W, b = output_of(model, mlp_act[layer], mlp_out[layer])
        columns += [acts[mlp_act[layer]][ends] * (g @ W.T.to(g)), (g @ b.to(g))[:, None]]
        names = (*names, *(f"neuron {layer}.{i}" for i in range(len(W))), f"bias of feed-forward {layer}")
    return names, torch.cat(columns, 1)


def latents(sae: Dictionary) -> Parts:
    """Split the stream where an autoencoder reads it: its latents, its bias, its error, and what comes after it.

    f_i g . W_dec,i for each latent i; the error is what the autoencoder leaves out of the stream.

    Raises:
        InvalidArgument: an autoencoder of no single place in the residual stream, or one whose latents processes share.
    """
    site = sae.site
    if site is None or site.name not in ("resid_pre", "resid_post") or len(sae.sites) > 1:
        raise InvalidArgument(
            f"this autoencoder reads {site}, and its latents are parts of the stream only if it reads resid_pre or "
            "resid_post: take one trained there"
        )
    if len(sae.W_dec) < sae.d_sae:
        raise InvalidArgument(
            f"this process holds {len(sae.W_dec)} of {sae.d_sae} latents, and a split of the logit needs all of them: "
            "take sae.whole(), where a host holds that"
        )

    def split(model: Model, tokens: Tokens, ends: Ends, g: Float[Tensor, "example d_model"]) -> Split:
        later = [out for out in _outputs(model) if (out.layer or 0) >= (site.layer or 0) + (site.name == "resid_post")]
        with torch.no_grad():
            acts = _capture(model, tokens, [site, *later])
            x = acts[site][ends]
            f = sae.raw().encode(x.to(sae.W_dec.dtype))
            error = x.to(g) - sae.decode(f).to(g)
            own = [f.to(g) * (g @ sae.W_dec.to(g).T), (g @ sae.b_dec.to(g))[:, None], (g * error).sum(-1, keepdim=True)]
            names = (*(f"latent {i}" for i in range(sae.d_sae)), "bias of the decoder", "error of the autoencoder")
            return (*names, *map(str, later)), torch.cat([*own, _along(acts, later, ends, g)], 1)

    return split


def output_of(model: Model, read: Site, written: Site) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "d_model"]]:
    """The map W and bias b from what an output projection reads to what is added to the stream: c = a W + b.

    Raises:
        InvalidArgument: the projection's output is not what is added, but normalised first.
    """
    tap, added = model.tap(read), model.tap(written)
    if added.module is not tap.module:
        raise InvalidArgument(
            f"{model.name} normalises {written} before it is added to the stream, so its parts do not sum to it: "
            "take components"
        )
    rows = width(tap.module)[0]
    zeros = torch.zeros(1, rows, dtype=model.dtype, device=model.device)
    b = added.view.factor * tap.module(zeros)[0]
    W = added.view.factor * tap.module(torch.eye(rows).to(zeros)) - b
    return W, b


def _outputs(model: Model) -> list[Site]:
    return [site[layer] for layer in range(model.n_layers) for site in (attn_out, mlp_out)]


def _capture(model: Model, tokens: Tokens, sites: list[Site]) -> Activations:
    return capture(model, tokens, sites, batch_size=len(tokens))


def _embeddings(model: Model, tokens: Tokens, ends: Ends, g: Float[Tensor, "example d_model"]) -> Split:
    """Token and position embeddings, where they make up the first stream; else that stream."""
    places = [site for site in (embed, pos_embed) if site in model.sites]
    acts = _capture(model, tokens, [*places, resid_pre[0]])
    whole = acts[resid_pre[0]]
    as_wide = all(acts[site].shape == whole.shape for site in places)
    if as_wide and torch.allclose(
        sum((acts[site] for site in places), torch.zeros_like(whole)), whole, rtol=1e-4, atol=1e-5
    ):
        return tuple(map(str, places)), _along(acts, places, ends, g)
    return ("embeddings",), _along(acts, [resid_pre[0]], ends, g)


def _along(
    acts: Activations, sites: list[Site], ends: Ends, g: Float[Tensor, "example d_model"]
) -> Float[Tensor, "example n"]:
    if not sites:
        return g.new_zeros(len(g), 0)
    return torch.stack([(acts[site][ends] * g).sum(-1) for site in sites], 1)
