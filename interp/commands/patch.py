"""The command `interp patch`: which places of a model a behaviour runs through, from a clean and a corrupt text."""

from pathlib import Path
from typing import Annotated

import typer

from hooks import load
from hooks.errors import InvalidArgument, nearest
from hooks.site import Layered
from interp.circuits import (
    PatchEffect,
    denoising,
    each_head,
    each_head_and_position,
    each_layer,
    each_position,
    logit_difference,
    noising,
    patch_sweep,
)
from interp.show import Section, patch_panel, report
from interp.show.frame import page_at

WAYS = {
    "layer": each_layer,
    "position": each_position,
    "head": each_head,
    "head-and-position": each_head_and_position,
}


def patch_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")],
    clean: Annotated[str, typer.Argument(help="A text that shows the behaviour.")],
    corrupt: Annotated[str, typer.Argument(help="One of as many tokens that does not.")],
    right: Annotated[str, typer.Argument(help="What the model says after the clean text: one token.")],
    wrong: Annotated[str, typer.Argument(help="What it says after the corrupt one.")],
    site: Annotated[str, typer.Option(help="What to patch: resid_pre, attn_out, mlp_out, z, q, k, v.")] = "resid_pre",
    by: Annotated[str, typer.Option(help="layer, position, head or head-and-position.")] = "position",
    necessity: Annotated[bool, typer.Option("--noising", help="Corrupt the clean run instead.")] = False,
    top: Annotated[int, typer.Option(help="Places to print.")] = 10,
    out: Annotated[Path | None, typer.Option(help="A page to write, with every place.")] = None,
) -> None:
    """Put the clean run's value into the corrupt run, one place at a time, and print where that brings most back."""
    if by not in WAYS:
        raise InvalidArgument(f"no sweep goes by '{by}'; did you mean {nearest(by, WAYS)}?")
    if top < 1:
        raise InvalidArgument(f"--top {top}: print at least one place")
    if out is not None:
        page_at(out)
    loaded = load(model)
    patching = (noising if necessity else denoising)(clean, corrupt)
    metric = logit_difference(loaded, right, wrong)
    found = patch_sweep(loaded, patching, metric, over=WAYS[by](Layered(site)))
    typer.echo(
        f"{found.kind}: logit difference {float(found.base):+.3f} unpatched, {float(found.donor):+.3f} at the end"
    )
    for place, share in _largest(found, top):
        typer.echo(f"{share:>+8.3f}  {place}")
    if out is not None:
        lead = f"{right!r} against {wrong!r} after {clean!r}."
        written = report(
            out, f"Patching {loaded.name}", lead, [Section("Places", corrupt, (patch_panel(found, loaded),))]
        )
        typer.echo(f"page: {written.resolve()}")


def _largest(found: PatchEffect, count: int) -> list[tuple[str, float]]:
    """The places with the largest shares, by size, spelt."""
    shares = found.effect
    told = []
    for i in shares.abs().flatten().argsort(descending=True)[:count].tolist():
        place, left = [], i
        for size in reversed(shares.shape):
            left, at = divmod(left, size)
            place.append(at)
        layer, *rest = place[::-1]
        named = (f"{'position' if axis == 'pos' else axis} {at}" for axis, at in zip(found.axes, rest, strict=True))
        told.append((", ".join([str(found.sites[layer]), *named]), float(shares.flatten()[i])))
    return told
