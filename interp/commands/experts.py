"""The command `interp experts`: load, repetition and specialisation of every layer, each next to chance."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hooks.errors import InvalidArgument
from hooks.plurals import count_of
from interp.commands.arguments import Device, Quiet, check_device, load_model, read_columns, show_step
from interp.commands.verb import Document, verb
from interp.experts import (
    Routing,
    Specialisation,
    Usage,
    capture_routing,
    find_expert_words,
    measure_specialisation,
    measure_usage,
)
from interp.landmark import corpus
from interp.show import Section, expert_words_panel, load_panel, report, specialisation_panel
from interp.show.frame import page_at
from interp.worlds.load import bundled_worlds, load_world


@verb
def experts_command(
    model: Annotated[
        str, typer.Argument(help="The bundled world 'experts', a folder, or a Hugging Face id.")
    ] = "experts",
    texts: Annotated[Path | None, typer.Option(help="A file with a label, a tab and a text a line.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Documents of the corpus, where no file is given.")] = 200,
    permutations: Annotated[int, typer.Option(min=1, help="Of the labels among texts.")] = 100,
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Say of every layer how evenly experts are used, and how much they say of the text's label."""
    if out is not None:
        page_at(out)
    rows = _rows(texts, n)
    bundled = model in bundled_worlds()
    loaded = load_world(model, check_device(device)) if bundled else load_model(model, device, quiet=quiet)
    labels = [label for label, _ in rows]
    with show_step(f"reading {len(rows)} texts", quiet):
        found = capture_routing(loaded, [text for _, text in rows], progress=False)
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
    typer.echo(f"the labels have {layers[0]['specialisation'].label_bits:.2f} bits; {count_of(len(rows), 'text')}")
    if out is not None:
        what = "genre" if texts is None else "label"
        typer.echo(f"page: {_write(out, model, loaded.tokenizer, found, measured, what, len(rows)).resolve()}")
    return {"layers": layers, "texts": len(rows), "page": out}


def _write(
    out: Path,
    model: str,
    tokenizer: Any,
    found: dict[int, Routing],
    measured: dict[int, tuple[Usage, Specialisation]],
    what: str,
    n: int,
) -> Path:
    """A page: how evenly experts are used, what they go by, and the words of those of one layer half of the way up."""
    usages = {layer: usage for layer, (usage, _) in measured.items()}
    said = {layer: one for layer, (_, one) in measured.items()}
    middle = [*found][len(found) // 2]
    words = expert_words_panel(find_expert_words(found[middle]), tokenizer)
    return report(
        out,
        f"Which expert does what: {model}",
        f"Which experts serve which tokens of {n} texts, and whether they go by the text's {what} or by the word.",
        [
            Section("Are they all used?", "A layer that sends everything to one expert wastes the others.",
                    (load_panel(usages),)),
            Section("What do they go by?", "Experts could split the work by topic, by word, or by neither.",
                    (specialisation_panel(said, usages, what), words)),
        ],
    )  # fmt: skip


def _rows(texts: Path | None, n: int) -> list[tuple[str, str]]:
    if texts is None:
        sample = corpus(n, seed=1_000_000)
        return [(row["genre"], row["text"]) for row in sample]  # type: ignore[index]
    lines = read_columns(texts)
    if odd := [line[0] for line in lines if len(line) < 2]:
        raise InvalidArgument(f"{texts} has the line {odd[0]!r}: write a label, a tab and a text")
    return [(label, "\t".join(text)) for label, *text in lines]
