"""The command `interp memory`: what triggers the memories of a feed-forward layer, and what they say."""

from itertools import islice
from math import ceil
from pathlib import Path
from typing import Annotated

import torch
import typer

from hooks import Model, load
from interp import landmark
from interp.lenses import JacobianLens, Lens, TunedLens
from interp.memory.agreement import Agreement, agreement
from interp.memory.composition import composition
from interp.memory.fact import Query
from interp.memory.knowledge import knowledge, silenced
from interp.memory.triggers import Triggers, triggers
from interp.memory.vocabulary import value_logits
from interp.show import Panel, Section, Tile, report
from interp.show.memories import Memory, agreement_panel, composition_panel, knowledge_panel, memories_panel

LANDMARK_TEXTS = 400


def memory_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")],
    layer: Annotated[int, typer.Argument(metavar="LAYER", help="Whose memories to browse.")],
    texts: Annotated[Path | None, typer.Option(help="Texts to read, one per line; needed but for 'landmark'.")] = None,
    neuron: Annotated[list[int] | None, typer.Option(help="Show these memories only; may be repeated.")] = None,
    page: Annotated[int, typer.Option(help="Which page of the list to print.")] = 1,
    per_page: Annotated[int, typer.Option(help="Memories on a page.")] = 20,
    prompt: Annotated[str | None, typer.Option(help="Take the layer's output apart after this text.")] = None,
    answer: Annotated[str | None, typer.Option(help="With --prompt: which memories give this answer.")] = None,
    tuned: Annotated[Path | None, typer.Option(help="Read values through this tuned lens.")] = None,
    jacobian: Annotated[Path | None, typer.Option(help="Read values through this Jacobian lens.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page to write, with every layer's agreement.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """List a layer's memories, those first whose value promotes what follows the key's best trigger."""
    if answer is not None and prompt is None:
        raise ValueError("--answer says what follows a prompt: give --prompt as well")
    loaded = load(model)
    said, lens = _texts(loaded, texts), _lens(loaded, tuned, jacobian)
    found = triggers(loaded, said, layer, top=10, progress=not quiet)
    agreed = agreement(loaded, found, lens=lens)
    listed = _listed(found, agreed, neuron)
    n_pages = ceil(len(listed) / max(per_page, 1))
    if per_page < 1 or not 1 <= page <= n_pages:
        raise ValueError(f"page {page} of {per_page} memories a page does not exist: there are pages 1 to {n_pages}")
    shown = [_memory(loaded, found, agreed, i, lens) for i in listed[(page - 1) * per_page : page * per_page]]
    typer.echo(_rate(agreed))
    for memory in shown:
        typer.echo(_line(memory))
    typer.echo(f"page {page} of {n_pages}; memories {len(listed)}, tokens read {found.n_tokens:,}")
    panels = _on_prompt(loaded, layer, prompt, answer, lens)
    if out is not None:
        others = [i for i in range(loaded.n_layers) if i != layer]
        every = [agreement(loaded, triggers(loaded, said, i, top=1, progress=not quiet)) for i in others]
        layers = sorted([*every, agreed], key=lambda one: one.layer)
        typer.echo(f"page: {_page(out, loaded, found, layers, shown, panels).resolve()}")


def _rate(agreed: Agreement) -> str:
    rate = agreed.rate
    return (
        f"layer {agreed.layer}: {rate.value:.2%} [{rate.low:.2%}, {rate.high:.2%}] of {rate.n} memories promote what "
        f"follows their best trigger; by chance {agreed.chance:.2%}, p = {agreed.p_value:.3g}"
    )


def _listed(found: Triggers, agreed: Agreement, neuron: list[int] | None) -> list[int]:
    """The memories asked for, or all: those that agree first, then by their largest coefficient."""
    for i in neuron or ():
        if not 0 <= i < len(found.coefficient):
            raise ValueError(
                f"memory {i} does not exist: layer {found.layer} has memories 0 to {len(found.coefficient) - 1}"
            )
    agreeing, largest = set(agreed.agreeing), found.coefficient[:, 0].tolist()
    return neuron or sorted(range(len(largest)), key=lambda i: (i not in agreeing, -largest[i]))


def _memory(model: Model, found: Triggers, agreed: Agreement, neuron: int, lens: Lens | None) -> Memory:
    return Memory(
        neuron, found.examples(model, neuron), _words(model, found.layer, neuron, lens), neuron in agreed.agreeing
    )


def _words(model: Model, layer: int, neuron: int, lens: Lens | None) -> tuple[tuple[str, float], ...]:
    top = value_logits(model, layer, torch.tensor([neuron]), lens=lens)[0].topk(10)
    decode = model.tokenizer.decode
    return tuple((decode([i]), v) for i, v in zip(top.indices.tolist(), top.values.tolist(), strict=True))


def _line(memory: Memory) -> str:
    words = ", ".join(repr(word) for word, _ in memory.promoted[:5])
    best = f"{memory.examples[0]}" if memory.examples else "        matches nowhere"
    return f"{memory.neuron:>6} {'=' if memory.agrees else ' '} {' '.join(best.split())}\n{'':>9}promotes {words}"


def _on_prompt(
    model: Model, layer: int, prompt: str | None, answer: str | None, lens: Lens | None
) -> tuple[Panel, ...]:
    """What the layer writes after a prompt, and which memories give an answer: printed, and as panels."""
    if prompt is None:
        return ()
    parts = composition(model, prompt, layer)
    words = [model.tokenizer.decode([i]) for i in parts.tokens.ids[parts.tokens.content].tolist()]
    heard = [_words(model, layer, i, lens) for i, _, _ in parts.largest(-1)]
    typer.echo(f"after {prompt!r}:")
    for (i, m, share), said in zip(parts.largest(-1), heard, strict=True):
        typer.echo(f"{i:>6}   coefficient {m:.2f}, {share:.1%} of the output; promotes {said[0][0]!r}, {said[1][0]!r}")
    panels = [composition_panel(parts, words, heard)]
    if answer is not None:
        known = knowledge(model, Query(prompt, answer))
        neurons = known.neurons()
        effect = silenced(model, known.query, neurons) if neurons else (known.clean, known.clean)
        typer.echo(
            f"{answer!r} has {known.clean:.1%}; without {', '.join(f'{a}.{b}' for a, b in neurons[:10]) or 'none'} "
            f"{effect[0]:.1%}, without as many others {effect[1]:.1%}"
        )
        panels.append(knowledge_panel(known, effect))
    return tuple(panels)


def _page(
    out: Path, model: Model, found: Triggers, agreed: list[Agreement], shown: list[Memory], panels: tuple[Panel, ...]
) -> Path:
    here = next(one for one in agreed if one.layer == found.layer)
    sections = [
        Section("Agreement", "Do keys and values of one memory belong together?", (agreement_panel(agreed),)),
        *([Section("A prompt", "What the layer does with one text.", panels)] if panels else []),
        Section("Memories", f"Memories of layer {found.layer}.", (memories_panel(found.layer, shown, found.n_tokens),)),
    ]
    tile = Tile(f"{here.rate.value:.1%}", f"agreement of layer {here.layer}", f"by chance {here.chance:.2%}")
    lead = f"{model.name}, layer {found.layer}: FF(x) = Σ mᵢ vᵢ, read memory by memory on {len(found.ids):,} texts."
    return report(out, "Feed-forward memories", lead, sections, [tile])


def _texts(model: Model, texts: Path | None) -> list[str]:
    if texts is not None:
        return [line for line in map(str.strip, texts.read_text(encoding="utf-8").splitlines()) if line]
    if model.name != "landmark":
        raise ValueError(f"triggers in {model.name} are looked for in texts: give --texts FILE, one per line")
    return [document.text[:400] for document in islice(landmark.documents(20_000), LANDMARK_TEXTS)]


def _lens(model: Model, tuned: Path | None, jacobian: Path | None) -> Lens | None:
    if tuned is not None and jacobian is not None:
        raise ValueError("two lenses were given, and values are read through one: give --tuned or --jacobian")
    if tuned is not None:
        return TunedLens.load(tuned, model)
    return None if jacobian is None else JacobianLens.load(jacobian, model)
