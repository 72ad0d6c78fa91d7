"""Splicing: an autoencoder in the place of its site, whole, or only by what a change of its latents does."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isfinite, prod
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Intervention, Position, Site
from hooks.errors import InvalidArgument, OutOfRange, nearest
from hooks.interventions import apply
from hooks.network import AnyModel
from hooks.position import everywhere
from interp.sae.architectures.crosscoder import Crosscoder
from interp.sae.architectures.sae import CHUNK, SAE, check_whole
from interp.sae.architectures.temporal import Temporal

Change: TypeAlias = Callable[[Float[Tensor, "n latent"]], Float[Tensor, "n latent"]]


def splice(sae: SAE, at: Position = everywhere) -> Intervention:
    """Put the reconstruction in the place of what is read: x' = x_hat, the error x - x_hat left out.

    Raises:
        InvalidArgument: a transcoder or a crosscoder, which write elsewhere than they read, or weights that read
            normalised activations.

    Costs one encoding and decoding of every selected token.

    Examples:
        ```python
        with intervene(model, {sae.site: splice(sae)}):
            model.generate("The Golden Gate Bridge is in")
        ```
    """
    _same_place(sae)

    def splice(x: Float[Tensor, "n *d"]) -> Float[Tensor, "n *d"]:
        return torch.cat([sae(rows) for rows in x.flatten(1).split(CHUNK)]).to(x).view_as(x)

    return replace(apply(splice, at=at), fingerprint=sae.fingerprint)


def change_latents(sae: SAE, change: Change, at: Position = everywhere) -> Intervention:
    """Change latents and keep the error: x' = decode(f') + (x - decode(f)) = x + (f' - f) W_dec, f' = change(f).

    A change that changes nothing leaves x as it was, bit for bit. It is given latents of its own, to write in or not.

    Args:
        sae: what is spliced in.
        change: from latents to latents, such as `ablate_latents([17])`, `clamp_latents([17], 4.0)` or
            `scale_latents([17], 2.0)`.
        at: which tokens.

    Raises:
        InvalidArgument: as for `splice`; while read, a change that gives latents of another shape.

    Costs one encoding of every selected token.

    Examples:
        ```python
        with intervene(model, {sae.site: change_latents(sae, ablate_latents([17]))}):
            model.generate("The Golden Gate Bridge is in")
        ```
    """
    _same_place(sae)
    check_whole(sae, "a change of its latents")

    def change_latents(x: Float[Tensor, "n *d"]) -> Float[Tensor, "n *d"]:
        moved = []
        for rows in x.flatten(1).split(CHUNK):
            f = sae.encode(rows)
            changed = change(f.clone())
            if changed.shape != f.shape:
                raise InvalidArgument(
                    f"the change made latents of shape {tuple(changed.shape)} from {tuple(f.shape)}: return as many, "
                    "those that it leaves alone included"
                )
            step = (changed - f) @ sae.W_dec
            moved.append(step if sae.row_norm is None else step * sae.row_norm.measure(rows)[1])
        return x + torch.cat(moved).to(x).view_as(x)

    return replace(apply(change_latents, at=at), fingerprint=sae.fingerprint)


def ablate_latents(latents: Sequence[int]) -> Change:
    """The change that puts latents at 0.

    Examples:
        >>> ablate_latents([1])(torch.tensor([[2.0, 3.0]])).tolist()
        [[2.0, 0.0]]
    """
    return clamp_latents(latents, 0.0)


def clamp_latents(latents: Sequence[int], value: float | int) -> Change:
    """The change that sets latents to a value, whether they were on or not.

    Examples:
        >>> clamp_latents([0], 5.0)(torch.tensor([[0.0, 3.0]])).tolist()
        [[5.0, 3.0]]
    """
    _check_finite("value", value)
    return lambda f: _change_at(f, latents, lambda part: torch.full_like(part, value))


def scale_latents(latents: Sequence[int], factor: float | int) -> Change:
    """The change that multiplies latents.

    Examples:
        >>> scale_latents([1], 2.0)(torch.tensor([[2.0, 3.0]])).tolist()
        [[2.0, 6.0]]
    """
    _check_finite("factor", factor)
    return lambda f: _change_at(f, latents, lambda part: factor * part)


def check_fits(sae: SAE, model: AnyModel) -> Site:
    """The autoencoder's site, having checked that the model has all its sites and that they are as wide.

    Raises:
        InvalidArgument: no site is known, the model lacks one, or its width is another; both are named.

    Examples:
        ```python
        check_fits(load_pretrained("gpt2-small-res-jb", "blocks.6.hook_resid_pre"), model)
        ```
    """
    if not sae.sites:
        raise InvalidArgument("this autoencoder does not know its site: set sae.site, for example to resid_post[4]")
    for site in sae.sites:
        if site not in model.sites:
            raise InvalidArgument(
                f"this autoencoder reads {site}, which {model.name} lacks; its nearest are "
                f"{nearest(str(site), map(str, model.sites))}"
            )
    for i, site in enumerate(sae.sites):
        writes = i == 1 and sae.transcodes
        width, ours = prod(model.tap(site).shape), sae.d_out if writes else sae.d_in
        if width != ours:
            raise InvalidArgument(
                f"this autoencoder {'writes' if writes else 'reads'} {ours} dimensions at {site}; {model.name} has "
                f"{width} there: load the model it was trained on"
            )
    return sae.sites[0]


def resolve_latents(latents: Sequence[int], d_sae: int) -> list[int]:
    """Latents by number, having checked that they exist: `OutOfRange` where one does not.

    Examples:
        >>> resolve_latents((0, 3), 4)
        [0, 3]
    """
    if odd := [i for i in latents if not 0 <= i < d_sae]:
        raise OutOfRange(f"latents {odd} do not exist; this autoencoder has latents 0 to {d_sae - 1}")
    return [*latents]


def _check_finite(name: str, value: float | int) -> None:
    if not isfinite(value):
        raise InvalidArgument(f"{name} is {value}; it must be finite")


def _change_at(f: Tensor, latents: Sequence[int], rule: Callable[[Tensor], Tensor]) -> Tensor:
    index = torch.tensor(resolve_latents(latents, f.shape[-1]), dtype=torch.long, device=f.device)
    return f.index_copy(-1, index, rule(f.index_select(-1, index)))


def _same_place(sae: SAE) -> None:
    if isinstance(sae, Temporal):
        raise InvalidArgument(
            "a Temporal autoencoder reads whole sequences, and interventions change rows: splice another autoencoder"
        )
    if isinstance(sae, Crosscoder) or sae.transcodes:
        raise InvalidArgument(
            f"a {sae.architecture} writes elsewhere than it reads, so it cannot be put in the place of one site: "
            "splice an autoencoder, or steer with sae.direction(latent)"
        )
    sae.raw()
