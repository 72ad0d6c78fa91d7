"""Every site of models that several processes compute together, against the same model in one process.

    python benchmarks/tensor_parallel.py [--world 2 4] [--family llama …]

makes small models of several families with random weights, shares each by transformers' own plan among processes joined
by gloo, and measures in every process, relative to the largest value of the site in the model of one process: each
site, the logits with a direction added at each site, each gradient, a continuation, the fingerprint, and the logits
after a change of every feed-forward output matrix. What the all-reduce adds up in another order differs by rounding;
how many sites are equal bit for bit is counted. Writes benchmarks/results/tensor_parallel.json.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.timing import write  # noqa: E402
from hooks import Model, capture, capture_gradients, intervene, load  # noqa: E402
from hooks.interventions import add  # noqa: E402
from hooks.position import last  # noqa: E402
from hooks.weights import matrix_of, write_matrix  # noqa: E402

COMMAND = "python benchmarks/tensor_parallel.py"
SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 4},
    "qwen2": {"num_key_value_heads": 4},
    "qwen3": {"num_key_value_heads": 4, "head_dim": 8},
    "phi3": {"num_key_value_heads": 4},
    "gemma2": {"num_key_value_heads": 4, "head_dim": 8},
    "olmo2": {"num_key_value_heads": 4},
    "granite": {"num_key_value_heads": 4},
    "mixtral": {"intermediate_size": 192, "num_key_value_heads": 4, "num_local_experts": 4},
}


def main() -> None:
    """Measure and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--family", nargs="*", default=[*FAMILIES], choices=[*FAMILIES])
    asked = parser.parse_args()
    results: dict[str, Any] = {}
    for family in asked.family:
        with tempfile.TemporaryDirectory() as folder:
            make_model(family).save_pretrained(folder)
            for world in asked.world:
                results[f"{family}, {world} processes"] = one = measure_in_processes(folder, world)
                print(family, world, one, flush=True)
        write("tensor_parallel", COMMAND, results)


def make_model(family: str) -> Any:
    """A small model of a family, of random weights, biases included."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SIZES | FAMILIES[family])))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.05) if weight.ndim > 1 else weight.add_(0.05 * torch.randn_like(weight))
    return model


def measure_in_processes(folder: str, world: int) -> dict[str, Any]:
    """What the worst process measures; its error where it raised."""
    with tempfile.TemporaryDirectory() as said:
        try:
            torch.multiprocessing.start_processes(_process, (folder, world, said), nprocs=world, start_method="fork")
        except Exception as error:
            return {"error": str(error).strip().splitlines()[-1]}
        return torch.load(Path(said) / "0.pt")


def _process(rank: int, folder: str, world: int, said: str) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.distributed.init_process_group("gloo", f"file://{said}/joined", rank=rank, world_size=world)
    asked = DistributedConfig(tp_plan="auto", tp_size=world)
    shared = load(AutoModelForCausalLM.from_pretrained(folder, distributed_config=asked))
    mine = compare(shared, load(AutoModelForCausalLM.from_pretrained(folder)))
    heard: list[Any] = [None] * world
    torch.distributed.all_gather_object(heard, mine)
    if rank == 0:
        worst = {key: max(one[key] for one in heard) if key in _WORST else mine[key] for key in mine}
        torch.save(worst, Path(said) / "0.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


_WORST = ("sites", "steered", "gradients", "edited")


def compare(shared: Model, whole: Model) -> dict[str, Any]:
    """How far a shared model is from the same model in one process, relative to the largest value there."""
    ids = torch.randint(3, 96, (2, 11), generator=torch.Generator().manual_seed(1))
    sites = [site for site in whole.sites if site in shared.sites]
    a, b = capture(shared, ids, sites).values, capture(whole, ids, sites).values
    equal = [str(site) for site in sites if torch.equal(a[site], b[site])]
    writable = [site for site in sites if not shared.tap(site).read_only and site.name != "expert_choice"]
    steered = []
    for site in writable:
        push = torch.randn(b[site].shape[2:], generator=torch.Generator().manual_seed(2))
        logits = []
        for model in (shared, whole):
            with torch.no_grad(), intervene(model, {site: add(push, at=last)}):
                logits.append(model.run(ids))
        steered.append(_miss(*logits))
    g, h = (capture_gradients(model, ids, writable, lambda logits: logits[:, -1, 5].sum()).gradients.values
            for model in (shared, whole))  # fmt: skip
    continued = [model.hf.generate(ids, max_new_tokens=8, do_sample=False) for model in (shared, whole)]
    result = {
        "sites read": len(sites),
        "bit-equal": len(equal),
        "refused": sorted({str(site.name) for site in {*whole.sites} - {*shared.sites}}),
        "contract holds": bool(shared.contract is not None and shared.contract.holds),
        "same fingerprint": shared.fingerprint == whole.fingerprint,
        "same continuation": torch.equal(*continued),
        "sites": max(_miss(a[site], b[site]) for site in sites),
        "steered": max(steered),
        "gradients": max(_miss(g[site], h[site]) for site in writable),
    }
    return result | {"edited": _edit(shared, whole, ids)}


def _edit(shared: Model, whole: Model, ids: Tensor) -> float:
    """Logits after the same change of each feed-forward output matrix."""
    for layer in range(whole.n_layers):
        if "mlp.out" not in whole.parts(layer):
            continue
        for model in (shared, whole):
            out = model.parts(layer)["mlp.out"]
            W = matrix_of(out)
            change = torch.randn(W.shape, generator=torch.Generator().manual_seed(3))
            write_matrix(out, W + 0.05 * change)
    with torch.no_grad():
        return _miss(shared.run(ids), whole.run(ids))


def _miss(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        return float("inf")
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30))


if __name__ == "__main__":
    main()
