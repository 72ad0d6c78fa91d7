"""The command `interp memory`: what triggers the memories of a feed-forward layer, and what they say."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Annotated

import typer

from hooks import Model
from hooks.errors import InvalidArgument
from interp.commands.arguments import Device, ModelName, Quiet, check_predicts, load_model, show_step
from interp.commands.background import background, check_background
from interp.commands.checks import check_layer
from interp.commands.verb import Document, verb
from interp.lenses import JacobianLens, Lens, TunedLens
from interp.memory.facts.fact import Query
from interp.memory.neurons.agreement import Agreement, agreement
from interp.memory.neurons.composition import composition
from interp.memory.neurons.knowledge_neurons import knowledge, silence_neurons
from interp.memory.neurons.triggers import Sign, Triggers, triggers_by_layer
from interp.memory.neurons.vocabulary import find_promoted_tokens, is_gated
from interp.show import Panel
from interp.show.composition import composition_panel, knowledge_panel
from interp.show.frame import page_at
from interp.show.memories import NORM, Memory, memories_page

TEXTS = 400
TOP, CONTEXT = 6, 10  # examples of each memory, and tokens before each
Lenses = Mapping[str, Lens | None]


@verb
def memory_command(
    model: ModelName,
    layer: Annotated[int, typer.Argument(min=0, metavar="LAYER", help="Whose memories to browse.")],
    texts: Annotated[
        Path | None, typer.Option(help="Texts to read, one per line; needed unless MODEL is 'landmark'.")
    ] = None,
    neuron: Annotated[list[int] | None, typer.Option(min=0, help="Show these memories only; may be repeated.")] = None,
    page: Annotated[int, typer.Option(min=1, help="Which page of the list to print.")] = 1,
    per_page: Annotated[int, typer.Option(min=1, help="Memories on a page.")] = 20,
    negative: Annotated[
        bool, typer.Option("--negative", help="In a gated layer, the side of negative coefficients, which writes -v.")
    ] = False,
    prompt: Annotated[
        str | None, typer.Option(help="Split the layer's output after this text into its memories.")
    ] = None,
    answer: Annotated[str | None, typer.Option(help="With --prompt: which memories give this answer.")] = None,
    tuned: Annotated[Path | None, typer.Option(help="Read values through this tuned lens as well.")] = None,
    jacobian: Annotated[Path | None, typer.Option(help="Read values through this Jacobian lens as well.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page of all of them, with every layer's agreement.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """List a layer's memories, those first whose value promotes what follows the key's best trigger."""
    _check(prompt, answer)
    answer = answer and answer.strip()
    if out is not None:
        page_at(out)
    check_background(model, texts)
    check_layer(model, layer, "LAYER")
    check_predicts(model, "a memory is read as the next tokens it promotes")
    loaded = load_model(model, device, quiet=quiet)
    lenses, sign = _lenses(loaded, tuned, jacobian), _sign(loaded, layer, negative)
    layers = range(loaded.n_layers) if out is not None else (layer,)
    said = background(loaded, texts, TEXTS)
    by_layer = triggers_by_layer(loaded, said, layers, top=TOP, sign=sign, progress=not quiet)
    with show_step("reading memories", quiet):
        agreed = {name: [agreement(loaded, one, lens=lens) for one in by_layer] for name, lens in lenses.items()}
    found = next(one for one in by_layer if one.layer == layer)
    rates = {name: next(one for one in several if one.layer == layer) for name, several in agreed.items()}
    listed = _choose_memories(found, rates[NORM], neuron)
    here = _page(listed, page, per_page)
    for name, one in rates.items():
        typer.echo(_rate(one, name))
    typer.echo("= marks a memory that promotes what follows its best trigger")
    shown = _memories(loaded, found, rates[NORM], here, lenses)
    for memory in shown:
        typer.echo(_line(memory))
    typer.echo(f"page {page} of {ceil(len(listed) / per_page)}; memories {len(listed)}, tokens read {found.n_tokens:,}")
    panels, on_prompt = _on_prompt(loaded, layer, prompt, answer)
    if out is not None:
        with show_step("writing the page", quiet):
            every = _memories(loaded, found, rates[NORM], listed, lenses)
            memories_page(out, loaded.name, agreed, every, layer, (len(found.ids), found.n_tokens), panels)
        typer.echo(f"page: {out.resolve()}")
    return {
        "layer": layer,
        "tokens": found.n_tokens,
        "agreement": {
            name: {"rate": one.rate, "chance": one.chance, "p_value": one.p_value} for name, one in rates.items()
        },
        "memories": [_as_document(memory) for memory in shown],
        "on_prompt": on_prompt,
        "page": out,
    }


def _check(prompt: str | None, answer: str | None) -> None:
    if answer is not None and prompt is None:
        raise InvalidArgument("--answer says what follows a prompt: give --prompt as well")


def _page(listed: list[int], page: int, per_page: int) -> list[int]:
    """The memories of one page of the list."""
    n_pages = ceil(len(listed) / per_page)
    if page > n_pages:
        raise InvalidArgument(
            f"page {page} of {per_page} memories a page does not exist: there are pages 1 to {n_pages}"
        )
    return listed[(page - 1) * per_page : page * per_page]


def _as_document(memory: Memory) -> Document:
    examples = [{"text": "".join(one.tokens), "coefficient": one.activation} for one in memory.examples]
    return {
        "neuron": memory.neuron,
        "agrees": memory.agrees,
        "examples": examples,
        "promoted": dict(memory.promoted),
    }


def _rate(agreed: Agreement, name: str) -> str:
    rate = agreed.rate
    return (
        f"layer {agreed.layer}, through the {name}: {rate:.2%} of {rate.n} "
        f"memories promote what follows their best trigger; by chance {agreed.chance:.2%}, p = {agreed.p_value:.3g}"
    )


def _choose_memories(found: Triggers, agreed: Agreement, neuron: list[int] | None) -> list[int]:
    """The memories asked for, or all: those that agree first, then by their largest coefficient."""
    for i in neuron or ():
        if not 0 <= i < len(found.coefficient):
            raise InvalidArgument(
                f"memory {i} does not exist: layer {found.layer} has memories 0 to {len(found.coefficient) - 1}"
            )
    agreeing, largest = set(agreed.agreeing), found.coefficient[:, 0].tolist()
    return neuron or sorted(range(len(largest)), key=lambda i: (i not in agreeing, -largest[i]))


def _memories(model: Model, found: Triggers, agreed: Agreement, neurons: Sequence[int], lenses: Lenses) -> list[Memory]:
    agreeing = set(agreed.agreeing)
    examples = found.examples_of(model, neurons, context=CONTEXT)
    read = {
        name: find_promoted_tokens(model, found.layer, neurons, lens=lens, sign=found.sign)
        for name, lens in lenses.items()
    }
    return [
        Memory(neuron, examples[i], {name: words[i] for name, words in read.items()}, neuron in agreeing)
        for i, neuron in enumerate(neurons)
    ]


def _line(memory: Memory) -> str:
    best = f"{memory.examples[0]}" if memory.examples else "        matches nowhere"
    lines = [f"{memory.neuron:>6} {'=' if memory.agrees else ' '} {' '.join(best.split())}"]
    for name, promoted_words in memory.promoted.items():
        words = ", ".join(repr(word) for word, _ in promoted_words[:5])
        lines.append(f"{'':>9}promotes {words}" + ("" if name == NORM else f" through the {name}"))
    return "\n".join(lines)


def _on_prompt(
    model: Model, layer: int, prompt: str | None, answer: str | None
) -> tuple[tuple[Panel, ...], Document | None]:
    """What the layer writes after a prompt, and which memories give an answer: printed, as panels, as a document."""
    if prompt is None:
        return (), None
    parts = composition(model, prompt, layer)
    largest = parts.largest(-1)
    heard = [find_promoted_tokens(model, layer, [i], sign=1 if m > 0 else -1)[0] for i, m, _ in largest]
    typer.echo(f"after {prompt!r}:")
    for (i, m, share), said in zip(largest, heard, strict=True):
        typer.echo(f"{i:>6}   coefficient {m:.2f}, {share:.1%} of the output; promotes {said[0][0]!r}, {said[1][0]!r}")
    panels = [composition_panel(parts, prompt, heard)]
    largest_memories = [
        {"neuron": i, "coefficient": m, "share": share, "promoted": said}
        for (i, m, share), said in zip(largest, heard, strict=True)
    ]
    found: Document = {"prompt": prompt, "largest": largest_memories, "answer": None}
    if answer is not None:
        known = knowledge(model, Query(prompt, answer), progress=False)
        neurons = known.neurons()
        effect = silence_neurons(model, known.query, neurons) if neurons else (known.clean, known.clean)
        typer.echo(
            f"{answer!r} has probability {known.clean:.1%}; with the memories {_name_memories(neurons[:10]) or 'none'}"
            f"{f' and {len(neurons) - 10} more' if len(neurons) > 10 else ''} silenced {effect[0]:.1%}, "
            f"with as many others of the same layers silenced {effect[1]:.1%}"
        )
        panels.append(knowledge_panel(known, effect))
        found["answer"] = {
            "answer": answer,
            "probability": known.clean,
            "memories": [{"layer": one, "neuron": i} for one, i in neurons],
            "without": effect[0],
            "without_others": effect[1],
        }
    return tuple(panels), found


def _name_memories(neurons: Sequence[tuple[int, int]]) -> str:
    """Memories by their layers.

    Examples:
        >>> _name_memories([(0, 194), (0, 673), (1, 5)])
        'layer 0: 194, 673; layer 1: 5'
    """
    layers = dict.fromkeys(layer for layer, _ in neurons)
    return "; ".join(f"layer {layer}: {', '.join(str(i) for one, i in neurons if one == layer)}" for layer in layers)


def _sign(model: Model, layer: int, negative: bool) -> Sign:
    if not negative:
        return 1
    if not is_gated(model, layer):
        raise InvalidArgument(
            f"layer {layer} of {model.name} has no gate, so its coefficients are only slightly negative: leave "
            "--negative away"
        )
    return -1


def _lenses(model: Model, tuned: Path | None, jacobian: Path | None) -> dict[str, Lens | None]:
    found: dict[str, Lens | None] = {NORM: None}
    if tuned is not None:
        found["tuned lens"] = TunedLens.load(tuned, model)
    if jacobian is not None:
        found["Jacobian lens"] = JacobianLens.load(jacobian, model)
    return found
