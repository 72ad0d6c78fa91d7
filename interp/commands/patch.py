"""The command `interp patch`: which places of a model a behaviour runs through, from a clean and a corrupt text."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hooks import Model
from hooks.errors import InvalidArgument, nearest
from hooks.pieces import piece
from hooks.site import LayerSites
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
from interp.commands.arguments import Device, FirstToken, ModelName, Quiet, load_to_answer, note_unshown
from interp.commands.verb import Document, verb
from interp.show import Section, patch_panel, report
from interp.show.frame import page_at

SWEEPS = {
    "layer": each_layer,
    "position": each_position,
    "head": each_head,
    "head-and-position": each_head_and_position,
}


@verb
def patch_command(
    model: ModelName,
    clean: Annotated[str, typer.Argument(metavar="CLEAN", help="A text that shows the behaviour.")],
    corrupt: Annotated[str, typer.Argument(metavar="CORRUPT", help="One of as many tokens that does not.")],
    right: Annotated[
        str,
        typer.Argument(
            metavar="RIGHT", help="What the model says after the clean text: one token, most often with a space before."
        ),
    ],
    wrong: Annotated[str, typer.Argument(metavar="WRONG", help="What it says after the corrupt one.")],
    site: Annotated[str, typer.Option(help="What to patch: resid_pre, attn_out, mlp_out, z, q, k, v.")] = "resid_pre",
    by: Annotated[str, typer.Option(help="layer, position, head or head-and-position.")] = "position",
    necessity: Annotated[bool, typer.Option("--noising", help="Corrupt the clean run instead.")] = False,
    top: Annotated[int, typer.Option(help="Places to print.")] = 10,
    out: Annotated[Path | None, typer.Option(help="A page to write, with every place.")] = None,
    first_token: FirstToken = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Put the clean run's value into the corrupt run, one place at a time, and print where that brings most back."""
    if by not in SWEEPS:
        raise InvalidArgument(f"no sweep goes by '{by}'; did you mean {nearest(by, SWEEPS)}?")
    if top < 1:
        raise InvalidArgument(f"--top {top}: print at least one place")
    if out is not None:
        page_at(out)
    over = SWEEPS[by](LayerSites(site))
    wanted, words = "patching measures what is predicted", {"RIGHT": right, "WRONG": wrong}
    loaded, answers = load_to_answer(model, wanted, first_token, device, quiet=quiet, **words)
    patching = (noising if necessity else denoising)(clean, corrupt)
    found = patch_sweep(loaded, patching, logit_difference(loaded, *answers), over=over, progress=not quiet)
    base, donor = float(found.base), float(found.donor)
    typer.echo(f"{found.kind}: logit difference {base:+.3f} unpatched, {donor:+.3f} with everything patched")
    places = _largest(found, loaded, top)
    for place in places:
        typer.echo(f"{place['share']:>+8.3f}  {_name(place)}")
    note_unshown(*((base, donor) if necessity else (donor, base)))
    if out is not None:
        lead = f"{right!r} against {wrong!r} after {clean!r}."
        report(out, f"Patching {loaded.name}", lead, [Section("Places", corrupt, (patch_panel(found, loaded),))])
        typer.echo(f"page: {out.resolve()}")
    return {"kind": found.kind, "unpatched": base, "patched": donor, "places": places, "page": out}


def _largest(found: PatchEffect, model: Model, count: int) -> list[dict[str, Any]]:
    """The places with the largest shares, by size, each position with its token in the text that is patched."""
    shares = found.effect
    places = []
    for i in shares.abs().flatten().argsort(descending=True)[:count].tolist():
        at, left = [], i
        for size in reversed(shares.shape):
            left, number = divmod(left, size)
            at.append(number)
        layer, *rest = at[::-1]
        place: dict[str, Any] = {"share": float(shares.flatten()[i]), "site": str(found.sites[layer])}
        for axis, number in zip(found.axes, rest, strict=True):
            place["position" if axis == "pos" else axis] = number
        if "position" in place:
            place["token"] = piece(model.tokenizer, int(found.tokens.ids[0, place["position"]]))
        places.append(place)
    return places


def _name(place: dict[str, Any]) -> str:
    named = [f"{axis} {place[axis]}" for axis in ("head", "position") if axis in place]
    token = f" {place['token']!r}" if "token" in place else ""
    return ", ".join([place["site"], *named]) + token
