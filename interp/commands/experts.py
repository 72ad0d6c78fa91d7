"""The command `interp experts`: load, repetition and specialisation of every layer, each next to chance."""

from pathlib import Path
from typing import Annotated

import typer

from hooks.errors import InvalidArgument
from interp.commands.arguments import Device, Quiet, check_device, load_model, read_lines, show_step
from interp.commands.verb import Document, verb
from interp.experts import capture_routing, measure_specialisation, measure_usage
from interp.landmark import corpus
from interp.worlds.load import bundled_worlds, load_world


@verb
def experts_command(
    model: Annotated[
        str, typer.Argument(help="The bundled world 'experts', a folder, or a Hugging Face id.")
    ] = "experts",
    texts: Annotated[Path | None, typer.Option(help="A file with a label, a tab and a text a line.")] = None,
    n: Annotated[int, typer.Option(help="Documents of the corpus, where no file is given.")] = 200,
    permutations: Annotated[int, typer.Option(help="Of the labels among texts.")] = 100,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Say of every layer how evenly experts are used, and how much they say of the text's label."""
    rows = _rows(texts, n)
    bundled = model in bundled_worlds()
    loaded = load_world(model, check_device(device)) if bundled else load_model(model, device, quiet=quiet)
    labels = [label for label, _ in rows]
    with show_step(f"reading {len(rows)} texts", quiet):
        found = capture_routing(loaded, [text for _, text in rows])
        measured = {
            layer: (measure_usage(routing), measure_specialisation(routing, labels, permutations=permutations))
            for layer, routing in found.items()
        }
    widths = {"load, bits": 11, "repeats": 9, "chance": 8, "label, bits": 13, "permuted": 10, "given word": 12}
    typer.echo("layer " + "".join(f"{name:>{width}}" for name, width in widths.items()) + f"{'permuted':>10}")
    layers = []
    for layer, (usage, said) in measured.items():
        typer.echo(
            f"{layer:<6}{usage.entropy:>11.2f}{usage.repetition.value:>9.2f}{usage.repetition_chance:>8.2f}"
            f"{said.bits:>13.4f}{said.shuffled[0]:>10.4f}{said.given_word:>12.4f}{said.given_word_shuffled[0]:>10.4f}"
        )
        layers.append({"layer": layer, "usage": usage, "specialisation": said})
    typer.echo(f"the labels have {layers[0]['specialisation'].label_bits:.2f} bits; {len(rows)} texts")
    return {"layers": layers, "texts": len(rows)}


def _rows(texts: Path | None, n: int) -> list[tuple[str, str]]:
    if texts is None:
        sample = corpus(n, seed=1_000_000)
        return [(row["genre"], row["text"]) for row in sample]  # type: ignore[index]
    lines = [line.partition("\t") for line in read_lines(texts)]
    if odd := [line[0] for line in lines if not line[1]]:
        raise InvalidArgument(f"{texts} has the line {odd[0]!r}: write a label, a tab and a text")
    return [(label, text) for label, _, text in lines]
