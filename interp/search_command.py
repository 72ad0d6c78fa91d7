"""The command `interp search`: the latents of a concept, given by texts or by a phrase, as a page and a direction."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hooks import Model
from interp.features import Concept, Describer, FeatureIndex, by_text, by_token, concept_of, search
from interp.features.reading import read
from interp.given import fitting, lines, opened, spelt
from interp.sae import SAE
from interp.sae import load as load_sae
from interp.show import concept_page

SAID, PAGE, DIRECTION = "search.json", "concept.html", "direction.safetensors"
TRIED = 16  # texts read to say how long all will take


def search_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")],
    sae: Annotated[Path, typer.Argument(metavar="SAE", help="A folder that `interp train-sae` or SAELens wrote.")],
    positive: Annotated[
        Path | None, typer.Argument(metavar="[POSITIVE", help="Texts that express it, one per line.")
    ] = None,
    negative: Annotated[Path | None, typer.Argument(metavar="NEGATIVE]", help="Texts that do not.")] = None,
    phrase: Annotated[
        list[str] | None, typer.Option(help="Instead: a word or phrase that names it; may be repeated.")
    ] = None,
    within: Annotated[Path | None, typer.Option("--in", help="Texts to find the phrase in, one per line.")] = None,
    index: Annotated[Path | None, typer.Option(help="An index of `interp discover`, for the page.")] = None,
    name: Annotated[str | None, typer.Option(help="What the concept is called.")] = None,
    out: Annotated[Path, typer.Option(help="A folder; the same search is not done twice.")] = Path("found"),
    seed: int = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Find the latents that tell texts that express a concept from texts that do not, and write a page of them."""
    concept_in = _asked(name, (positive, negative), phrase, within)
    dictionary, found = load_sae(sae), FeatureIndex.open(index) if index else None
    if found is not None and len(found) != dictionary.d_sae:
        raise ValueError(f"{index} is an index of {len(found)} latents, and {sae} has {dictionary.d_sae}: give its own")
    loaded = opened(model)
    concept = concept_in(loaded)
    unit = by_token if any(concept.mentions) else by_text
    key = _key(loaded, dictionary, concept, seed, index)
    if not _there(out, key):
        typer.echo(
            f"searching {dictionary.d_sae:,} latents at {dictionary.site} for '{concept.name}', by {_size(concept)}"
        )
        typer.echo(f"this takes {spelt(_seconds(dictionary, loaded, concept))}")
        result = search(dictionary, loaded, concept, unit=unit, seed=seed, progress=not quiet)
        out.mkdir(parents=True, exist_ok=True)
        concept_page(out / PAGE, result, found, Describer(found) if found else str)
        if result.best.direction is not None:
            result.best.direction.save(out / DIRECTION)
        (out / SAID).write_text(json.dumps({"of": key, "said": str(result)}, indent=1) + "\n", encoding="utf-8")
    else:
        typer.echo(f"this search is in {out.resolve()} already")
    typer.echo(json.loads((out / SAID).read_text(encoding="utf-8"))["said"])
    if (out / DIRECTION).exists():
        typer.echo(f"direction of the best latent: {(out / DIRECTION).resolve()}")
    typer.echo(f"page: {(out / PAGE).resolve()}")


def _asked(
    name: str | None, labelled: tuple[Path | None, Path | None], phrase: list[str] | None, within: Path | None
) -> Callable[[Model], Concept]:
    """How to make the concept once the model is there: which of the two ways was asked for is told before."""
    match labelled, phrase, within:
        case (None, None), [first, *_], Path() as file:
            texts = lines(file)
            return lambda model: concept_of(name or first, phrase or [], fitting(model, texts))
        case (Path() as yes, Path() as no), None | [], None:
            files = lines(yes), lines(no)
            return lambda model: _labelled(model, name or "the concept", *files)
    raise ValueError("say what to search for: either two files, POSITIVE and NEGATIVE, or --phrase WORDS and --in FILE")


def _labelled(model: Model, name: str, yes: list[str], no: list[str]) -> Concept:
    """Texts that do and do not express it; one too long to be read at once is refused, for its parts have no label."""
    read = set(fitting(model, [*yes, *no]))
    long = next((text for text in (*yes, *no) if text not in read), None)
    if long is not None:
        raise ValueError(
            f"the text {long[:60]!r}... is longer than the context of {model.name}: split it, and give the parts that "
            "express the concept in POSITIVE and the others in NEGATIVE"
        )
    return Concept(name, [*yes, *no], [True] * len(yes) + [False] * len(no))


def _size(concept: Concept) -> str:
    rows = "tokens" if any(concept.mentions) else "texts"
    return f"{rows} of {len(concept.texts):,} texts, {sum(concept.labels):,} of which express it"


def _seconds(sae: SAE, model: Model, concept: Concept) -> float:
    """How long reading all texts will take, from some spread over them; ranking is quick beside it."""
    some = list(concept.texts)[:: max(1, len(concept.texts) // TRIED)]
    began = time.perf_counter()
    read(sae, model, some)
    return (time.perf_counter() - began) * len(concept.texts) / len(some) * 1.5


def _key(model: Model, sae: SAE, concept: Concept, seed: int, index: Path | None) -> str:
    """What makes two searches the same one."""
    told = hashlib.sha256(sae.W_dec.detach().cpu().float().contiguous().numpy().tobytes())
    told.update(repr((model.fingerprint, str(sae.site), concept, seed, str(index))).encode())
    return told.hexdigest()


def _there(out: Path, key: str) -> bool:
    file = out / SAID
    if not file.exists():
        return False
    if json.loads(file.read_text(encoding="utf-8")).get("of") != key:
        raise ValueError(f"{out} holds another search: give another --out, or remove that one")
    return True
