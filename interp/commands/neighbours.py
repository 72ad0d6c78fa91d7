"""The command `interp neighbours`: what is next to a token in a model, or to a picture in a net of pictures."""

from typing import Annotated

import typer

from hooks.errors import InvalidArgument
from hooks.site import embedding
from hooks.towers import Towers
from interp.atlas import (
    Neighbours,
    Space,
    find_neighbours,
    measure_hubness,
    random_query,
    solve_analogy,
    space_at,
    token_space,
)
from interp.commands.arguments import Device, Quiet, check_device, load_model, show_step
from interp.commands.verb import Document, verb
from interp.postcard import bundled_nets, draw, load_net, new_net, scenes


@verb
def neighbours_command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A language model, for its tokens, or a bundled net of pictures.")
    ],
    query: Annotated[
        str, typer.Argument(help="A token, such as ' London' or id:123, or the number of a test picture.")
    ],
    minus: Annotated[str | None, typer.Option(help="With --plus: the query less this and plus that.")] = None,
    plus: Annotated[str | None, typer.Option(help="See --minus.")] = None,
    k: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    n: Annotated[int, typer.Option(min=1, help="Test pictures in the space.")] = 1000,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Show what is next to a token or picture, and what a difference of two others leads to from it."""
    if (minus is None) != (plus is None):
        raise InvalidArgument("--minus and --plus go together: the query less the one and plus the other")
    drawn = model in bundled_nets()
    space, other = _postcards(model, n, device, quiet) if drawn else _tokens(model, device, quiet)
    if minus is not None and plus is not None:
        found = solve_analogy(space, _item(minus, drawn), _item(plus, drawn), _item(query, drawn), k)
        rest = find_neighbours(space, _item(query, drawn), k, exclude=None if drawn else found.excluded)
    else:
        found = find_neighbours(space, _item(query, drawn), k)
        alone = space.number(_item(query, drawn))
        rest = (
            find_neighbours(other, alone, k)
            if other
            else find_neighbours(space, random_query(space), k, exclude=[alone])
        )
    hubs = measure_hubness(space, k) if len(space) <= 5000 else None
    control = "the query alone" if plus is not None else "untrained net" if drawn else "a random direction"
    _show(found, rest, control, by_id=not drawn)
    typer.echo(f"left out, as they are in the question: {', '.join(map(repr, found.excluded))}")
    if hubs is not None:
        typer.echo(
            f"hubs: {hubs.hubs[0][0]!r} is a neighbour of {hubs.hubs[0][1]} of {len(space)} items, skew {hubs.skew:.2f}"
        )
    return {
        "query": query,
        "neighbours": [*zip(found.names, found.scores.tolist(), strict=True)],
        "numbers": found.numbers.tolist(),
        "excluded": found.excluded,
        "control": [*zip(rest.names, rest.scores.tolist(), strict=True)],
        "control_is": control,
        "hubs": None if hubs is None else {"most": hubs.hubs, "skew": hubs.skew},
    }


def _item(text: str, drawn: bool) -> str | int:
    if not drawn:
        return text
    if not text.isdigit():
        raise InvalidArgument(
            f"{text!r} is no number of a test picture: count from 0, as interp postcard draw does from 1"
        )
    return int(text)


def _tokens(name: str, device: str | None, quiet: bool) -> tuple[Space, None]:
    return token_space(load_model(name, device, quiet=quiet)), None


def _postcards(name: str, n: int, device: str | None, quiet: bool) -> tuple[Space, Space]:
    """The space of a net, and that of a net that was not trained."""
    place, shown = check_device(device), scenes("test", n)
    trained, untrained = load_net(name, place), load_net(new_net("convnet"), place)
    names = [f"{i} {s.landmark}, {s.time}, {s.weather}" for i, s in enumerate(shown)]
    with show_step(f"drawing and reading {n} pictures", quiet):
        pictures = draw(shown).images()
        both = [
            space_at(net.image if isinstance(net, Towers) else net, pictures, embedding, names, progress=False)
            for net in (trained, untrained)
        ]
    return both[0], both[1]


def _show(found: Neighbours, rest: Neighbours, control: str, *, by_id: bool) -> None:
    typer.echo(f"{'score':>7}  {'item':<44}{'score':>7}  {control}")
    for mine, other in zip(_named(found, by_id), _named(rest, by_id), strict=True):
        typer.echo(f"{mine[0]:>7.3f}  {mine[1]:<44}{other[0]:>7.3f}  {other[1]}")


def _named(found: Neighbours, by_id: bool) -> list[tuple[float, str]]:
    """Each neighbour's score and name, and a token's id: tokens may read alike."""
    ids = [f" (id:{i})" if by_id else "" for i in found.numbers.tolist()]
    return [(s, f"{name!r}{i}") for s, name, i in zip(found.scores.tolist(), found.names, ids, strict=True)]
