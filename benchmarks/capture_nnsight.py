"""nnsight's side of benchmarks/capture.py, run by it in an environment of nnsight's own; prints JSON."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import in_turn  # noqa: E402

EVERYTHING = "nnsight, all residual streams and feed-forward activations"


def ways(shape: Shape, device: str) -> dict[str, Callable[[], Any]]:
    """The plain forward pass of this environment, and nnsight's traces."""
    from nnsight import NNsight  # pyright: ignore[reportMissingImports]

    hf, ids = shape.gpt2().to(device), shape.batch().to(device)
    model = NNsight(hf)
    half = shape.layers // 2 - 1

    def everything() -> list[torch.Tensor]:
        kept = []
        with model.trace(ids, use_cache=False):
            for block in model.transformer.h:
                kept.append(block.mlp.act.output.save())
                kept.append(block.output.save())
        return kept

    def halfway() -> list[torch.Tensor]:
        kept = []
        with model.trace(ids, use_cache=False) as tracer:
            kept.append(model.transformer.h[half].output.save())
            tracer.stop()
        return kept

    return {
        "Hugging Face, plain forward, in nnsight's environment": lambda: hf(ids, use_cache=False).logits,
        EVERYTHING: everything,
        "nnsight, one site at half depth, stopped": halfway,
    }


def main() -> None:
    """Time them in turn."""
    options = argparse.ArgumentParser(description=__doc__)
    Shape.options(options)
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.no_grad():
        run = ways(Shape.given(given), device)
        norms = [float(value.norm()) for value in run[EVERYTHING]()]
        timed = in_turn(run, repeats=given.repeats)
    print(json.dumps({"norms": norms, "seconds": {name: way.seconds for name, way in timed.items()}}))


if __name__ == "__main__":
    main()
