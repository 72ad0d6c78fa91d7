"""A searched concept as a page: ranked latents next to the probes, and the evidence for each of them."""

from collections.abc import Callable
from pathlib import Path

from hooks.border import Count
from interp.features import FeatureIndex, Record, SearchResult
from interp.show.collapsible_list import latent_list
from interp.show.frame import render_page, save_page
from interp.show.page import Tile
from interp.show.search import rank_table, search_panel


def concept_page(
    path: str | Path,
    result: SearchResult,
    found: FeatureIndex | None = None,
    describe: Callable[[Record], str] = str,
    top: Count = 10,
) -> Path:
    """Write what a search found as a self-contained page, and return where it is.

    With an index of the same autoencoder each ranked latent can be opened: its texts token by token, what it promotes,
    and how well it finds the concept.

    Raises:
        InvalidArgument: a name that does not end in `.html`.
        OutOfRange: an index of fewer latents.

    Examples:
        ```python
        concept_page("bridge.html", search(sae, model, concept), found, Describer(found))
        ```
    """
    values = {
        "lead": _lead(result),
        "tiles": _tiles(result),
        "panel": search_panel(result, top),
        "ranked": rank_table(result, top, linked=found is not None),
        "read": "",
        "latents": "",
    }
    if found is not None:
        scores = [score for score in result.latents[:top] if score.latent is not None]
        records = found.records([score.latent for score in scores if score.latent is not None])
        folds = ((record, describe(record), score) for record, score in zip(records, scores, strict=True))
        values |= {"read": _say_index(found), "latents": latent_list(folds)}
    title = f"{result.concept[:1].upper()}{result.concept[1:]}"
    return save_page(path, render_page("concept.html", title, **values))


def _say_index(found: FeatureIndex) -> str:
    return (
        f"Evidence from {found.about['tokens']:,} tokens of {found.about['texts']:,} other texts. Top examples flatter "
        "any latent: look at the sampled ones as well."
    )


def _lead(result: SearchResult) -> str:
    best, rivals = result.best, result.baselines
    low, high = best.interval
    compared = ", ".join(f"{score.name} {score.held_out.f1:.2f}" for score in rivals)
    verdict = _verdict(result)
    return (
        f"Of all latents at {result.site}, {best.name} finds {result.concept} best: F1 {best.held_out.f1:.2f} "
        f"({low:.2f} to {high:.2f}) on rows it was not chosen on. On the same rows: {compared}. {verdict}"
    )


def _verdict(result: SearchResult) -> str:
    """What follows from the comparison, so that a dictionary is not believed because it was trained."""
    if result.p_value > 0.05:
        return "A search with exchanged labels does as well often enough that nothing was found."
    if not result.against:
        return ""
    name, most = max(result.against.items(), key=lambda one: (one[1].low > 0, one[1].value))
    shown = f"{most:+.2f}"
    if most.low <= 0:
        return f"No baseline is clearly better: on the same texts {name}'s F1 less the latent's is {shown}."
    called = name[:1].upper() + name[1:]
    return f"{called} is the better tool here: on the same texts its F1 less the latent's is {shown}."


def _tiles(result: SearchResult) -> tuple[Tile, ...]:
    best, probe = result.best, max(result.baselines, key=lambda score: score.searched_f1)
    tiles = [
        Tile(
            f"{best.held_out.f1:.2f}",
            f"F1 of {best.name} on rows not searched",
            f"95% interval {best.interval[0]:.2f} to {best.interval[1]:.2f}",
        ),
        Tile(
            f"{probe.held_out.f1:.2f}",
            f"F1 of {probe.name}, on the searched half the best of the baselines",
            f"95% interval {probe.interval[0]:.2f} to {probe.interval[1]:.2f}",
        ),
        Tile(
            f"{result.p_value:.3f}",
            "chance of a best latent this good, were the labels exchanged",
            f"{len(result.null_f1)} searches of all latents",
        ),
    ]
    if result.stability is not None:
        tiles.append(
            Tile(
                f"number {result.stability.rank}",
                "is its place when the other half is searched",
                f"rank correlation {result.stability.correlation:.2f}",
            )
        )
    return tuple(tiles)
