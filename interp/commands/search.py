"""The command `interp search`: the latents of a concept, given by texts or by a phrase, as a page and a direction."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hooks import Model
from hooks.disk import write_text
from hooks.errors import InvalidArgument
from hooks.plurals import count_of
from interp.commands.arguments import (
    PREDICTS,
    Device,
    ModelName,
    Quiet,
    check_predicts,
    format_duration,
    load_model,
    read_lines,
    show_step,
)
from interp.commands.verb import Document, verb
from interp.common.digests import DataDigest
from interp.common.json_values import plain
from interp.common.texts import split_long_texts
from interp.features import (
    Concept,
    Describer,
    FeatureIndex,
    Score,
    SearchResult,
    by_text,
    by_token,
    choose_candidates,
    concept_from_phrase,
    search,
)
from interp.features.index.digest import digest_of_sae
from interp.features.reading import encode_texts
from interp.sae import SAE
from interp.sae import load as load_sae
from interp.show import concept_page
from interp.steering import Names, Sampling, add_direction, choose_by_effect, measure_effects

SAID, PAGE, DIRECTION, EFFECT = "search.json", "concept.html", "direction.safetensors", "effect.safetensors"
FEWEST = 8  # prompts: on fewer, chance chooses the latent and no interval says so
TRIED = 16  # texts read to say how long all will take


@verb
def search_command(
    model: ModelName,
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
    say: Annotated[
        list[str] | None, typer.Option(help="Latents that make the model say this, too; may be repeated.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Prompts to continue for that, one per line: every second one is measured on.")
    ] = None,
    out: Annotated[Path, typer.Option(help="A folder; the same search is not done twice.")] = Path("found"),
    seed: Annotated[int, typer.Option(min=0, help="Of the halves, the intervals and the exchanged labels.")] = 0,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Find the latents that separate texts that express a concept from texts that do not, and write a page of them."""
    concept_in, openings = _choose_concept(name, (positive, negative), phrase, within), _openings(say, prompts)
    dictionary, found = load_sae(sae), _index(index, sae)
    if say:
        check_predicts(model, "--say asks what it writes", PREDICTS)
    loaded = load_model(model, device, quiet=quiet)
    dictionary = dictionary.to(loaded.device)
    if found is not None and found.about["fingerprint"] != loaded.fingerprint:
        raise InvalidArgument(f"{index} is an index of {found.about['model']}, not of {loaded.name}: give its own")
    concept = concept_in(loaded)
    key = _key(loaded, dictionary, concept, seed, found, say or [], openings)
    if not _there(out, key):
        _announce(loaded, dictionary, concept, quiet)
        unit = by_token if any(concept.mentions) else by_text
        result = search(dictionary, loaded, concept, unit=unit, seed=seed, progress=not quiet)
        out.mkdir(parents=True, exist_ok=True)
        with show_step("writing the page", quiet):
            concept_page(out / PAGE, result, found, Describer(found) if found else str)
        if result.best.direction is not None:
            result.best.direction.save(out / DIRECTION)
        said = str(result)
        if say:
            said += "\n" + _turn_up(loaded, dictionary, result, openings, Names(tuple(say)), out / EFFECT, quiet)
        kept = {"of": key, "said": said, "found": plain(_as_document(result))}
        write_text(out / SAID, json.dumps(kept, indent=1) + "\n")
    else:
        typer.echo(f"this search is in {out.resolve()} already")
    return _show(out)


def _index(index: Path | None, sae: Path) -> FeatureIndex | None:
    """The index for the page, once it is known to be of this autoencoder."""
    if index is None:
        return None
    found, dictionary = FeatureIndex.open(index), load_sae(sae)
    if len(found) != dictionary.d_sae:
        raise InvalidArgument(
            f"{index} is an index of {len(found)} latents, and {sae} has {dictionary.d_sae}: give its own"
        )
    if found.about["autoencoder"] != digest_of_sae(dictionary):
        raise InvalidArgument(f"{index} is an index of another autoencoder than {sae}: give its own")
    return found


def _announce(model: Model, sae: SAE, concept: Concept, quiet: bool) -> None:
    typer.echo(f"searching {sae.d_sae:,} latents at {sae.site} for '{concept.name}', by {_size(concept)}")
    with show_step("measuring how long it will take", quiet):
        seconds = _seconds(sae, model, concept)
    typer.echo(f"this takes {format_duration(seconds)}")


def _show(out: Path) -> Document:
    """Print what a folder of a search holds."""
    kept = json.loads((out / SAID).read_text(encoding="utf-8"))
    typer.echo(kept["said"])
    files = {
        "direction": ("direction of the best latent", out / DIRECTION),
        "effect": ("direction that makes it say so", out / EFFECT),
        "page": ("page", out / PAGE),
    }
    there = {name: (words, file) for name, (words, file) in files.items() if file.exists()}
    for words, file in there.values():
        typer.echo(f"{words}: {file.resolve()}")
    return kept.get("found", {}) | {name: file for name, (_, file) in there.items()}


