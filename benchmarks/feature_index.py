"""The feature index next to SAEDashboard: features per second for the same latents and tokens, and peak memory.

    python -m venv /tmp/sd && /tmp/sd/bin/pip install torch sae-dashboard
    python benchmarks/feature_index.py --peer /tmp/sd/bin/python

Each repeat of each way is a process of its own, in turn with the other, which reports its own seconds (loading not
counted) and its peak memory. Both read the same token ids through a GPT-2 of the same shape with random weights, and
the same autoencoder from the same folder; the peer runs in TransformerLens's format, as it must, and keeps the model's
activations on disk between its batches of latents, as it may. Random weights take as long as trained ones, except that
latents fire more evenly. Without `--peer` only the index is measured. Finished
repeats are kept under --work and not repeated. To see that it runs:

    python benchmarks/feature_index.py --layers 2 --width 64 --heads 2 --vocab 500 --length 32 --latents 128 --k 8 \
        --tokens 4096 --repeats 1 --name feature_index_tiny
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

SIZES = {"layers": 12, "width": 768, "heads": 12, "vocab": 50257, "length": 128, "latents": 4096, "k": 32}
OURS, PEERS, BAR = "interp", "SAEDashboard", 5.0
PEER = """
import json, resource, sys, time
import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE
from transformer_lens import HookedTransformer, HookedTransformerConfig
from pathlib import Path
from typing import Any
about = json.loads(sys.argv[1])
torch.set_num_threads(about["threads"]); torch.manual_seed(0)
model = HookedTransformer(HookedTransformerConfig(
    n_layers=about["layers"], d_model=about["width"], n_ctx=about["length"], d_head=about["width"] // about["heads"],
    n_heads=about["heads"], d_vocab=about["vocab"], act_fn="gelu_new", normalization_type="LN", device="cpu"))
sae = SAE.load_from_disk(about["sae"], device="cpu")
sae.fold_W_dec_norm = lambda: None  # rows have unit norm: folding changes nothing, and SAELens refuses it for TopK
tokens = torch.load(about["tokens"])
layer = about["layers"] // 2
config = SaeVisConfig(hook_point=f"blocks.{layer}.hook_resid_post", features=list(range(about["latents"])),
    minibatch_size_features=256, minibatch_size_tokens=32, device="cpu", verbose=False, cache_dir=Path(about["cache"]))
began = time.perf_counter()
SaeVisRunner(config).run(encoder=sae, model=model, tokens=tokens)
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def measured(python: str, code: list[str], about: dict[str, Any]) -> dict[str, float]:
    """Run one way in a process of its own."""
    ran = subprocess.run([python, *code, json.dumps(about)], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{python} failed:\n{ran.stderr[-2000:]}")
    return json.loads(ran.stdout.strip().splitlines()[-1])


def ours(about: dict[str, Any]) -> None:
    """Index once and say how long it took."""
    import resource
    import time

    import torch

    from hooks import load
    from interp.features import index
    from interp.sae import load as load_sae

    torch.set_num_threads(int(str(about["threads"])))
    model = load(hugging_face(about))
    sae, tokens = load_sae(str(about["sae"])), torch.load(str(about["tokens"]))
    sae.fingerprint = None
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        index(sae, model, tokens, folder, batch_size=32)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "mib": peak}))


def hugging_face(about: dict[str, Any]):  # noqa: ANN201
    """A GPT-2 with random weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size: dict[str, Any] = {"n_layer": about["layers"], "n_embd": about["width"], "n_head": about["heads"]}
    return GPT2LMHeadModel(GPT2Config(**size, vocab_size=about["vocab"], n_positions=about["length"]))


def prepared(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write the tokens and the autoencoder that both read."""
    import torch

    from hooks.site import resid_post
    from interp.sae import TopK, save

    about = {
        name: getattr(given, name) for name in ("layers", "width", "heads", "vocab", "length", "latents", "threads")
    }
    tokens = torch.randint(given.vocab, (given.tokens // given.length, given.length))
    torch.save(tokens, folder / "tokens.pt")
    sae = TopK(given.width, given.latents, k=given.k)
    sae.site, sae.model_name, sae.fingerprint = resid_post[given.layers // 2], "gpt2", "random"
    sae.max_activation.fill_(1.0)
    save(sae, folder / "sae")
    return about | {"tokens": str(folder / "tokens.pt"), "sae": str(folder / "sae")}


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    for name, value in (SIZES | {"tokens": 131072, "threads": 2, "repeats": 5}).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--peer", help="the Python of an environment with sae-dashboard")
    parser.add_argument("--name", default="feature_index", help="of the file in benchmarks/results")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "interp-feature-index"), help="kept runs")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        return ours(json.loads(given.ours))
    from timing import write

    figures = found(given, in_processes(given))
    for name, some in figures.items():
        print(name, some)
    print("written:", write(given.name, " ".join(["python", *sys.argv]), figures))
    return None


def in_processes(given: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Seconds and memory of each repeat of each way, in turn; those measured before are read."""
    sizes = [getattr(given, name) for name in (*SIZES, "tokens", "threads")]
    kept = Path(given.work) / f"{'-'.join(map(str, sizes))}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    ways = {OURS: (sys.executable, [__file__, "--ours"])} | ({PEERS: (given.peer, ["-c", PEER])} if given.peer else {})
    runs = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        about = prepared(given, Path(folder))
        for repeat in range(given.repeats):
            for name, (python, code) in ways.items():
                if len(runs.setdefault(name, [])) <= repeat:
                    about["cache"] = str(Path(folder) / f"cache-{repeat}")
                    runs[name].append(measured(python, code, about))
                    kept.write_text(json.dumps(runs), encoding="utf-8")
    return {name: runs[name][: given.repeats] for name in ways}


def found(given: argparse.Namespace, runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The figures, and the bar."""
    from timing import Timing

    timed = {name: Timing(tuple(run["seconds"] for run in some)) for name, some in runs.items()}
    figures: dict[str, object] = {
        name: {
            "features per second": given.latents / timed[name].median,
            "seconds": timed[name].seconds,
            "peak memory, MiB": max(run["mib"] for run in some),
        }
        for name, some in runs.items()
    }
    figures |= {"latents": given.latents, "tokens": given.tokens}
    if PEERS in timed:
        times = timed[OURS].times(timed[PEERS])
        figures["times the peer's features per second: median and quartiles"] = times
        figures["bar"] = f">= {BAR:g}: {'pass' if times[0] >= BAR else 'miss'}"
    return figures


if __name__ == "__main__":
    main()
