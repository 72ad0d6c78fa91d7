"""What must hold of the editors on the bundled model, a line for each: what was measured, and whether it holds."""

from collections.abc import Sequence
from statistics import mean
from typing import Any

Rows = Sequence[dict[str, Any]]


def harmonic(row: dict[str, Any]) -> float:
    """The harmonic mean of efficacy, paraphrase and neighbourhood (Meng et al. 2022).

    >>> harmonic({"efficacy": 1.0, "paraphrase": 1.0, "neighbours": 0.5})
    0.75
    """
    parts = [row[name] for name in ("efficacy", "paraphrase", "neighbours")]
    return 0.0 if min(parts) == 0 else len(parts) / sum(1 / part for part in parts)


def told(rows: Rows) -> list[str]:
    """One line for each bar; a bar whose rows were not run is said to be open."""
    return [*_singly(rows), *_many(rows)]


def _singly(rows: Rows) -> list[str]:
    one = {row["method"]: row for row in rows if row["order"] == "singly"}
    rome, plain = one.get("rome"), one.get("unedited")
    if rome is None or plain is None:
        return ["open: facts edited singly (rome and unedited were not run)"]
    n = f"ROME, {rome['n']} facts singly"
    lines = [
        _line(f"{n}: efficacy", rome["efficacy"], 0.99),
        _line(f"{n}: paraphrase", rome["paraphrase"], 0.90),
        _line(f"{n}: neighbourhood lost", plain["neighbours"] - rome["neighbours"], 0.03, most=True),
        _line(f"{n}: other facts kept", rome["others"], 0.90),
        _line(f"{n}: said by free generation", rome["said"], 0.90),
        _line(f"{n}: seconds per edit", rome["seconds"], 3.0, most=True),
    ]
    for other in ("ft_l", "memit"):
        if other in one:
            lines.append(_line(f"{n}: harmonic score, less {other}'s", harmonic(rome) - harmonic(one[other]), 0.0))
    return lines


def _many(rows: Rows) -> list[str]:
    n = 500
    plain = [row for row in rows if row["method"] == "unedited" and row["n"] == n and row["order"] == "at once"]
    turn, once = (
        [row for row in rows if row["method"] == name and row["n"] == n and row["order"] == order]
        for name, order in (("alphaedit", "in turn"), ("memit", "at once"))
    )
    lines = []
    if turn and plain:
        lost = _mean(plain, "neighbours") - _mean(turn, "neighbours")
        lines += [
            _line("AlphaEdit, 500 in turn: efficacy", _mean(turn, "efficacy"), 0.95),
            _line("AlphaEdit, 500 in turn: paraphrase", _mean(turn, "paraphrase"), 0.80),
            _line("AlphaEdit, 500 in turn: neighbourhood lost", lost, 0.08, most=True),
            _line("AlphaEdit, 500 in turn: perplexity, ratio", _mean(turn, "perplexity"), 1.10, most=True),
        ]
    fallen = [row for row in rows if row["method"] == "rome" and row["n"] == n and row["order"] == "in turn"]
    if fallen:
        lines.append(
            f"beside: ROME, {n} in turn: efficacy {_mean(fallen, 'efficacy'):.3f}, "
            f"perplexity, ratio {_mean(fallen, 'perplexity'):.3f}, refused {_mean(fallen, 'refused'):.0f}"
        )
    if once:
        lines.append(_line("MEMIT, 500 at once: efficacy", _mean(once, "efficacy"), 0.95))
    return lines or ["open: 500 facts in turn (AlphaEdit) and at once (MEMIT) were not run"]


def _line(what: str, value: float, bar: float, *, most: bool = False) -> str:
    holds = value <= bar if most else value >= bar
    return f"{'holds' if holds else 'FAILS'}: {what} {value:.3f} ({'at most' if most else 'at least'} {bar:g})"


def _mean(rows: Rows, name: str) -> float:
    return mean(row[name] for row in rows)
