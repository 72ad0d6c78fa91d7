"""What doses do to texts they are not meant for, next to a random direction of equal norm."""

from collections.abc import Sequence

from hooks.errors import InvalidArgument
from interp.common.statistics import Estimate
from interp.show.html import Html, part, table
from interp.show.page import Panel
from interp.steering import Damage


def damage_panel(steered: Sequence[Damage], control: Sequence[Damage]) -> Panel:
    """KL, loss, first guesses and how far states leave the usual, dose by dose.

    Raises:
        InvalidArgument: nothing was measured, or the doses of the two differ.

    Examples:
        ```python
        damage_panel(response.damage, response.control_damage).body
        ```
    """
    if not steered or [d.dose for d in steered] != [d.dose for d in control]:
        raise InvalidArgument(
            f"damage at doses {[d.dose for d in steered]} and, for the control, {[d.dose for d in control]} was given: "
            "measure both at the same doses, with dose_response(..., held_out=texts)"
        )
    head = ["dose", "KL, nats", "random", "loss, nats", "random", "first guesses", "random", "states beyond", "random"]
    rows = [[f"{one.dose:g}", *_cells(one, other)] for one, other in zip(steered, control, strict=True)]
    return Panel(
        title="What it does to other texts",
        body=Html(part("block", "stacked", table(head, rows))),
        caption=(
            "Held-out texts read with the dose at every token. KL from the unsteered next-token distribution, rise of "
            "the next-token loss, change of the share of next tokens guessed first, and share of states farther from "
            "the mean than 99% of the unsteered ones; small figures are 95% bootstrap intervals over texts."
        ),
        control=(
            "Every second figure is that of a random direction of equal norm. Unsteered, "
            f"{steered[0].beyond_before:.1%} of these states are that far out."
        ),
    )


def _cells(one: Damage, other: Damage) -> list[str]:
    cells = []
    for kind, form in (("kl", ".2f"), ("loss", "+.2f"), ("correct", "+.1%"), ("beyond", ".1%")):
        mine, theirs = getattr(one, kind), getattr(other, kind)
        cells += [_cell(mine, form), f"{theirs.value:{form}}"]
    return cells


def _cell(estimate: Estimate, form: str) -> str:
    return part("with_small", f"{estimate.value:{form}}", estimate.ends(form))
