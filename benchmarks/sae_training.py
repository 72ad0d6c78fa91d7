"""A training step beside SAELens's, dictionary_learning's and sparsify's: `python benchmarks/sae_training.py`.

Every architecture, on planted sparse data, with the same weights, batch and selection; gradients must agree with
SAELens's autograd to 1e-5 before anything is timed. A figure is the median over repeats of a peer's time over ours
next to it. Beside it the time of the one product that cannot be avoided, and peak memory. dictionary_learning and
sparsify are timed where they can be imported. Writes benchmarks/results/sae_training.json.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import linear

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sae_peers import (  # noqa: E402
    LR,
    TakeStep,
    dictionary_learning_step,
    saelens_gradients,
    saelens_step,
    sparsify_step,
)
from benchmarks.timing import in_turn, peak_mb, write  # noqa: E402
from hooks.store.processes import Process  # noqa: E402
from interp.sae import SAE, BatchTopK, Gated, JumpReLU, MatryoshkaBatchTopK, Standard, TopK  # noqa: E402
from interp.sae.learner import Learner  # noqa: E402
from interp.sae.plan import Plan  # noqa: E402

K, BATCHES, AGREE = 32, 4, 1e-5
MAKE: dict[str, Callable[[int, int], SAE]] = {
    "topk": lambda d_in, d_sae: TopK(d_in, d_sae, K),
    "batchtopk": lambda d_in, d_sae: BatchTopK(d_in, d_sae, K),
    "matryoshka": lambda d_in, d_sae: MatryoshkaBatchTopK(d_in, d_sae, K, widths=(d_sae // 8, d_sae // 2)),
    "standard": lambda d_in, d_sae: Standard(d_in, d_sae, coefficient=1.0),
    "gated": lambda d_in, d_sae: Gated(d_in, d_sae, coefficient=1.0),
    "jumprelu": lambda d_in, d_sae: JumpReLU(d_in, d_sae, coefficient=1.0),
}
# the gate's reconstruction holds the decoder constant in the paper, and not in SAELens
DIFFERENT = {"gated": {"W_dec", "b_dec"}}
OURS, SAELENS, PRODUCT = "ours", "SAELens", "the encoder's product alone"


@dataclass(frozen=True)
class Row:
    """A peer beside ours at one shape: how many times its step takes ours, with quartiles, and what bars it."""

    architecture: str
    shape: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: float
    quartiles: tuple[float, float]
    ours_mb: float
    peer_mb: float
    at_least: float | None = None

    def __str__(self) -> str:
        low, high = self.quartiles
        bar = "" if self.at_least is None else f"{'pass' if self.ratio >= self.at_least else 'miss'} >= {self.at_least}"
        return (
            f"{self.architecture:<11} {self.shape:<14} {self.peer:<28} {self.ratio:5.2f} ({low:.2f} to {high:.2f})  "
            f"{self.ours_ms:7.1f} / {self.peer_ms:7.1f} ms  {self.ours_mb:6.0f} / {self.peer_mb:6.0f} MB  {bar}"
        )


def planted(n: int, d_in: int, seed: int) -> Tensor:
    """Rows that are sums of 16 of 4 d_in random unit directions, with a mean and a little noise."""
    truth = torch.nn.functional.normalize(torch.randn(4 * d_in, d_in, generator=torch.Generator().manual_seed(1)))
    g = torch.Generator().manual_seed(seed)
    which = torch.randint(4 * d_in, (n, 16), generator=g)
    strength = torch.rand(n, 16, generator=g) + 0.5
    rows = torch.nn.functional.embedding_bag(which, truth, mode="sum", per_sample_weights=strength)
    return rows + 0.1 + 0.05 * torch.randn(n, d_in, generator=g)


def disagreement(name: str, sae: SAE, x: Tensor) -> float:
    """The largest relative difference of our gradients from SAELens's, over the parameters both define alike."""
    theirs = saelens_gradients(sae, x)
    sae.gradients(x, torch.zeros(sae.d_sae, dtype=torch.bool))
    variance = float(sae.get_buffer("variance")) if hasattr(sae, "variance") else 1.0
    found = []
    for parameter, p in sae.named_parameters():
        if parameter not in DIFFERENT.get(name, ()):
            assert p.grad is not None
            found.append(float((p.grad * variance - theirs[parameter]).norm() / theirs[parameter].norm()))
    return max(found)


