"""The vector of a picture as a sum of what heads, patches and feed-forward layers write, through the frozen norm."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Activations, Images, Network, Towers, stream
from hooks.border import Count
from hooks.errors import InvalidArgument, WrongModel
from hooks.site import attn_out, mlp_out, pattern, resid_post, resid_pre, v, z
from hooks.summary import summarise
from hooks.weights import bias_of, matrix_of, weight_of


@final
@dataclass(frozen=True, eq=False)
class Decomposition:
    """What the parts of an image tower put into the vectors of pictures, before these are made units.

    `vector = Σ_{l,h} heads + Σ_l mlps + rest`, exactly.

    Attributes:
        heads: of each head, with its share of no bias.
        mlps: of each feed-forward layer, its bias included.
        rest: of the class token's embedding, of attention's biases, and of the last norm's.
    """

    heads: Float[Tensor, "batch layer head d_model"]
    mlps: Float[Tensor, "batch layer d_model"]
    rest: Float[Tensor, "batch d_model"]

    __repr__ = summarise

    @property
    def vectors(self) -> Float[Tensor, "batch d_model"]:
        """The sum of all parts: the tower's own vectors."""
        return self.heads.sum((1, 2)) + self.mlps.sum(1) + self.rest


def decompose_vectors(clip: Towers, pictures: Images, *, batch_size: Count = 100) -> Decomposition:
    """Return what each head and feed-forward layer puts into a picture's vector.

    The decomposition of Gandelsman et al. 2024 (arXiv:2310.05916): a part c of the class token's stream x gives
    `P (γ ⊙ (c − mean(c)) / σ(x))`, where the last norm's σ is that of the whole stream, and P is the projection into
    the shared space.

    Args:
        clip: two towers, of which the image's reads its class token after a last norm.
        pictures: to read.
        batch_size: of the passes.

    Raises:
        WrongModel: a tower of another plan.

    Cost: one forward pass.

    Examples:
        ```python
        parts = decompose_vectors(load_net("clip"), pictures)
        parts.heads[0, 3, 1]  # what head 1 of the last layer put into the first picture's vector
        ```
    """
    layers = _layers(clip.image)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    sites = [resid_pre[0], *(one[layer] for layer in layers for one in (z, mlp_out)), resid_post[layers[-1]]]
    for acts in stream(clip.image, pictures, sites, batch_size=batch_size):
        put, constant = _projection(clip, acts[resid_post[layers[-1]]][:, 0])
        heads, biases = [], acts[resid_pre[0]][:, 0]
        for layer in layers:
            W_O, b_O = _output(clip.image, layer)
            per_head = acts[z[layer]][:, 0]
            heads.append(torch.einsum("bhk,hkd->bhd", per_head, W_O.unflatten(0, (per_head.shape[1], -1))))
            biases = biases + b_O
        mlps = torch.stack([acts[mlp_out[layer]][:, 0] for layer in layers], 1)
        found.append((put(torch.stack(heads, 1)), put(mlps), put(biases) + constant))
    return Decomposition(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def map_patches(
    clip: Towers, pictures: Images, direction: Float[Tensor, "d_model"], *, batch_size: Count = 100
) -> Float[Tensor, "batch layer head place"]:
    """Return how far each head moves a picture's vector along a direction by what it reads at each place.

    The first place is the class token's own. Over places they sum to the head's part along the direction.

    Raises:
        WrongModel: a tower of another plan.
        InvalidArgument: a direction of another width than the shared space.

    Cost: one forward pass.

    Examples:
        ```python
        map_patches(clip, pictures, clip.text_vectors(["the Golden Gate Bridge"])[0]).sum((1, 2))[:, 1:]
        ```
    """
    layers, found = _layers(clip.image), []
    width = weight_of(_part(clip, "visual_projection")).shape[0]
    if direction.shape != (width,):
        raise InvalidArgument(f"the shared space has {width} dimensions, the direction {list(direction.shape)}")
    sites = [*(one[layer] for layer in layers for one in (v, pattern)), resid_post[layers[-1]]]
    for acts in stream(clip.image, pictures, sites, batch_size=batch_size):
        put, _ = _projection(clip, acts[resid_post[layers[-1]]][:, 0])
        found.append(torch.stack([_places(clip, acts, layer, put, direction) for layer in layers], 1))
    return torch.cat(found)


def _places(
    clip: Towers, acts: Activations, layer: int, put: Callable[[Tensor], Tensor], direction: Tensor
) -> Float[Tensor, "batch head place"]:
    """`A[cls, i] v_i W_O`, put into the shared space, along a direction."""
    W_O, _ = _output(clip.image, layer)
    values, read = acts[v[layer]], acts[pattern[layer]][:, :, 0]
    W = W_O.unflatten(0, (values.shape[2], -1))
    written = torch.einsum("bhi,bihk,hkd->bihd", read, values, W)
    return torch.einsum("bihd,d->bhi", put(written), direction.to(written))


def _layers(image: Network) -> range:
    n = sum(site.name == "resid_post" for site in image.sites)
    parts = (getattr(getattr(image.hf, "vision_model", None), "post_layernorm", None),
             getattr(image.hf, "visual_projection", None))  # fmt: skip
    if not n or None in parts or z[0] not in image.taps:
        raise WrongModel(f"{image.name} is no image tower of CLIP's plan, whose class token is normed and projected")
    return range(n)


def _output(image: Network, layer: int) -> tuple[Float[Tensor, "_ d_model"], Float[Tensor, "d_model"]]:
    """The output projection of attention."""
    tap = image.tap(z[layer])
    if image.tap(attn_out[layer]).module is not tap.module:
        raise WrongModel(f"{image.name} norms what attention of layer {layer} gives, so its heads do not sum to it")
    W, b = matrix_of(tap.module).detach(), bias_of(tap.module)
    return W, W.new_zeros(W.shape[1]) if b is None else b.detach()


def _projection(
    clip: Towers, x: Float[Tensor, "batch d_model"]
) -> tuple[Callable[[Tensor], Tensor], Float[Tensor, "_"]]:
    """The linear map from parts of the stream into the shared space with this stream's σ, and what the norm adds."""
    norm, P = _part(clip, "vision_model.post_layernorm"), matrix_of(_part(clip, "visual_projection")).detach()
    gamma, beta = weight_of(norm).detach(), bias_of(norm)
    sigma = (x.var(-1, unbiased=False) + float(norm.eps)).sqrt()  # type: ignore[arg-type]

    def put(part: Tensor) -> Tensor:
        scale = sigma.reshape(-1, *[1] * (part.ndim - 1))
        return ((part - part.mean(-1, keepdim=True)) / scale * gamma) @ P

    return put, (torch.zeros_like(gamma) if beta is None else beta.detach()) @ P


def _part(clip: Towers, path: str) -> nn.Module:
    return clip.image.hf.get_submodule(path)


def each_head(parts: Decomposition) -> Iterator[tuple[int, int]]:
    """The layer and number of each head, the first layer first."""
    _, layers, heads, _ = parts.heads.shape
    return ((layer, head) for layer in range(layers) for head in range(heads))
