"""The command `interp neighbours`: what is next to a token in a model, or to a picture in a net of pictures."""

from typing import Annotated, Literal

import typer

from hooks.errors import InvalidArgument
from hooks.site import embedding
from hooks.towers import Towers
from interp.atlas import Neighbours, Space, find_neighbours, measure_hubness, solve_analogy, space_at, token_space
from interp.commands.arguments import Device, Quiet, check_device, load_model, show_step
from interp.commands.verb import Document, verb
from interp.postcard import draw, load_net, new_net, scenes

Which = Literal["tokens", "postcards"]


@verb
def neighbours_command(
    query: Annotated[str, typer.Argument(help="A token, such as ' London', or the number of a test picture.")],
    of: Annotated[Which, typer.Option(help="Whose space: a model's tokens, or the bundled pictures.")] = "tokens",
    model: Annotated[str, typer.Option(help="A language model, or a bundled net of pictures.")] = "",
    minus: Annotated[str | None, typer.Option(help="With --plus: the query less this and plus that.")] = None,
    plus: Annotated[str | None, typer.Option(help="See --minus.")] = None,
    k: Annotated[int, typer.Option(help="How many.")] = 10,
    n: Annotated[int, typer.Option(help="Test pictures in the space.")] = 1000,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Show what is next to a token or picture, and what a difference of two others leads to from it."""
    if (minus is None) != (plus is None):
        raise InvalidArgument("--minus and --plus go together: the query less the one and plus the other")
    if k < 1:
        raise InvalidArgument(f"--k {k}: show at least one neighbour")
    space, other = _tokens(model, device, quiet) if of == "tokens" else _postcards(model, n, device, quiet)
    if minus is not None and plus is not None:
        found = solve_analogy(space, _item(minus, of), _item(plus, of), _item(query, of), k)
        rest = find_neighbours(space, _item(query, of), k, exclude=found.excluded if of == "tokens" else None)
    else:
        found = find_neighbours(space, _item(query, of), k)
        rest = None if other is None else find_neighbours(other, _item(query, of), k)
    hubs = measure_hubness(space, k) if len(space) <= 5000 else None
    _show(found, rest, "the query alone" if plus is not None else "untrained net")
    typer.echo(f"left out, as they are in the question: {', '.join(found.excluded)}")
    if hubs is not None:
        typer.echo(
            f"hubs: {hubs.hubs[0][0]!r} is a neighbour of {hubs.hubs[0][1]} of {len(space)} items, skew {hubs.skew:.2f}"
        )
    return {
        "query": query,
        "neighbours": [*zip(found.names, found.scores.tolist(), strict=True)],
        "excluded": found.excluded,
        "control": None if rest is None else [*zip(rest.names, rest.scores.tolist(), strict=True)],
    }


def _item(text: str, of: Which) -> str | int:
    if of == "tokens":
        return text
    if not text.isdigit():
        raise InvalidArgument(
            f"{text!r} is no number of a test picture: count from 0, as interp postcard draw does from 1"
        )
    return int(text)


def _tokens(name: str, device: str | None, quiet: bool) -> tuple[Space, None]:
    return token_space(load_model(name or "landmark", device, quiet=quiet)), None


def _postcards(name: str, n: int, device: str | None, quiet: bool) -> tuple[Space, Space]:
    """The space of a net, and that of a net that was not trained."""
    place, shown = check_device(device), scenes("test", n)
    trained, untrained = load_net(name or "convnet", place), load_net(new_net("convnet"), place)
    names = [f"{i} {s.landmark}, {s.time}, {s.weather}" for i, s in enumerate(shown)]
    with show_step(f"drawing and reading {n} pictures", quiet):
        pictures = draw(shown).images()
        both = [
            space_at(net.image if isinstance(net, Towers) else net, pictures, embedding, names, progress=False)
            for net in (trained, untrained)
        ]
    return both[0], both[1]


def _show(found: Neighbours, rest: Neighbours | None, control: str) -> None:
    typer.echo(f"{'score':>7}  {'item':<44}{control if rest is not None else ''}")
    for i, name in enumerate(found.names):
        rivals = "" if rest is None else rest.names[i]
        typer.echo(f"{float(found.scores[i]):>7.3f}  {name!r:<44}{rivals}")
