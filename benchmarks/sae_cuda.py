"""A k-sparse training step on a GPU, by Triton kernels and by the plain products: `python benchmarks/sae_cuda.py`.

Gradients of the two must agree with autograd's of the dense loss to 1e-4 before anything is timed. Absolute times, as
medians, and how many times faster the kernels are. Writes benchmarks/results/sae_cuda.json. Without a GPU it stops;
`--device cpu` under TRITON_INTERPRET=1 goes through the same steps in Triton's interpreter, timing nothing.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sae_training import MAKE, K, our_step, planted  # noqa: E402
from benchmarks.timing import in_turn, peak_mb, write  # noqa: E402
from interp.sae import SAE  # noqa: E402
from interp.sae.numerics import kernels  # noqa: E402

KINDS, AGREE = ("topk", "batchtopk", "matryoshka"), 1e-4
usable = kernels.usable


def with_kernels(use: bool, work: Callable[[], object], device: str) -> Callable[[], object]:
    """The work, with kernels or without; in the interpreter they are used on the CPU."""

    def done() -> object:
        kernels.usable = (usable if device == "cuda" else lambda _: True) if use else lambda _: False
        try:
            return work()
        finally:
            kernels.usable = usable

    return done


def disagreement(sae: SAE, x: Tensor, device: str) -> dict[str, float]:
    """The largest relative difference of each way's gradients from autograd's of the dense loss, a third dead."""
    dead = torch.arange(sae.d_sae, device=x.device) % 3 == 0
    objective = sae.objective()
    truth = torch.autograd.grad(objective.loss(x, dead).loss, [*sae.parameters()])
    off = {}
    for name, use in (("kernels", True), ("plain", False)):
        with_kernels(use, lambda: objective.gradients(x, dead), device)()
        pairs = zip(sae.parameters(), truth, strict=True)
        off[name] = max(float((p.grad - t).norm() / t.norm()) for p, t in pairs if p.grad is not None)
    return off


def measure(name: str, d_in: int, expansion: int, batch: int, repeats: int, device: str) -> dict[str, object]:
    """Check the gradients of one shape; on a GPU, time its steps."""
    sae, x = MAKE[name](d_in, expansion * d_in).to(device), planted(batch, d_in, 0).to(device)
    sae.objective().initialise(x)
    off = disagreement(sae, x[: 4 * K], device)
    if max(off.values()) > AGREE:
        raise AssertionError(f"{name}, {d_in} x {expansion}: gradients differ from autograd's by {off} > {AGREE}")
    row: dict[str, object] = {"architecture": name, "shape": f"{d_in}x{expansion} B{batch}", "disagreement": off}
    if device != "cuda":
        return row
    steps = 4 * repeats + 40
    ways = {}
    for way, use in (("kernels", True), ("plain", False)):
        twin = MAKE[name](d_in, expansion * d_in).to(device)
        twin.objective().initialise(x)
        step = our_step(twin, steps, batch, x)
        ways[way] = with_kernels(use, lambda step=step: step(x), device)
    timed = in_turn(ways, repeats=repeats)
    ratio, low, high = timed["kernels"].times(timed["plain"])
    ms = {way: 1e3 * each.median for way, each in timed.items()}
    return row | {"ms": ms, "ratio": ratio, "quartiles": (low, high), "mb": {w: peak_mb(f) for w, f in ways.items()}}


def main() -> None:
    """Measure every shape and write the figures down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--d-in", nargs="+", type=int, default=[256, 768])
    options.add_argument("--expansion", nargs="+", type=int, default=[8, 16])
    options.add_argument("--batch", type=int, default=4096)
    options.add_argument("--repeats", type=int, default=21)
    options.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    given = options.parse_args()
    if kernels.triton is None or (given.device == "cuda" and not torch.cuda.is_available()):
        sys.exit("There is no GPU, or no Triton: see --help.")
    found = []
    for d_in in given.d_in:
        for expansion in given.expansion:
            for name in KINDS:
                found.append(measure(name, d_in, expansion, given.batch, given.repeats, given.device))
                print(found[-1], flush=True)
    if given.device == "cuda":
        write("sae_cuda", " ".join(["python benchmarks/sae_cuda.py", *sys.argv[1:]]), found)


if __name__ == "__main__":
    main()
