"""A training step next to SAELens's, dictionary_learning's and sparsify's: `python benchmarks/sae_training.py`.

Every architecture, on planted sparse data, with the same weights, batch and selection; gradients must agree with
SAELens's autograd to 1e-5 in float64 before anything is timed. A figure is the median over repeats of a peer's time
over ours next to it. Next to it the time of the one product that cannot be avoided, and peak memory.
dictionary_learning and sparsify are timed where they can be imported; where the processor multiplies bfloat16, so is
our step with `PreselectedRanking`. Penalties turn most latents off only by and by: `--after` takes steps of ours
first, and times from those weights; `--course` trains each from the same weights for as many steps, in turn, and
compares the whole times. Writes benchmarks/results/sae_training.json; what is there is kept, and not measured again.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import cycle, product
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
from benchmarks.timing import RESULTS, in_turn, peak_mb, write  # noqa: E402
from hooks.store.processes import Process  # noqa: E402
from interp.common.precision import precision  # noqa: E402
from interp.sae import (  # noqa: E402
    SAE,
    BatchTopK,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    PreselectedRanking,
    Standard,
    TopK,
)
from interp.sae.architectures.objective import measure_variance  # noqa: E402
from interp.sae.training.learner import Learner  # noqa: E402
from interp.sae.training.plan import Plan  # noqa: E402

K, BATCHES, AGREE, TURN = 32, 4, 1e-5, 10
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
HALF = "SAELens, next to ours in bf16"


@dataclass(frozen=True)
class Row:
    """A peer next to ours at one shape: how many times its step takes ours, with quartiles, and what bars it."""

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
    """The largest relative difference of our gradients from SAELens's, in float64, of the parameters both define alike.

    In float32 b_dec's, a difference of two sums, is off by rounding alone.
    """
    sae, x = deepcopy(sae).double(), x.double()
    theirs = saelens_gradients(sae, x)
    sae.objective().gradients(x, torch.zeros(sae.d_sae, dtype=torch.bool))
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
    learner = Learner(sae, LR, measure_variance(sae, x), plan, steps, Process(0, 1))
    number = iter(range(steps))
    return lambda rows: learner.step(next(number), rows, lambda *_: rows)


def fed(step: TakeStep, batches: list[Tensor]) -> Callable[[], object]:
    """The step, on one batch after the other."""
    rows: Iterator[Tensor] = cycle(batches)
    return lambda: step(next(rows))


def bar(name: str, d_in: int, peer: str) -> float | None:
    """What is asked of the ratio to SAELens; of bf16 only where the processor has AMX."""
    if peer == HALF:
        return (5.0 if d_in < 768 else 8.0) if torch.cpu._is_amx_tile_supported() else None
    if peer != SAELENS:
        return None
    return (3.0 if d_in < 768 else 4.5) if name in ("topk", "batchtopk") else 1.5


def peers(sae: SAE, steps: int, batch: int, batches: list[Tensor]) -> dict[str, Callable[[], object]]:
    """The other trainers' steps, from the weights of ours, and the product alone."""
    ways = {SAELENS: fed(saelens_step(sae, steps, batch), batches)}
    if isinstance(sae, TopK):
        if find_spec("dictionary_learning"):
            ways["dictionary_learning"] = fed(dictionary_learning_step(sae, steps), batches)
        if find_spec("sparsify"):
            ways["sparsify, Adam around it"] = fed(sparsify_step(sae), batches)
    weights = torch.randn(sae.d_sae, sae.d_in)
    ways[PRODUCT] = lambda: linear(batches[0], weights)
    return ways


def course(name: str, d_in: int, expansion: int, batch: int, steps: int) -> Row:
    """The first steps of a training of ours and of SAELens's from the same weights, ten steps each in turn."""
    batches = [planted(batch, d_in, seed) for seed in range(BATCHES)]
    sae, turns = MAKE[name](d_in, expansion * d_in), steps // TURN
    sae.objective().initialise(batches[0])
    stepped = {
        OURS: fed(our_step(deepcopy(sae), steps + 1, batch, batches[0]), batches),
        SAELENS: fed(saelens_step(sae, steps + 1, batch), batches),
    }
    timed = in_turn({label: repeated(step) for label, step in stepped.items()}, repeats=turns, warm_up=0)
    mine, theirs = (1e3 * sum(timed[label].seconds) / (TURN * turns) for label in stepped)
    _, low, high = timed[OURS].times(timed[SAELENS])
    mine_mb, theirs_mb = (peak_mb(step) for step in stepped.values())
    shape, least = shape_name(d_in, expansion, batch, 0, steps), bar(name, d_in, SAELENS)
    return Row(name, shape, SAELENS, mine, theirs, theirs / mine, (low, high), mine_mb, theirs_mb, least)


