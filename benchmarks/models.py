"""Any model, next to TransformerLens's bridge in the same run, and what loading with the contract costs.

1. every class that can be made tiny is loaded by `hooks.load` and by TransformerLens's bridge, each in a process of its
   own that may neither connect nor start another, and the logits of each are compared with Hugging Face's;
2. `load` with its contract on a random model of GPT-2's shape, by this code and by that of another commit, in processes
   that take turns, in CPU seconds.

`python -m benchmarks.models` goes on where it was; `--cost COMMIT` measures 2 alone, with a worktree of that commit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tiny_models import MAPPINGS, VOCAB, classes, tiny_model
from benchmarks.zoo import forked, prepare
from benchmarks.zoo_judge import call, same

RESULTS = Path(__file__).parent / "results" / "models.json"
ROOT = Path(__file__).parents[1]
REPEATS = 4
LOADING = """
import sys, time, warnings
warnings.filterwarnings("ignore")
import torch, transformers
torch.set_num_threads(1)
from hooks import load
torch.manual_seed(0)
hf = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
load(transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=99)).eval())
began = time.process_time()
model = load(hf)
print(time.process_time() - began, model.contract.holds, model.contract.passes)
"""
"""Loads a tiny model first, so that no import is in the figure, then GPT-2's shape with random weights."""


def by_hooks(hf: Any, ids: Tensor) -> Tensor:
    """The logits that `hooks` gives."""
    from hooks import load

    return load(hf).run(ids)


def by_bridge(hf: Any, ids: Tensor) -> Tensor:
    """The logits that TransformerLens's bridge gives around the same model."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    hf.config.architectures = [type(hf).__name__]
    with tempfile.TemporaryDirectory() as folder:
        words().save_pretrained(folder)
        hf.config.save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, hf_model=hf, tokenizer=tokenizer, device="cpu")
    given = call(hf, ids)
    decoder = {"decoder_input": given["decoder_input_ids"]} if "decoder_input_ids" in given else {}
    return bridge(ids, **decoder)


def words() -> Any:
    """A tokenizer of as many words as the tiny models know, which the bridge asks for before it runs over ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCAB)}, unk_token="w3"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="w1", eos_token="w2", pad_token="w0")


WAYS = {"hooks": by_hooks, "bridge": by_bridge}


def verdict(way: str, kind: str, name: str) -> dict[str, Any]:
    """Whether a class loads, and whether its logits are Hugging Face's."""
    try:
        hf = tiny_model(kind, name)
        ids = torch.randint(6, VOCAB, (1, 11), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            output = hf(**call(hf, ids))
    except Exception as error:
        return {"state": "not tiny", "why": f"{type(error).__name__}: {error}"[:120]}
    truth = output.logits if hasattr(output, "logits") else getattr(output, "prediction_logits", None)
    try:
        with torch.no_grad():
            made = WAYS[way](hf, ids)
    except Exception as error:
        return {"state": "no logits", "why": f"{type(error).__name__}: {error}"[:160]}
    made = made if isinstance(made, Tensor) else made[0]
    right = truth is not None and made.shape == truth.shape and same(made, truth, 1e-4)
    return {"state": "right" if right else "wrong"}


def side_by_side(results: dict[str, Any], ways: Sequence[str], only: Collection[str]) -> None:
    """Measure the classes that are not there yet, and write after each."""
    prepare()
    rows = results.setdefault("classes", {})
    for mapping in MAPPINGS:
        for kind, name in classes(mapping):
            if only and name not in only:
                continue
            row = rows.setdefault(f"{mapping}:{name}", {})
            for way in ways:
                if way not in row:
                    ended = {"state": "no logits", "why": "ended, or took too long"}
                    row[way] = forked(lambda way=way, kind=kind, name=name: verdict(way, kind, name), ended)
                print(way, mapping, name, row[way]["state"], row[way].get("why", "")[:100], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True))
    if all(row.keys() == WAYS.keys() for row in rows.values()):
        results["counts"] = counts(rows)


def counts(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """How many classes of each mapping have right and wrong logits, or none, by each way."""
    found = {}
    for mapping in MAPPINGS:
        tiny = [
            row for key, row in rows.items() if key.startswith(f"{mapping}:") and row["hooks"]["state"] != "not tiny"
        ]
        found[mapping] = {way: dict(Counter(row[way]["state"] for row in tiny)) for way in WAYS}
    return found


def cost_of(commit: str) -> dict[str, Any]:
    """CPU seconds of loading GPT-2's shape with its contract, by this code and by that of a commit, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "then"
        subprocess.run(["git", "worktree", "add", "--detach", str(there), commit], cwd=ROOT, check=True)
        try:
            seconds: dict[str, list[float]] = {"now": [], "then": []}
            for _ in range(REPEATS):
                for name, root in (("then", there), ("now", ROOT)):
                    seconds[name].append(_loaded(root))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(there)], cwd=ROOT, check=True)
    ratios = [now / then for now, then in zip(seconds["now"], seconds["then"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"commit": commit, "cpu_seconds": seconds, "ratio": middle, "quartiles": [low, high]}


def _loaded(root: Path) -> float:
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", LOADING], cwd=root, env=env, capture_output=True, text=True, check=True)
    spent, holds, passes = ran.stdout.split()[-3:]
    assert holds == "True", ran.stdout
    print(root.name, spent, "CPU seconds,", passes, "passes", flush=True)
    return float(spent)


def main() -> None:
    """Measure what is missing."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--way", choices=WAYS, action="append", help="only by this")
    asked.add_argument("--cost", metavar="COMMIT", help="measure only what loading costs, next to this commit")
    asked.add_argument("--only", default="", help="classes, with commas between")
    options = asked.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if options.cost:
        results["load"] = cost_of(options.cost)
        print(results["load"]["ratio"], results["load"]["quartiles"])
    else:
        side_by_side(results, options.way or [*WAYS], {one for one in options.only.split(",") if one})
        print(json.dumps(results.get("counts"), indent=1))
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
