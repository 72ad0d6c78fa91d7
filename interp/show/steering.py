"""A dose-response as a page: naming and fluency against dose, texts before and after, the damage elsewhere."""

from pathlib import Path

from interp.show.damage import damage_panel
from interp.show.dose import FLUENT, dose_panel
from interp.show.generations import Spans, generations_panel
from interp.show.html import Html, part, table
from interp.show.page import Panel, Section, Tile, report
from interp.steering import ChosenDose, DoseResponse, MethodComparison, Samples


def dose_page(
    path: str | Path, response: DoseResponse, concept: str, spans: Spans, chosen: ChosenDose | None = None
) -> Path:
    """Write a dose-response as a page that opens offline, and return where it is.

    `spans` mark the concept in texts, as `Names.spans` does. With `chosen` the texts and figures shown are those of
    prompts that had no part in choosing the dose; without, the best fluent dose flatters itself, and the page says so.

    Raises:
        InvalidArgument: a name that does not end in `.html`.

    Examples:
        ```python
        chosen = choose_dose(model, clamp_latent(sae, 17), prompts, names, doses=(1, 2, 4))
        dose_page("dose.html", chosen.response, "the bridge", names.spans, chosen)
        ```
    """
    steered, unsteered, control = _choose_samples(response, chosen)
    panels = (dose_panel(chosen or response, concept), generations_panel(unsteered, steered, spans))
    sections = [Section("Dose and response", f"Steered by {response.source}, in units of {response.unit}.", panels)]
    if response.damage:
        text = "A dose that turns a concept up also changes what it is not meant for."
        sections.append(Section("Elsewhere", text, (damage_panel(response.damage, response.control_damage),)))
    return report(
        path,
        title=f"Turning {concept} up",
        lead=_lead(response, chosen, concept),
        sections=sections,
        tiles=_tiles(steered, unsteered, control, concept),
        notes=("Intervals are 95%. A script next to the page draws its figures, and nothing is fetched.",),
    )


def comparison_panel(found: MethodComparison, concept: str) -> Panel:
    """Ways of steering towards one concept in a table, each at its own dose, with the prompt in words.

    Examples:
        ```python
        found = compare_methods(model, ways, prompts, names, "Talk about the bridge. ", doses=(1, 2, 4))
        comparison_panel(found, "the bridge").body
        ```
    """
    rows = [
        [
            name,
            "–" if dose is None else f"{dose:g}",
            part("with_small", f"{naming.value:.2f}", naming.ends(".2f")),
            part("with_small", f"{ratio.value:.2f}", ratio.ends(".2f")),
        ]
        for name, dose, naming, ratio in found.rows()
    ]
    none = [name for name, one in found.chosen.items() if one is None]
    return Panel(
        title=f"Ways to make the model name {concept}",
        body=Html(table(["way", "dose", "names it", "perplexity ratio"], rows)),
        caption=(
            f"Each way at the dose that names {concept} most often among those of a perplexity ratio of at most "
            f"{FLUENT:g}, chosen on every second prompt and measured here on the others; 95% intervals."
            + (f" No dose of {', '.join(none)} is that fluent." if none else "")
        ),
        control=f"A random direction of equal norm by the same rule; unsteered, {_share(found.unsteered)} name it.",
    )


def _choose_samples(response: DoseResponse, chosen: ChosenDose | None) -> tuple[Samples, Samples, Samples]:
    """The steered, unsteered and control conditions that the page shows."""
    if chosen is not None:
        return chosen.steered, chosen.unsteered, chosen.control
    fluent = response.fluent(FLUENT)
    steered = response.best(FLUENT) if fluent else min(response.steered, key=lambda c: c.perplexity.value)
    return steered, response.unsteered, response.control[response.steered.index(steered)]


def _lead(response: DoseResponse, chosen: ChosenDose | None, concept: str) -> str:
    asked = "" if response.prompted is None else f" Asked for in words, {_share(response.prompted)} name it."
    if chosen is not None:
        return f"The dose was chosen on half of the prompts; the figures and texts are from the other half.{asked}"
    if not response.fluent(FLUENT):
        return f"No dose keeps the perplexity under {FLUENT:g} times that of unsteered text; the least bad is shown."
    return (
        f"The dose that names {concept} most often was chosen on the very prompts it is shown on, which flatters it: "
        f"use choose_dose to measure it on others.{asked}"
    )


def _tiles(steered: Samples, unsteered: Samples, control: Samples, concept: str) -> tuple[Tile, ...]:
    over, random = steered.perplexity_over(unsteered), control.perplexity_over(unsteered)
    return (
        Tile(
            f"{steered.naming.value:.0%}",
            f"of continuations name {concept} at dose {steered.dose:g}",
            f"unsteered {_share(unsteered)}, random direction {_share(control)}",
        ),
        Tile(f"{over.value:.2f}", "times the perplexity of unsteered text", f"random direction {random.value:.2f}"),
        Tile(
            f"{steered.distinctness.value:.2f}",
            "of the pairs of words in a text are different ones (distinct-2)",
            f"unsteered {unsteered.distinctness.value:.2f}",
        ),
    )


def _share(condition: Samples) -> str:
    return f"{condition.naming.value:.1%}"
