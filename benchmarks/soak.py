"""A soak: rounds of capture, intervene, gradients, generation and an edit, with the memory they hold.

python benchmarks/soak.py --rounds 2000
"""

import argparse
import gc
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hooks import Model, capture, capture_gradients, intervene, load  # noqa: E402
from hooks.interventions import add  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp.memory import Edit, Fact  # noqa: E402
from interp.memory.editing.change import LowRank  # noqa: E402


def one_round(model: Model, edit: Edit) -> None:
    """Each of what a session does over and over, once."""
    capture(model, ["Fog over the bay", "The bridge"], [resid_post[1]])
    with intervene(model, {resid_post[1]: add(torch.ones(model.d_model))}), torch.no_grad():
        model.run("Fog over the bay")
        model.generate("The", max_new_tokens=2)
    capture_gradients(model, "Fog", [resid_post[1]], lambda logits: logits.square().sum())
    with edit.applied(model):
        model.generate("The", max_new_tokens=1)


def memory() -> int:
    """Bytes that the process holds, where the system says so."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def soak(model: Model, rounds: int, warm: int = 100) -> tuple[int, int, int]:
    """Return the bytes held after warming up and at the end, and how many Python objects came to be meanwhile."""
    fact = Fact("Anna", "{} lives in", "Paris", "Oslo")
    update = LowRank(1, torch.ones(1, model.d_mlp) * 1e-3, torch.ones(1, model.d_model) * 1e-3)
    edit = Edit((fact,), "rome", (update,), model.fingerprint)
    for _ in range(warm):
        one_round(model, edit)
    gc.collect()
    before, objects = memory(), len(gc.get_objects())
    for _ in range(rounds):
        one_round(model, edit)
    gc.collect()
    return before, memory(), len(gc.get_objects()) - objects


def main() -> None:
    """Print the memory before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    before, after, objects = soak(load("landmark", check=False), rounds)
    print(
        f"{rounds} rounds: {before / 2**20:.1f} MiB before, {after / 2**20:.1f} after ({after / before - 1:+.2%}); "
        f"{objects:+} Python objects"
    )


if __name__ == "__main__":
    main()