def our_step(sae: SAE, steps: int, batch: int, x: Tensor) -> TakeStep:
    """A step as `train` takes it: gradients, clipping, Adam, the curve."""
    plan = Plan(tokens=steps * batch, batch_size=batch)
    learner = Learner(sae, LR, sae.variance_of(x), plan, steps, Process(0, 1))
    number = iter(range(steps))
    return lambda rows: learner.step(next(number), rows, lambda *_: rows)


def fed(step: TakeStep, batches: list[Tensor]) -> Callable[[], object]:
    """The step, on one batch after the other."""
    rows: Iterator[Tensor] = cycle(batches)
    return lambda: step(next(rows))


def bar(name: str, d_in: int, peer: str) -> float | None:
    """What is asked of the ratio to SAELens."""
    if peer != SAELENS:
        return None
    return (3.0 if d_in < 768 else 4.5) if name in ("topk", "batchtopk") else 1.5


def measure(name: str, d_in: int, expansion: int, batch: int, repeats: int) -> list[Row]:
    """Check the gradients, then time every trainer in turn."""
    make, d_sae = (lambda: MAKE[name](d_in, expansion * d_in)), expansion * d_in
    batches = [planted(batch, d_in, seed) for seed in range(BATCHES)]
    sae = make()
    sae.initialise(batches[0])
    off = disagreement(name, sae, batches[0])
    if off > AGREE:
        raise AssertionError(f"{name}, {d_in} x {expansion}: gradients differ from SAELens's by {off:.1e} > {AGREE}")
    steps = 4 * repeats + 40
    ways = {OURS: fed(our_step(sae, steps, batch, batches[0]), batches)}
    ways[SAELENS] = fed(saelens_step(make(), steps, batch), batches)
    if isinstance(sae, TopK):
        if find_spec("dictionary_learning"):
            ways["dictionary_learning"] = fed(dictionary_learning_step(TopK(d_in, d_sae, K), steps), batches)
        if find_spec("sparsify"):
            ways["sparsify, Adam around it"] = fed(sparsify_step(TopK(d_in, d_sae, K)), batches)
    weights = torch.randn(d_sae, d_in)
    ways[PRODUCT] = lambda: linear(batches[0], weights)
    timed = in_turn(ways, repeats=repeats)
    memory = {peer: peak_mb(way) for peer, way in ways.items()}
    found = []
    for peer in [p for p in ways if p != OURS]:
        ratio, low, high = timed[OURS].times(timed[peer])
        found.append(Row(name, f"{d_in}x{expansion} B{batch}", peer, 1e3 * timed[OURS].median,
                         1e3 * timed[peer].median, ratio, (low, high), memory[OURS], memory[peer],
                         bar(name, d_in, peer)))  # fmt: skip
    return found


def main() -> None:
    """Measure every architecture at every shape and write the figures down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--architectures", nargs="+", default=list(MAKE), choices=list(MAKE))
    options.add_argument("--d-in", nargs="+", type=int, default=[256, 768])
    options.add_argument("--expansion", nargs="+", type=int, default=[8, 16])
    options.add_argument("--batch", nargs="+", type=int, default=[2048, 4096])
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--name", default="sae_training", help="of the file of results")
    given = options.parse_args()
    found: list[Row] = []
    for d_in in given.d_in:
        for expansion in given.expansion:
            for batch in given.batch:
                for name in given.architectures:
                    rows = measure(name, d_in, expansion, batch, given.repeats)
                    print("\n".join(map(str, rows)), flush=True)
                    found += rows
                    command = " ".join(["python benchmarks/sae_training.py", *sys.argv[1:]])
                    write(given.name, command, [asdict(row) for row in found])


if __name__ == "__main__":
    main()
