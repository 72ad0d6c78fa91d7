"""The panels of ways to teach a fact say every figure, every control and how each way is undone."""

from interp.common.statistics import Estimate
from interp.show import costs_panel, panels_of, ways_panel
from interp.teaching import COSTS, WayComparison

MEASURES = ("efficacy said", "paraphrase said", "neighbours unchanged", "others said")


def made() -> WayComparison:
    def row(value: float) -> dict[str, Estimate]:
        return {name: Estimate(value, value / 2, (1 + value) / 2, 4) for name in MEASURES}

    table = {"untaught": row(0.0), "edit": {**row(0.75), "drift": Estimate(0.25, 0.125, 0.5, 4)},
             "edit control": row(0.125), "passage": row(0.5), "passage control": row(0.0)}  # fmt: skip
    costs = {way: {name: Estimate(2.0, 1.0, 3.0, 4) for name in COSTS} for way in ("edit", "passage")}
    undone = {"edit": Estimate(1.0, 0.5, 1.0, 4), "passage": Estimate(0.5, 0.1, 0.9, 4)}
    return WayComparison(table, costs, undone, {"edit": {"Rome is in": "no room"}, "passage": {}})


def test_every_way_is_a_row_with_its_interval_and_its_control() -> None:
    panel = ways_panel(made())
    ways = [t for t in panel.body.data if t.name == "the way"]  # type: ignore[union-attr]
    controls = [t for t in panel.body.data if t.name == "its control"]  # type: ignore[union-attr]
    assert len(ways) == len(controls) == 4
    assert [*ways[0].y] == ["passage", "edit", "untaught"] and [*ways[0].x] == [50, 75, 0]
    assert [*controls[0].x] == [0, 12.5] and ways[0].error_x.arrayminus[1] == 37.5
    assert "edit (75%)" in panel.caption and "4 facts" in panel.caption


def test_costs_say_what_is_changed_how_it_ends_and_what_has_no_drift() -> None:
    panel = costs_panel(made())
    text = panel.body.text  # type: ignore[union-attr]
    assert "the kept original is written back" in text and "bit for bit the old ones after 50% of facts" in text
    assert "0.25" in text and "0.12 to 0.50" in text and "<td>–</td>" in text
    assert "edit refused 1" in panel.caption
    assert len(panels_of(made())) == 2
