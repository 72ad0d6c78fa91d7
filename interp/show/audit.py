"""An audit of editors as a table: every measure by editor, each mean with its interval."""

from collections.abc import Mapping, Sequence

from hooks.plurals import count_of
from interp.common.statistics import Estimate
from interp.memory import Audit
from interp.memory.evaluation.measurement import MEASURES, is_share
from interp.show.html import Html, part, table
from interp.show.page import Panel

CONTROL = " control"


def audit_panel(audit: Audit) -> Panel:
    """Measures down, editors across, each mean with its 95 % interval over facts.

    Examples:
        ```python
        audit_panel(audit(model, cases, {"rome": rome}, texts)).body
        ```
    """
    names = [name for name in audit.table if not name.endswith(CONTROL)]
    shown = [m for m in MEASURES if any(m in row for row in audit.table.values())]
    n = audit.n
    rows = [[part("with_small", m, MEASURES[m]), *_cells(audit.table, names, m)] for m in shown]
    return Panel(
        title="What each editor did",
        body=Html(part("block", "stacked measures", table(["", *names], rows))),
        caption=(
            f"Means over {count_of(n, 'fact')}, with 95% intervals over facts: Wilson's for shares, bootstrapped for "
            "the rest. A measure that no fact has prompts for is left out; a fact that an editor refused counts as "
            "unedited. " + _refusals(audit)
        ),
        control=(
            "Unedited: the model as it was. Control: a random value of equal norm at the same place; for in context, "
            "where the fact is put before the text and no weight changes, its words in another order."
        ),
    )


def _cells(rows: Mapping[str, Mapping[str, Estimate]], names: Sequence[str], measure: str) -> list[str]:
    percent = is_share(measure)
    cells = []
    for name in names:
        compared = rows.get(f"{name}{CONTROL}", {}).get(measure)
        mean = _cell(rows[name].get(measure), percent)
        share = None if compared is None else f"control {compared.value:{'.0%' if percent else '.4g'}}"
        cells.append(mean if share is None else part("below", mean, share))
    return cells


def _cell(e: Estimate | None, percent: bool) -> str:
    if e is None:
        return "\u2013"
    spec = ".0%" if percent else ".4g"
    return part("with_small", f"{e.value:{spec}}", e.ends(spec))


def _refusals(audit: Audit) -> str:
    refusing = [f"{name} refused {len(facts)}" for name, facts in audit.refused.items() if facts]
    return f"Refused: {', '.join(refusing)}." if refusing else "None was refused."
