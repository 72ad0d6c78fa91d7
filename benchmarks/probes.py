"""Probing a grid next to scikit-learn: `python benchmarks/probes.py`.

Logistic regression for 20 labels at each of 12 layers and 8 positions, on planted activations with the anisotropic
noise of a residual stream. A cell is solved by each way in turn, so that what slows the machine slows all of them;
the figure is how many times longer scikit-learn takes in total, and every weight is compared. scikit-learn is timed
with its default solver and tolerance, whose answers are rougher, and with the solver and tolerance that give the same
answers. Writes benchmarks/results/probes.json.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import in_turn, write  # noqa: E402
from probes import Logistic  # noqa: E402

OURS, DEFAULT, EXACT = "all labels of a cell at once", "scikit-learn, default", "scikit-learn, same answers"
AT_LEAST = {DEFAULT: 5.0, EXACT: 5.0}
SAME = 1e-4


@dataclass(frozen=True)
class Shape:
    """The size of the sweep."""

    layers: int
    positions: int
    labels: int
    rows: int
    width: int


@dataclass(frozen=True)
class Row:
    """One way: its seconds in total, how many times longer than ours, and how far its weights are from ours."""

    name: str
    seconds: float
    times_longer: float
    furthest: float

    def __str__(self) -> str:
        bar = AT_LEAST.get(self.name)
        verdict = "" if bar is None else f"  {'pass' if self.times_longer >= bar else 'miss'}: >= {bar:g}"
        return (
            f"{self.times_longer:6.2f}  {self.seconds:8.2f} s  weights within {self.furthest:.1e}  {self.name}{verdict}"
        )


def cell(shape: Shape, layer: int, position: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows whose noise has a spectrum that falls as 1 / rank, and labels along directions that grow with the layer."""
    g = torch.Generator().manual_seed(1000 * layer + position)
    y = torch.rand(shape.rows, shape.labels, generator=g) < torch.linspace(0.1, 0.5, shape.labels)
    basis = torch.linalg.qr(torch.randn(shape.width, shape.width, generator=g)).Q
    spectrum = 10 / torch.arange(1, shape.width + 1)
    u = torch.nn.functional.normalize(torch.randn(shape.labels, shape.width, generator=g), dim=1)
    noise = torch.randn(shape.rows, shape.width, generator=g) * spectrum
    return (noise @ basis.T + 0.1 * (1 + layer) * y.float() @ u).double(), y


def sklearn_way(x: torch.Tensor, y: torch.Tensor, **options: Any) -> Callable[[], torch.Tensor]:
    """One regression after another."""
    from sklearn.linear_model import LogisticRegression

    rows, labels = x.numpy(), y.numpy().T
    return lambda: torch.stack(
        [torch.from_numpy(LogisticRegression(**options).fit(rows, one).coef_[0]) for one in labels], 1
    )


def solved(x: torch.Tensor, y: torch.Tensor, warm_up: int) -> tuple[dict[str, float], dict[str, float]]:
    """The seconds each way takes for one cell, and the largest relative distance of its weights from ours."""
    found: dict[str, torch.Tensor] = {}
    ways = {
        OURS: lambda: Logistic().columns(x, y, torch.ones_like(y))[0],
        DEFAULT: sklearn_way(x, y, max_iter=1000),
        EXACT: sklearn_way(x, y, solver="newton-cholesky", tol=1e-8, max_iter=1000),
    }
    kept = {name: lambda name=name, way=way: found.update({name: way()}) for name, way in ways.items()}
    timed = in_turn(kept, repeats=1, warm_up=warm_up)
    away = {name: float(((w - found[OURS]).norm(dim=0) / found[OURS].norm(dim=0)).max()) for name, w in found.items()}
    return {name: sum(one.seconds) for name, one in timed.items()}, away


def compare(shape: Shape) -> list[Row]:
    """Solve every cell in each way and add up."""
    total, furthest = (dict.fromkeys((OURS, DEFAULT, EXACT), 0.0) for _ in range(2))
    for layer in range(shape.layers):
        for position in range(shape.positions):
            seconds, away = solved(*cell(shape, layer, position), warm_up=int(layer + position == 0))
            for name in total:
                total[name] += seconds[name]
                furthest[name] = max(furthest[name], away[name])
    return [Row(name, total[name], total[name] / total[OURS], furthest[name]) for name in total]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in asdict(Shape(12, 8, 20, 1000, 256)).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    shape = Shape(**vars(parser.parse_args()))
    rows = compare(shape)
    print(f"{shape}: times longer than ours, seconds in total")
    print(*rows, sep="\n")
    same = rows[-1].furthest <= SAME
    print(f"{'pass' if same else 'miss'}: the same answers within {SAME:g}")
    command = " ".join(["python", "benchmarks/probes.py", *sys.argv[1:]])
    figures = {"shape": asdict(shape), "rows": [asdict(row) for row in rows], "same_answers": same}
    print(f"written: {write('probes', command, figures)}")


if __name__ == "__main__":
    main()
