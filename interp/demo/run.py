"""The whole demonstration: learn, find, turn up, move, write."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hooks import Model, load
from interp.demo.discover import Found, Learnt, find, learn
from interp.demo.move import Moved, fact, move
from interp.demo.page import write
from interp.demo.settings import Settings
from interp.demo.turn_up import turn_up
from interp.show.frame import page_at
from interp.steering import ChosenDose

REPORT = Path("reports/golden_gate_bridge.html")


@dataclass(frozen=True, eq=False)
class Demonstration:
    """What every step of the demonstration returned, and where its report is."""

    model: Model
    learnt: Learnt
    found: Found
    turned: ChosenDose
    moved: Moved
    report: Path


def run(
    settings: Settings | None = None,
    report: Path = REPORT,
    *,
    tell: Callable[[str], None] = lambda _: None,
    progress: bool = True,
) -> Demonstration:
    """Do every step on the bundled model and write the report; `tell` hears of each step and what came of it.

    Cost: about five minutes on two cores with the default settings.

    ```python
    from interp.demo import run
    run().report
    ```
    """
    settings = settings or Settings()
    fact(settings)  # a name that does not exist is said now, not after minutes of training
    page_at(report)
    model = load("landmark")
    tell(f"1/5  reading {model} and learning a dictionary of {settings.latents:,} directions at block {settings.layer}")
    learnt = learn(model, settings, progress=progress)
    tell(f"     {learnt.report}\n2/5  searching it for the {settings.landmark}")
    found = find(model, learnt.sae, settings, progress=progress)
    tell(f"     {found.search.best}\n3/5  turning latent {found.feature.latent} up")
    turned = turn_up(model, learnt.sae, found.feature.latent, settings, progress=progress)
    tell(f"     {_turned(turned)}\n4/5  moving the {settings.landmark} to {settings.city}")
    moved = move(model, settings, progress=progress)
    tell(f"     {moved.edit.facts[0].text}{moved.after}\n5/5  writing the report")
    return Demonstration(model, learnt, found, turned, moved, write(report, settings, learnt, found, turned, moved))


def _turned(turned: ChosenDose) -> str:
    return (
        f"at dose {turned.dose:g} {turned.steered.naming.value:.0%} of continuations name it "
        f"(unsteered {turned.unsteered.naming.value:.1%}, random direction {turned.control.naming.value:.1%}) at "
        f"{turned.steered.perplexity_over(turned.unsteered).value:.2f} times the perplexity"
    )