def repeated(step: Callable[[], object]) -> Callable[[], object]:
    """Several steps, one after the other."""
    return lambda: [step() for _ in range(TURN)]


def measure(name: str, d_in: int, expansion: int, batch: int, after: int, repeats: int) -> list[Row]:
    """Check the gradients, then time every trainer in turn."""
    batches = [planted(batch, d_in, seed) for seed in range(BATCHES)]
    sae = MAKE[name](d_in, expansion * d_in)
    sae.objective().initialise(batches[0])
    step, steps = fed(our_step(sae, after + 1, batch, batches[0]), batches), 4 * repeats + 40
    for _ in range(after):
        step()
    off = disagreement(name, sae, batches[0])
    if off > AGREE:
        raise AssertionError(f"{name}, {d_in} x {expansion}: gradients differ from SAELens's by {off:.1e} > {AGREE}")
    ways = {OURS: fed(our_step(deepcopy(sae), steps, batch, batches[0]), batches)}
    if isinstance(sae, TopK | BatchTopK) and precision() == torch.bfloat16:
        half = deepcopy(sae)
        half.ranking = PreselectedRanking()
        ways[HALF] = fed(our_step(half, steps, batch, batches[0]), batches)
    ways |= peers(sae, steps, batch, batches)
    timed = in_turn(ways, repeats=repeats)
    memory = {peer: peak_mb(way) for peer, way in ways.items()}
    shape, found = shape_name(d_in, expansion, batch, after, 0), []
    for label in [p for p in ways if p != OURS]:
        mine, theirs = (HALF, SAELENS) if label == HALF else (OURS, label)
        ratio, low, high = timed[mine].times(timed[theirs])
        found.append(Row(name, shape, label, 1e3 * timed[mine].median, 1e3 * timed[theirs].median, ratio, (low, high),
                         memory[mine], memory[theirs], bar(name, d_in, label)))  # fmt: skip
    return found


def shape_name(d_in: int, expansion: int, batch: int, after: int, course: int) -> str:
    """How a shape is called in the results."""
    return f"{d_in}x{expansion} B{batch}" + (f" after {after}" if after else f" first {course}" if course else "")


def kept(name: str) -> list[dict[str, object]]:
    """The rows that are in a file of results."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))["figures"] if file.exists() else []


def main() -> None:
    """Measure every architecture at every shape and write the figures down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--architectures", nargs="+", default=list(MAKE), choices=list(MAKE))
    options.add_argument("--d-in", nargs="+", type=int, default=[256, 768])
    options.add_argument("--expansion", nargs="+", type=int, default=[8, 16])
    options.add_argument("--batch", nargs="+", type=int, default=[2048, 4096])
    options.add_argument("--after", type=int, default=0, help="steps taken before")
    options.add_argument("--course", type=int, default=0, help="steps of a whole training, in place of single ones")
    options.add_argument("--repeats", type=int, default=9)
    options.add_argument("--name", default="sae_training", help="of the file of results")
    given = options.parse_args()
    found = kept(given.name)
    done = {(row["architecture"], row["shape"]) for row in found}
    command = " ".join(["python benchmarks/sae_training.py", *sys.argv[1:]])
    for d_in, expansion, batch, name in product(given.d_in, given.expansion, given.batch, given.architectures):
        shape = shape_name(d_in, expansion, batch, given.after, given.course)
        if (name, shape) in done:
            continue
        if given.course:
            rows = [course(name, d_in, expansion, batch, given.course)]
        else:
            rows = measure(name, d_in, expansion, batch, given.after, given.repeats)
        print("\n".join(map(str, rows)), flush=True)
        found += [asdict(row) for row in rows]
        write(given.name, command, found)


if __name__ == "__main__":
    main()