def _as_document(result: SearchResult) -> Document:
    """What a search found, as `--json` prints it."""
    return {
        "concept": result.concept,
        "site": str(result.site),
        "unit": result.unit,
        "p_value": result.p_value,
        "latents": [_score(score) for score in result.latents],
        "baselines": [_score(score) for score in result.baselines],
        "against": result.against,
    }


def _score(score: Score) -> Document:
    kept = score.held_out
    return {
        "name": score.name,
        "latent": score.latent,
        "f1": kept.f1,
        "f1_interval": score.interval,
        "precision": kept.precision,
        "recall": kept.recall,
        "auroc": kept.auroc,
        "threshold": kept.threshold,
    }


def _choose_concept(
    name: str | None, labelled: tuple[Path | None, Path | None], phrase: list[str] | None, within: Path | None
) -> Callable[[Model], Concept]:
    """How to make the concept once the model is there: a wrong choice of the two ways is refused before."""
    match labelled, phrase, within:
        case (None, None), [first, *_], Path() as file:
            texts = read_lines(file)
            return lambda model: concept_from_phrase(name or first, phrase or [], split_long_texts(model, texts))
        case (Path() as yes, Path() as no), None | [], None:
            files = read_lines(yes), read_lines(no)
            return lambda _: _make_concept(name or "the concept", *files)
    raise InvalidArgument(
        "say what to search for: either two files, POSITIVE and NEGATIVE, or --phrase WORDS and --in FILE"
    )


def _openings(say: list[str] | None, prompts: Path | None) -> list[str]:
    """The prompts on which latents are turned up; none where nothing is to be said."""
    if bool(say) != (prompts is not None):
        raise InvalidArgument(
            "latents are chosen by what they make the model say with both --say WORDS and --prompts FILE"
        )
    openings = list(dict.fromkeys(read_lines(prompts))) if prompts else []
    if prompts and len(openings) < FEWEST:
        raise InvalidArgument(
            f"{prompts} holds {len(openings)} prompts: give at least {FEWEST}, half to choose on and half to measure on"
        )
    return openings


def _turn_up(
    model: Model, sae: SAE, result: SearchResult, openings: list[str], names: Names, file: Path, quiet: bool
) -> str:
    """Choose latents by their effect on every second prompt, and say what they do on the others.

    The direction is kept if there it surely makes it say so more often than a random direction of its length, prompt
    by prompt.
    """
    drawn = Sampling(per_prompt=4, temperature=0.7)
    best = choose_by_effect(
        model, sae, choose_candidates(sae, result), openings[::2], names, sampling=drawn, progress=not quiet
    )
    control = add_direction(best.direction).control(0)
    random = replace(best.direction, vector=control.vector, source=control.source)
    doses = [(best.direction, best.dose), (random, best.dose)]
    there = measure_effects(model, doses, openings[1::2], names, sampling=drawn, progress=not quiet)
    chosen = f"turned up, on the {len(openings[::2])} prompts it was chosen on: {best}"
    lines = [chosen, *(f"on the {len(openings[1::2])} others: {effect}" for effect in there)]
    if len(there) == len(doses) and there[0].samples.naming_beyond(there[1].samples).low > 0:
        best.direction.save(file)
    else:
        lines.append(
            "note: on those others it does not differ from a random direction, so no direction that makes it say so is "
            "kept: give more prompts, or another concept"
        )
    return "\n".join(lines)


def _make_concept(name: str, yes: list[str], no: list[str]) -> Concept:
    """Texts that do and do not express it; one of both kinds has no label."""
    both = next((text for text in yes if text in set(no)), None)
    if both is not None:
        raise InvalidArgument(f"the text {both[:60]!r} is in POSITIVE and in NEGATIVE: leave it out of one")
    return Concept(name, [*yes, *no], [True] * len(yes) + [False] * len(no))


def _size(concept: Concept) -> str:
    rows = "the tokens of " if any(concept.mentions) else ""
    return f"{rows}{count_of(len(concept.texts), 'text')}, {sum(concept.labels):,} of which express it"


def _seconds(sae: SAE, model: Model, concept: Concept) -> float:
    """How long reading all texts will take, from some spread over them; ranking is quick next to it."""
    some = list(concept.texts)[:: max(1, len(concept.texts) // TRIED)]
    began = time.perf_counter()
    encode_texts(sae, model, some, progress=False)
    return (time.perf_counter() - began) * len(concept.texts) / len(some) * 1.5


def _key(
    model: Model,
    sae: SAE,
    concept: Concept,
    seed: int,
    found: FeatureIndex | None,
    say: list[str],
    openings: list[str],
) -> str:
    """What makes two searches the same one."""
    about, sites = found.about if found else None, [*map(str, sae.sites)]
    digest = DataDigest()
    digest.add([[digest_of_sae(sae), sites, model.fingerprint, concept, seed, about, say, openings]])
    return digest.hexdigest()


def _there(out: Path, key: str) -> bool:
    file = out / SAID
    if not file.exists():
        return False
    if json.loads(file.read_text(encoding="utf-8")).get("of") != key:
        raise InvalidArgument(f"{out} holds another search: give another --out, or remove that one")
    return True
