"""Activation patching next to TransformerLens's `patching` on the same sweeps: `python benchmarks/patching.py`.

A GPT-2 of random weights, one pair of texts that differ at their second token, the logit difference at the end. Both
patch the stream at every layer and position, and the output of every head over all positions; both get one model with
the same weights, and must give the same numbers to 1e-5. Repeats alternate. Writes benchmarks/results/patching.json.
`--tiny` runs a small model once, to see that it runs.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import in_turn, write  # noqa: E402
from hooks import Model, load  # noqa: E402
from hooks.site import resid_pre, z  # noqa: E402
from interp.circuits import denoising, each_head, each_position, patch_sweep  # noqa: E402

BAR = 6.0  # times faster
ALIKE = 1e-5


@dataclass(frozen=True)
class Size:
    """The shape of the model and of the texts."""

    n_layer: int = 6
    n_head: int = 8
    n_embd: int = 256
    vocab_size: int = 8192
    tokens: int = 16


TINY = Size(n_layer=2, n_head=2, n_embd=16, vocab_size=64, tokens=6)


def both(size: Size) -> tuple[Model, Any]:
    """One model for this library and one for TransformerLens, of the same weights."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=size.n_layer, n_head=size.n_head, n_embd=size.n_embd, vocab_size=size.vocab_size)
    hf = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    with tempfile.TemporaryDirectory() as folder:
        hf.save_pretrained(folder)
        twin = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager")
        bridge = TransformerBridge.boot_transformers(folder, hf_model=twin, tokenizer=None, device="cpu")
    return load(hf, None, check=False), bridge


def difference(logits: Tensor) -> Tensor:
    """The metric, of the last token's logits."""
    return logits[..., 5] - logits[..., 6]


def ways(model: Model, bridge: Any, size: Size) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Each sweep as TransformerLens runs it, and as this library does; both return effects by layer and place."""
    from transformer_lens import patching

    clean = torch.randint(10, size.vocab_size, (1, size.tokens), generator=torch.Generator().manual_seed(1))
    corrupt = clean.clone()
    corrupt[0, 1] = (clean[0, 1] + 7) % size.vocab_size

    def theirs(sweep: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(clean)
            return sweep(bridge, corrupt, cache, lambda logits: difference(logits[0, -1]))

    def ours(over: Any) -> Tensor:
        return patch_sweep(model, denoising(clean, corrupt), difference, over=over).patched[0]

    by_position, by_head = patching.get_act_patch_resid_pre, patching.get_act_patch_attn_head_out_all_pos
    return {
        "stream by position": (partial(theirs, by_position), partial(ours, each_position(resid_pre))),
        "heads, all positions": (partial(theirs, by_head), partial(ours, each_head(z))),
    }


def main() -> None:
    """Time, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small model, once, nothing written")
    tiny = parser.parse_args().tiny
    size = TINY if tiny else Size()
    torch.set_num_threads(1)
    os.environ.setdefault("TQDM_DISABLE", "1")  # their bars are not timed
    model, bridge = both(size)
    figures: dict[str, Any] = {"model": vars(size), "bar": BAR}
    for name, (theirs, ours) in ways(model, bridge, size).items():
        gap = float((theirs() - ours()).abs().max())
        times = in_turn({"theirs": theirs, "ours": ours}, repeats=1 if tiny else 11, warm_up=0 if tiny else 2)
        ratio, low, high = times["ours"].times(times["theirs"])
        figures[name] = {
            "transformer_lens_s": times["theirs"].median,
            "ours_s": times["ours"].median,
            "times_faster": ratio,
            "quartiles": [low, high],
            "largest_difference": gap,
        }
        verdict = "pass" if ratio >= BAR and gap <= ALIKE else "miss"
        print(f"{name:<24} {ratio:6.2f} times as fast [{low:.2f}, {high:.2f}], apart by {gap:.1e}: {verdict}")
    if not tiny:
        print(write("patching", "python benchmarks/patching.py", figures))


if __name__ == "__main__":
    main()
