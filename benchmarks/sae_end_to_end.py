"""Training from a live model next to SAELens's runner: `python benchmarks/sae_end_to_end.py`.

A random GPT-2 reads the same token ids for both, its residual stream is tapped after half of its layers, and a TopK
autoencoder learns from a mixing buffer of the same size with the same batches, k and learning rate; nothing is logged.
The time is that of the whole run: filling the buffer, training, and for ours the report on the final weights. Next to
it the share of that time which is the model's own forward pass. Where the processor multiplies bfloat16, ours is timed
with `PreselectedRanking` too. Writes benchmarks/results/sae_end_to_end.json.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.random_gpt2 import Shape  # noqa: E402
from benchmarks.timing import write  # noqa: E402
from hooks import Model, load  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp.common.precision import precision  # noqa: E402
from interp.sae import PreselectedRanking, Schedule, TopK, activations_of, train  # noqa: E402

BATCH, K, LR, TEXTS, IN_BUFFER = 2048, 32, 2e-4, 32, 32
THROUGHPUT, SHARE = 1.8, 0.80  # what is asked for
OURS, HALF, SAELENS = "ours", "ours, preselected", "SAELens"


@dataclass(frozen=True)
class Run:
    """One run: how long it took, and how much of that was the model's forward pass."""

    trainer: str
    tokens: int
    seconds: float
    forward_seconds: float

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    def __str__(self) -> str:
        share = self.forward_seconds / self.seconds
        return f"{self.trainer:<18} {self.rate:8.0f} tokens/s, {share:5.1%} of the time in the model's forward pass"


class Timer:
    """Seconds spent inside a function, however it is left."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *given: Any, **named: Any) -> Any:
        """The function's value."""
        began = time.perf_counter()
        try:
            return self.function(*given, **named)
        finally:
            self.seconds += time.perf_counter() - began


def ours(model: Model, data: Any, width: int, tokens: int, trainer: str = OURS) -> Run:
    """`train` on `activations_of`."""
    sae = TopK(model.d_model, width, K)
    if trainer == HALF:
        sae.ranking = PreselectedRanking()
    forward = model.hf.forward
    model.hf.forward = timer = Timer(forward)
    source = activations_of(model, data, resid_post[model.n_layers // 2 - 1], batch_size=TEXTS)
    buffer, began = IN_BUFFER * TEXTS * len(data[0]["input_ids"]), time.perf_counter()
    train(sae, source, tokens=tokens, batch_size=BATCH, lr=LR, schedule=Schedule(0, 0),
          buffer=buffer, progress=False)  # fmt: skip
    seconds = time.perf_counter() - began
    model.hf.forward = forward
    return Run(trainer, tokens, seconds, timer.seconds)


def lens_model(model: Model, shape: Shape) -> Any:
    """TransformerLens's model of the same weights, checked to give the same residual stream."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = HookedTransformerConfig(
        n_layers=shape.layers, d_model=shape.width, n_ctx=max(shape.length, 64), d_head=shape.width // shape.heads,
        n_heads=shape.heads, d_vocab=shape.vocabulary, act_fn="gelu_new", normalization_type="LN", device="cpu",
    )  # fmt: skip
    lens = HookedTransformer(config)
    lens.load_state_dict(convert_gpt2_weights(model.hf, config), strict=False)
    return lens.eval()


def saelens(lens: Any, data: Any, width: int, tokens: int) -> Run:
    """`LanguageModelSAETrainingRunner`, tapping the same place."""
    from sae_lens import LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig
    from sae_lens.saes import TopKTrainingSAEConfig

    layers, d_in = lens.cfg.n_layers, lens.cfg.d_model
    config = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(d_in=d_in, d_sae=width, k=K),
        hook_name=resid_post[layers // 2 - 1].transformer_lens_name, dataset_path="", streaming=False,
        context_size=len(data[0]["input_ids"]), store_batch_size_prompts=TEXTS, n_batches_in_buffer=IN_BUFFER,
        training_tokens=tokens, train_batch_size_tokens=BATCH, lr=LR, lr_scheduler_name="constant", prepend_bos=False,
        logger=LoggingConfig(log_to_wandb=False), device="cpu", output_path=None, checkpoint_path=None, verbose=False,
    )  # fmt: skip
    runner = LanguageModelSAETrainingRunner(config, data, lens)
    run = lens.run_with_cache
    lens.run_with_cache = timer = Timer(run)
    began = time.perf_counter()
    runner.run()
    seconds = time.perf_counter() - began
    lens.run_with_cache = run
    return Run(SAELENS, tokens, seconds, timer.seconds)


def main() -> None:
    """Run both in turn and write the figures down."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Shape.options(options)
    options.add_argument("--d-sae", type=int, default=2048)
    options.add_argument("--tokens", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=1)
    options.add_argument("--name", default="sae_end_to_end", help="of the file of results")
    given = options.parse_args()
    warnings.filterwarnings("ignore", module="sae_lens|transformer_lens")
    shape = Shape.given(given)
    with tempfile.TemporaryDirectory() as folder:
        shape.gpt2().save_pretrained(folder)
        model = load(folder)
    ids = torch.randint(1, shape.vocabulary, (4096, shape.length), generator=torch.Generator().manual_seed(1))
    lens, site = lens_model(model, shape), resid_post[shape.layers // 2 - 1]
    with torch.no_grad():
        cached = lens.run_with_cache(ids[:4], names_filter=site.transformer_lens_name)[1][site.transformer_lens_name]
        ours_there = torch.stack([*activations_of(model, ids[:4], site)]).view(cached.shape)
    torch.testing.assert_close(cached, ours_there, rtol=1e-3, atol=1e-3)
    data, found = Dataset.from_dict({"input_ids": ids.tolist()}), []
    mine = [OURS, HALF] if precision() is torch.bfloat16 else [OURS]
    for _ in range(given.repeats):
        found += [ours(model, data, given.d_sae, given.tokens, name) for name in mine]
        found.append(saelens(lens, data, given.d_sae, given.tokens))
        print(*found[-len(mine) - 1 :], sep="\n", flush=True)
    rate = {name: median(r.rate for r in found if r.trainer == name) for name in (*mine, SAELENS)}
    for name in mine:
        share = median(r.forward_seconds / r.seconds for r in found if r.trainer == name)
        times = rate[name] / rate[SAELENS]
        for what, value, bar in (("throughput", times, THROUGHPUT), ("forward pass", share, SHARE)):
            print(f"{'pass' if value >= bar else 'miss'}: {name}: {what} {value:.2f} (at least {bar})")
    command = " ".join(["python benchmarks/sae_end_to_end.py", *sys.argv[1:]])
    write(given.name, command, [asdict(run) for run in found])


if __name__ == "__main__":
    main()
