"""What must hold of discovery on the landmark model: figures next to their bars, ways of steering side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from interp.common.statistics import bootstrap, share

F1, WANTED, FALSE, NAMED, FLUENT, CHANCE, LANDMARKS, ACTS = 0.90, 0.90, 0.05, 0.8, 3.0, 0.05, 0.8, 0.95
Seeds = Mapping[str, Any]  # what was measured, by seed


def verdicts(f1: Mapping[str, Seeds], bridge: str, small: Sequence[bool], moved: Seeds, gated: Seeds) -> list[Any]:
    """Each bar with its figure: a bar whose stage was not run is left out."""
    rows = []
    for seed in next(iter(f1.values()), {}):
        reached = torch.tensor([by_seed[seed]["F1"] for by_seed in f1.values()])
        rows.append(bar(f"seed {seed}: concepts with F1 >= {F1}", asdict(share(reached >= F1)), ">=", WANTED))
        rows.append(bar(f"seed {seed}: F1 of the {bridge}", {"value": f1[bridge][seed]["F1"]}, ">=", F1))
    if small:
        rows.append(bar("searches of shuffled labels with p < 0.05", asdict(share(torch.tensor(small))), "<=", FALSE))
    for seed, marks in moved.items():
        for what, reached in (("the dose chosen", fluent), ("some dose", fluent_at_some)):
            good = [any(reached(one[way]) for way in one if by_latents(way)) for one in marks.values()]
            name = f"seed {seed}: landmarks named fluently by latents, at {what}"
            rows.append(bar(name, asdict(share(torch.tensor(good))), ">=", LANDMARKS))
        rates = [
            one[way]["naming"]["value"]
            for one in marks.values()
            for way in one
            if way.startswith("SAE") and way.endswith("random direction")
        ]
        rows.append(bar(f"seed {seed}: random directions, mean", {"value": sum(rates) / len(rates)}, "<", CHANCE))
    for seed, one in gated.items():
        rows.append(bar(f"seed {seed}: condition acts where it should", one["acts where it should"], ">=", ACTS))
        rows.append(bar(f"seed {seed}: other prompts bit-identical", one["others bit-identical"], ">=", 1.0))
    return rows


def by_latents(way: str) -> bool:
    """Whether a way steers by latents; a random direction next to them does not."""
    return way.startswith("SAE") and not way.endswith("random direction")


def fluent(one: Mapping[str, Any]) -> bool:
    """Whether a way's mention rate and perplexity ratio are what is asked for, at the dose chosen on other prompts.

    >>> fluent({"naming": {"value": 0.9}, "ratio": {"value": 1.2}})
    True
    """
    return one["naming"]["value"] >= NAMED and one["ratio"]["value"] <= FLUENT


def fluent_at_some(one: Mapping[str, Any]) -> bool:
    """The same at that dose or, where several were measured on the prompts reported on, at any of them."""
    return fluent(one) or fluent(one.get("some dose", one))


def bar(name: str, figure: Mapping[str, Any], sign: str, wanted: float) -> dict[str, Any]:
    """One figure next to its bar.

    >>> bar("F1", {"value": 0.93}, ">=", 0.9)["verdict"]
    'pass'
    """
    value = figure["value"]
    reached = {">=": value >= wanted, "<=": value <= wanted, "<": value < wanted}[sign]
    return {"name": name, **figure, "bar": f"{sign} {wanted:g}", "verdict": "pass" if reached else "miss"}


def side_by_side(moved: Seeds) -> dict[str, Any]:
    """Per way mention rate and perplexity ratio: each landmark's mean over seeds, with intervals over landmarks."""
    table: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for marks in moved.values():
        for mark, ways in marks.items():
            for way, one in ways.items():
                rates = (one["naming"]["value"], one["ratio"]["value"])
                table.setdefault(way, {}).setdefault(mark, []).append(rates)
    means = {
        way: torch.stack([torch.tensor(rows, dtype=torch.float64).mean(0) for rows in marks.values()]).T
        for way, marks in table.items()
    }
    return {
        way: {
            "naming": asdict(bootstrap(lambda drawn: drawn[0].mean().item(), [naming])),
            "ratio": asdict(bootstrap(lambda drawn: drawn[0].mean().item(), [ratio])),
            "landmarks": len(naming),
        }
        for way, (naming, ratio) in means.items()
    }


def in_words(rows: Sequence[Mapping[str, Any]], table: Mapping[str, Any]) -> list[str]:
    """A line for each bar, and one for each way."""
    lines = []
    for row in rows:
        spread = f"  [{row['low']:.3f}, {row['high']:.3f}], n = {row['n']}" if "low" in row else ""
        lines.append(f"{row['verdict']:<5}{row['value']:>7.3f}  {row['bar']:<8} {row['name']}{spread}")
    for way, one in table.items():
        n, r = one["naming"], one["ratio"]
        lines.append(
            f"{way:<36} names it {n['value']:.2f} [{n['low']:.2f}, {n['high']:.2f}], perplexity ratio "
            f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}], {one['landmarks']} landmarks"
        )
    return lines
