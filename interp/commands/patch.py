"""The command `interp patch`: which places of a model a behaviour runs through, from a clean and a corrupt text."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hooks import Model, Tokens
from hooks.encoding import special_ids
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
from interp.commands.arguments import (
    ONE_PAIR,
    Device,
    FirstToken,
    ModelName,
    Quiet,
    lead_with,
    load_to_answer,
    note,
    warn_unshown,
)
from interp.commands.verb import Document, verb
from interp.show import Section, patch_panel, report
from interp.show.frame import page_at

SWEEPS = {
    "layer": each_layer,
    "position": each_position,
    "head": each_head,
    "head-and-position": each_head_and_position,
}
OF_HEADS = ("z", "q", "k", "v")


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
    top: Annotated[int, typer.Option(min=1, help="Places to print.")] = 10,
    out: Annotated[Path | None, typer.Option(help="A page to write, with every place.")] = None,
    first_token: FirstToken = False,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Put the clean run's value into the corrupt run, one place at a time, and print where that brings most back."""
    if by not in SWEEPS:
        raise InvalidArgument(f"no sweep goes by '{by}'; did you mean {nearest(by, SWEEPS)}?")
    if "head" in by and site.removeprefix("cross_") not in OF_HEADS:
        raise InvalidArgument(f"--by {by} patches heads, and {site} has none: give --site {' or '.join(OF_HEADS)}")
    if out is not None:
        page_at(out)
    over = SWEEPS[by](LayerSites(site))
    wanted, words = "patching measures what is predicted", {"RIGHT": right, "WRONG": wrong}
    loaded, answers = load_to_answer(model, wanted, first_token, device, quiet=quiet, **words)
    patching = (noising if necessity else denoising)(clean, corrupt)
    metric = logit_difference(loaded, *answers)
    found = patch_sweep(loaded, patching, metric, over=over, progress=not quiet)
    other = replace(patching, donor=_random_text(loaded, patching.tokens(loaded)[1]))
    control = replace(patch_sweep(loaded, other, metric, over=over, progress=not quiet), donor=found.donor)
    base, donor = float(found.base), float(found.donor)
    warning = warn_unshown(*((base, donor) if necessity else (donor, base)))
    note(warning)
    typer.echo(f"{found.kind}: logit difference {base:+.3f} unpatched, {donor:+.3f} with everything patched")
    places, most = _largest(found, control, loaded, top), float(control.effect.abs().max())
    typer.echo(f"{'share':>8}  {'control':>8}")
    for place in places:
        typer.echo(f"{place['share']:>+8.3f}  {place['control']:>+8.3f}  {_name(place)}")
    said = f"control: the same patches from a text of random tokens, a share of at most {most:.3f}. {ONE_PAIR}"
    typer.echo(said)
    if out is not None:
        lead = lead_with(warning, f"{right!r} against {wrong!r} after {clean!r}. {said[:1].upper()}{said[1:]}.")
        report(out, f"Patching {loaded.name}", lead, [Section("Places", corrupt, (patch_panel(found, loaded),))])
        typer.echo(f"page: {out.resolve()}")
    return {
        "kind": found.kind,
        "unpatched": base,
        "patched": donor,
        "places": places,
        "largest_control": most,
        "warning": warning,
        "page": out,
    }


def _random_text(model: Model, tokens: Tokens) -> Tokens:
    """A text of as many random tokens: what values that have nothing to do with the behaviour bring."""
    ordinary = [i for i in range(len(model.tokenizer)) if i not in special_ids(model.tokenizer) and i < model.d_vocab]
    drawn = torch.randint(len(ordinary), tokens.ids.shape, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor(ordinary)[drawn].to(tokens.ids)
    return replace(tokens, ids=torch.where(tokens.special, tokens.ids, ids), texts=None, offsets=None)


def _largest(found: PatchEffect, control: PatchEffect, model: Model, count: int) -> list[dict[str, Any]]:
    """The places with the largest shares, by size, each position with its token in the text that is patched."""
    shares, others = found.effect, control.effect.flatten()
    places = []
    for i in shares.abs().flatten().argsort(descending=True)[:count].tolist():
        at, left = [], i
        for size in reversed(shares.shape):
            left, number = divmod(left, size)
            at.append(number)
        layer, *rest = at[::-1]
        place: dict[str, Any] = {"share": float(shares.flatten()[i]), "control": float(others[i])}
        place["site"] = str(found.sites[layer])
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
