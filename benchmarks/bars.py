"""What must hold of the editors on the bundled model, a line for each: what was measured, and whether it holds."""

from collections.abc import Collection, Sequence
from math import nan
from statistics import mean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.common.statistics import Estimate, bootstrap

Rows = Sequence[dict[str, Any]]
SCORES = ("efficacy", "paraphrase", "neighbours")
COMPARED = ("unedited", "rome", "ft_l", "memit")


def harmonic(row: dict[str, Any]) -> float:
    """The harmonic mean of efficacy, paraphrase and neighbourhood (Meng et al. 2022).

    >>> harmonic({"efficacy": 1.0, "paraphrase": 1.0, "neighbours": 0.5})
    0.75
    """
    parts = [row[name] for name in SCORES]
    return 0.0 if min(parts) == 0 else len(parts) / sum(1 / part for part in parts)


def list_bars(rows: Rows) -> list[str]:
    """One line for each bar; a bar whose rows were not run is said to be open."""
    return [*_singly(rows), *_many(rows)]


def lead(rows: Rows, others: Rows) -> Estimate:
    """By how much the harmonic score of some rows is above that of others; the interval draws facts, for both alike."""

    def less(cases: Float[Tensor, "case method score"]) -> float:
        first, second = (harmonic(dict(zip(SCORES, of.tolist(), strict=True))) for of in cases.nanmean(0))
        return first - second

    each = torch.stack([torch.cat([_cases(row) for row in of]) for of in (rows, others)], 1)
    return bootstrap(lambda samples: less(samples[0]), [each])


def _of_seeds(rows: Rows, seeds: Collection[int]) -> Rows:
    return sorted((row for row in rows if row["seed"] in seeds), key=lambda row: row["seed"])


def _cases(row: dict[str, Any]) -> Float[Tensor, "case score"]:
    """The scores of every fact of a row; not a number where a fact has no neighbours."""
    columns = [[nan if value is None else value for value in row["each"][score]] for score in SCORES]
    return torch.tensor(columns, dtype=torch.float64).T


def _singly(rows: Rows) -> list[str]:
    """What must hold of facts edited singly, over all seeds; methods are compared on the facts that both edited."""
    one = {name: [row for row in rows if (row["method"], row["order"]) == (name, "singly")] for name in COMPARED}
    rome, plain = one["rome"], one["unedited"]
    if not rome or not plain:
        return ["open: facts edited singly (rome and unedited were not run)"]
    n = f"ROME, {sum(row['n'] for row in rome)} facts singly"
    lines = [
        _line(f"{n}: efficacy", _mean(rome, "efficacy"), 0.99),
        _line(f"{n}: paraphrase", _mean(rome, "paraphrase"), 0.90),
        _line(f"{n}: neighbourhood lost", _mean(plain, "neighbours") - _mean(rome, "neighbours"), 0.03, most=True),
        _line(f"{n}: other facts kept", _mean(rome, "others"), 0.90),
        _line(f"{n}: said by free generation", _mean(rome, "said"), 0.90),
        _line(f"{n}: seconds per edit", _mean(rome, "seconds"), 3.0, most=True),
    ]
    for other in ("ft_l", "memit"):
        shared = {row["seed"] for row in rome} & {row["seed"] for row in one[other]}
        if shared:
            mine, theirs = (_of_seeds(one[name], shared) for name in ("rome", other))
            e = lead(mine, theirs)
            lines.append(_line(f"{n}: harmonic score, less {other}'s [{e.low:.4f}, {e.high:.4f}]", e.value, 0.0))
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
            f"next to it: ROME, {n} in turn: efficacy {_mean(fallen, 'efficacy'):.3f}, "
            f"perplexity, ratio {_mean(fallen, 'perplexity'):.3f}, refused {_mean(fallen, 'refused'):.0f}"
        )
    if once:
        lines.append(_line("MEMIT, 500 at once: efficacy", _mean(once, "efficacy"), 0.95))
    return lines or ["open: 500 facts in turn (AlphaEdit) and at once (MEMIT) were not run"]


def _line(what: str, value: float, bar: float, *, most: bool = False) -> str:
    holds = value <= bar if most else value >= bar
    return f"{'holds' if holds else 'FAILS'}: {what} {value:.4f} ({'at most' if most else 'at least'} {bar:g})"


def _mean(rows: Rows, name: str) -> float:
    return mean(row[name] for row in rows)
