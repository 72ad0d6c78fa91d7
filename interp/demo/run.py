"""The whole demonstration: learn, find, turn up, look for it in pictures, move, write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hooks import Model, load
from interp.demo.discover import Discovery, TrainedDictionary, find, learn
from interp.demo.look import PictureDiscovery, look
from interp.demo.move import EditOutcome, fact, move
from interp.demo.page import write
from interp.demo.settings import Settings
from interp.demo.turn_up import SteeringOutcome, turn_up
from interp.show.frame import page_at

REPORT = Path("reports/golden_gate_bridge.html")


@dataclass(frozen=True, eq=False)
class Demonstration:
    """What every step of the demonstration returned, and where its report is."""

    model: Model
    learnt: TrainedDictionary
    found: Discovery
    turned: SteeringOutcome
    seen: PictureDiscovery
    moved: EditOutcome
    report: Path


def run(
    settings: Settings | None = None,
    report: Path = REPORT,
    *,
    tell: Callable[[str], None] = lambda _: None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Demonstration:
    """Do every step on the bundled model and write the report; `tell` is given a line for each step and its result.

    `device` is where the language model computes, by default the CPU, on which the report's figures are measured; the
    small net of pictures stays on the CPU.

    Cost: about five minutes on two cores with the default settings.

    Examples:
        ```python
        from interp.demo.run import run
        run().report
        ```
    """
    settings = settings or Settings()
    fact(settings)  # a name that does not exist is refused now, not after minutes of training
    page_at(report)
    model = load("landmark", device=device)
    latents = settings.dictionary.latents
    tell(f"1/6  reading {model} and learning a dictionary of {latents:,} directions at block {settings.layer}")
    learnt = learn(model, settings, progress=progress)
    tell(f"     {learnt.report}\n2/6  searching it for the {settings.landmark}")
    found = find(model, learnt.sae, settings, progress=progress)
    tell(f"     {found.search.finding}\n3/6  turning up the latents that make the model name it")
    turned = turn_up(model, learnt.sae, found.search, settings, progress=progress)
    tell(f"     {_say_turned(turned)}\n4/6  looking for it in {settings.pictures:,} pictures and their captions")
    seen = look(settings, progress=progress)
    tell(f"     {_say_seen(seen)}\n5/6  moving the {settings.landmark} to {settings.city}")
    moved = move(model, settings, progress=progress)
    tell(f"     {moved.edit.facts[0].text}{moved.after}\n6/6  writing the report")
    page = write(report, settings, learnt, found, turned, seen, moved)
    return Demonstration(model, learnt, found, turned, seen, moved, page)


def _say_turned(turned: SteeringOutcome) -> str:
    chosen = turned.chosen
    naming, plain, random = (one.naming.value for one in (chosen.steered, chosen.unsteered, chosen.control))
    return (
        f"{turned.direction.source}: at dose {chosen.dose:.2g} {naming:.0%} of continuations name it "
        f"(unsteered {plain:.1%}, random direction {random:.1%}) at "
        f"{chosen.steered.perplexity_over(chosen.unsteered).value:.2f} times the perplexity"
    )


def _say_seen(seen: PictureDiscovery) -> str:
    one = seen.shared
    return (
        f"latent {one.latent} of a dictionary over both: F1 {one.pictures.f1:.2f} of pictures (their pixels "
        f"{seen.pixels.f1:.2f}), {one.texts.f1:.2f} of captions (their words {seen.words.f1:.2f})"
    )
