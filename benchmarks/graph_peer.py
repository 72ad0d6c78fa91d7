"""Attribution graphs next to circuit-tracer's own, of the same prompts over the same transcoder.

`python benchmarks/graph_peer.py FOLDER --peer SITE` reads a cross-layer transcoder that `benchmarks/cross_layer.py
train` wrote, gives it to circuit-tracer (Hanna, Piotrowski et al. 2025) in its own files, and the bundled model's
weights in a HookedTransformer. SITE is a folder in which its package is installed, such as `pip install --no-deps
--target SITE circuit-tracer` makes it. For each prompt it says how far the rows of the two agree, and how many times
our CPU time theirs takes, in turn, each at its own default and theirs also at the fastest of several batch sizes.

circuit-tracer sets features and errors at the first token to zero, so columns of the first token are compared by
themselves; it has no bias nodes, so its rows do not sum to what features read: how much of each row is missing is said.
Written to benchmarks/results/graph_peer.json.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.graphs import TOKENS, prompts  # noqa: E402
from benchmarks.random_gpt2 import hooked_settings  # noqa: E402
from benchmarks.timing import write  # noqa: E402
from hooks import Model, load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.graphs import AttributionGraph, Transcoders, attribution_graph, cross_layer  # noqa: E402
from interp.graphs.nodes import ERROR, FEATURE, LOGIT, TOKEN  # noqa: E402
from interp.sae import CrossLayerTranscoder, fold_normalisation, save_cross_layer  # noqa: E402
from interp.sae import load as load_sae  # noqa: E402

BATCHES = (32, 128, 512)
DEFAULT, REPEATS = 512, 2
READS = "mlp.hook_in"  # after the norm, where ours read


def peer_model(model: Model, clt: CrossLayerTranscoder) -> Any:
    """The bundled model as circuit-tracer's, with the transcoder read from circuit-tracer's own files."""
    replacement = importlib.import_module("circuit_tracer.replacement_model.replacement_model_transformerlens")
    files = importlib.import_module("circuit_tracer.transcoder.cross_layer_transcoder")
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    settings = hooked_settings(model.hf, model_name=model.name)
    with tempfile.TemporaryDirectory() as folder:
        save_cross_layer(clt, folder)
        theirs = files.load_clt(
            folder,
            feature_input_hook=READS,
            feature_output_hook="hook_mlp_out",
            lazy_decoder=False,
            lazy_encoder=False,
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
    made = replacement.TransformerLensReplacementModel.from_config(settings, theirs)
    made.tokenizer = model.tokenizer  # it asks which tokens are special
    weights = convert_gpt2_weights(model.hf, settings)
    weights = {_inner(name): value for name, value in weights.items()}
    made.load_state_dict(weights, strict=False)
    ids = model.tokens("The bridge is located in").ids
    with torch.no_grad():
        off = float((model.run(ids) - made(ids)).abs().max())
    if off > 1e-3:
        raise SystemExit(f"the two models' logits differ by {off}")
    return made


def _inner(name: str) -> str:
    """The name of a weight inside the modules that circuit-tracer wraps."""
    return name.replace(".mlp.", ".mlp.old_mlp.").replace("unembed.", "unembed.old_unembed.")


def compare(graph: AttributionGraph, theirs: Any) -> dict[str, Any]:
    """How far the rows of both agree."""
    ours, names = graph.nodes, _names(theirs)
    columns = {name: i for i, name in enumerate(names)}
    rows = [*theirs.selected_features.tolist(), *range(len(names) - len(theirs.logit_probabilities), len(names))]
    at = {names[column]: row for row, column in enumerate(rows)}
    n = len(rows)
    matrix = theirs.adjacency_matrix
    matrix = torch.cat([matrix[: len(theirs.selected_features)], matrix[-len(theirs.logit_probabilities) :]])
    assert len(matrix) == n
    keys = [_key(ours, i) for i in range(len(ours))]
    both_rows = [(row, at[keys[node]]) for row, node in enumerate(graph.rows.tolist()) if keys[node] in at]
    shared = [(i, columns[key]) for i, key in enumerate(keys) if key in columns and ours.kind[i] != LOGIT]
    later = [(i, j) for i, j in shared if int(ours.pos[i]) or ours.kind[i] == TOKEN]
    first = [(i, j) for i, j in shared if not int(ours.pos[i]) and ours.kind[i] != TOKEN]
    mine, yours = ([pair[k] for pair in both_rows] for k in (0, 1))
    A = graph.A[mine]
    other = matrix[yours]
    left, right = A[:, [i for i, _ in later]], other[:, [j for _, j in later]]
    target = graph.value[mine]
    return {
        "tokens": len(graph.pieces),
        "rows_ours": len(graph.rows),
        "rows_both": len(both_rows),
        "columns_both": len(later),
        "largest_difference": float((left - right).abs().max() / left.abs().max()),
        "first_token_zeroed": float(other[:, [j for _, j in first]].abs().max()) if first else 0.0,
        "first_token_share": float(A[:, [i for i, _ in first]].abs().sum() / A.abs().sum()) if first else 0.0,
        "row_misses_theirs": float(((other.sum(1) - target).abs() / target.abs().clamp(min=1e-6)).median()),
        "row_misses_ours": graph.closure,
    }


def _names(theirs: Any) -> list[tuple[Any, ...]]:
    """What each column of circuit-tracer's matrix is."""
    layers, tokens = theirs.cfg.n_layers, theirs.n_pos
    found: list[tuple[Any, ...]] = [
        (FEATURE, layer, pos, latent) for layer, pos, latent in theirs.active_features.tolist()
    ]
    found += [(ERROR, layer, pos) for layer in range(layers) for pos in range(tokens)]
    found += [(TOKEN, pos) for pos in range(tokens)]
    return found + [(LOGIT, target.vocab_idx) for target in theirs.logit_targets]


