"""What a sweep found, as figures to write and a line to print."""

from typing import Any

from hooks.statistics import Estimate
from probes import ProbeGrid


def figures(grid: ProbeGrid) -> dict[str, Any]:
    """The accuracies, the nested estimate, and every control next to it."""
    controls = grid.controls
    return {
        "nested": _interval(grid.nested),
        "p": grid.p_value,
        "chosen": sorted({f"{site} {position}" for site, position in grid.chosen}),
        "accuracy": {
            f"{site} {position}": round(float(grid.accuracy[i, j]), 4)
            for i, site in enumerate(grid.sites)
            for j, position in enumerate(grid.positions)
        },
        "within": round(float((grid.high - grid.accuracy).max()), 4),
        "majority": round(controls.majority, 4),
        "embedding": _interval(controls.embedding),
        "untrained": _interval(controls.untrained),
        "shuffled": [round(value, 4) for value in controls.shuffled.tolist()],
        "control task": None if controls.memorised is None else _interval(controls.memorised),
        "selectivity": controls.selectivity,
        "elsewhere": {name: _interval(interval) for name, interval in controls.elsewhere.items()},
    }


def line(name: str, grid: ProbeGrid) -> str:
    """Accuracy on unseen groups, next to majority, embeddings, untrained model, shuffled labels, and elsewhere."""
    c, nested = grid.controls, grid.nested
    away = ", ".join(f"{where} {i.value:.2f} [{i.low:.2f}, {i.high:.2f}]" for where, i in c.elsewhere.items())
    task = "" if c.selectivity is None else f"  selectivity {c.selectivity:+.2f}"
    return (
        f"{name:<34} {nested.value:.3f} [{nested.low:.3f}, {nested.high:.3f}] at {grid.best[0]}, p {grid.p_value:.3f}"
        f" | majority {c.majority:.2f}  token {c.embedding.value:.2f}  untrained {c.untrained.value:.2f}"
        f"  shuffled {float(c.shuffled.mean()):.2f}{task} | elsewhere: {away or 'none'}"
    )


def _interval(interval: Estimate) -> list[float]:
    return [round(value, 4) for value in (interval.value, interval.low, interval.high)]