def _key(nodes: Any, i: int) -> tuple[Any, ...]:
    kind, layer, pos, index = (int(part[i]) for part in (nodes.kind, nodes.layer, nodes.pos, nodes.index))
    if kind == FEATURE:
        return (FEATURE, layer, pos, index)
    return (ERROR, layer, pos) if kind == ERROR else (TOKEN, pos) if kind == TOKEN else (LOGIT, index)


def cpu_s(way: Callable[[], object]) -> float:
    """The CPU time of a call."""
    began = time.process_time()
    way()
    return time.process_time() - began


def main() -> None:
    """Compare, time in turn, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", type=Path, required=True, help="a folder with circuit-tracer installed in it")
    parser.add_argument("--prompts", type=int, default=4)
    given = parser.parse_args()
    sys.path.append(str(given.peer))
    torch.set_num_threads(1)
    constants = importlib.import_module("huggingface_hub.constants")
    if not hasattr(constants, "HF_HUB_ENABLE_HF_TRANSFER"):
        setattr(constants, "HF_HUB_ENABLE_HF_TRANSFER", False)  # noqa: B010 - newer ones lack it, and the peer imports it
    attribute = importlib.import_module("circuit_tracer.attribution.attribute").attribute

    model = load("landmark")
    clt = fold_normalisation(load_sae(given.folder))
    assert isinstance(clt, CrossLayerTranscoder)
    ours, theirs = cross_layer(model, clt), peer_model(model, clt)
    known = prompts(model)
    texts = [one.text for one in Random(0).sample(known, given.prompts)]
    ids = [
        model.tokens(landmark.unseen_texts(model, 3, seed=5)[0]).ids[:, :TOKENS],
        *(model.tokens(t).ids for t in texts),
    ]
    rows = []
    for one in ids:
        rows.append(measured(model, ours, theirs, one, attribute))
        print(rows[-1], flush=True)
    figures = {
        "model": model.name,
        "prompts": rows,
        "largest_difference": max(row["largest_difference"] for row in rows),
        "first_token_share": statistics.median(row["first_token_share"] for row in rows),
        "row_misses_theirs": statistics.median(row["row_misses_theirs"] for row in rows),
        "row_misses_ours": max(row["row_misses_ours"] for row in rows),
        "times_our_cpu": {
            str(size): statistics.median(row["times_our_cpu"][str(size)] for row in rows) for size in BATCHES
        },
        "default_batch": DEFAULT,
    }
    print(write("graph_peer", "python benchmarks/graph_peer.py clt --peer SITE", figures))


def measured(
    model: Model, ours: Transcoders, theirs: Any, ids: Tensor, attribute: Callable[..., Any]
) -> dict[str, Any]:
    """One prompt."""
    graph, peer = attribution_graph(model, ours, ids), attribute(ids[0], theirs, batch_size=BATCHES[0])
    times: dict[str, list[float]] = {str(size): [] for size in BATCHES}
    for _ in range(REPEATS):
        mine = cpu_s(lambda: attribution_graph(model, ours, ids))
        for size in BATCHES:
            times[str(size)].append(cpu_s(lambda b=size: attribute(ids[0], theirs, batch_size=b)) / mine)
    return {
        "prompt": graph.text,
        **compare(graph, peer),
        "times_our_cpu": {size: statistics.median(each) for size, each in times.items()},
    }


if __name__ == "__main__":
    main()
