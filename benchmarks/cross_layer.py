"""A cross-layer transcoder of the bundled model next to transcoders of one layer: `python benchmarks/cross_layer.py`.

`train FOLDER --reach 8` trains one, from a checkpoint where there is one (`--reach 1`: of one layer each, by the same
trainer). `calibrate FOLDER...` sets the one threshold of each to the value above which `--l0` latents per token are on
held-out documents, so that all are of one sparsity. `measure FOLDER...` says of each, on documents that neither the
model nor it has read, and that it was not calibrated on: the error of each layer, latents on and dead, and what the
model loses in cross-entropy, KL and next tokens when its feed-forward layers are replaced, all at once and one at a
time, next to the layers' means and to the same transcoder with its decoders shuffled; intervals are over texts.
`count` says how far the latents on per token differ over more text. `trio` trains both kinds on the skip-trio, a chain
A to B to C whose edges are known, at the same L0, and says how much of the answer goes through each step in either
graph.

`measure`, `count` and `trio` write into benchmarks/results/cross_layer.json.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Intervention, Model, Site, Tokens, capture, intervene, load, stream  # noqa: E402
from hooks.interventions import mean  # noqa: E402
from hooks.model import Text  # noqa: E402
from hooks.site import mlp_in, mlp_out  # noqa: E402
from interp import landmark  # noqa: E402
from interp.circuits.known import skip_trio  # noqa: E402
from interp.graphs import AttributionGraph, attribution_graph, cross_layer, neurons  # noqa: E402
from interp.graphs.nodes import FEATURE  # noqa: E402
from interp.sae import (  # noqa: E402
    Checkpoint,
    CrossLayerTranscoder,
    Schedule,
    Source,
    across,
    evaluate,
    fold_normalisation,
    normalise_source,
    replace_layers,
    rms_scaling,
    save,
    tensor_source,
    train,
)
from interp.sae import load as load_sae  # noqa: E402

DRAWS, SEEDS, YES = 2000, 5, 1


def pairs(model: Model, texts: list[str]) -> Source:
    """What every feed-forward layer reads, then what it writes."""
    places = [(model, site[layer]) for site in (mlp_in, mlp_out) for layer in range(model.n_layers)]
    return across(places, texts)


def train_one(given: argparse.Namespace) -> None:
    """Train and save one."""
    model = load("landmark")
    source = pairs(model, landmark.unseen_texts(model, given.documents, seed=21))
    scale = rms_scaling([*islice(source, 12)])
    clt = CrossLayerTranscoder(
        model.d_model,
        model.n_layers * given.latents,
        model.n_layers,
        k=given.k,
        reach=given.reach,
        pre_act_coefficient=given.lift,
        seed=given.seed,
    )
    folder = Path(given.folder)
    report = train(
        clt,
        normalise_source(source, scale),
        tokens=given.tokens,
        batch_size=1024,
        buffer=16_384,
        lr=given.lr,
        schedule=Schedule(warm_up=0.02, decay=0.3),
        dead_after=50_000,
        seed=given.seed,
        checkpoint=Checkpoint(folder / "run", every=200_000),
        progress=not given.quiet,
    )
    print(report)
    save(clt, folder)


def interval(per_text: Tensor, weights: Tensor) -> list[float]:
    """The weighted mean over texts, with the bounds of its 95 % bootstrap interval."""
    drawn = torch.randint(len(weights), (DRAWS, len(weights)), generator=torch.Generator().manual_seed(0))
    means = (per_text[drawn].sum(1) / weights[drawn].sum(1)).quantile(torch.tensor([0.025, 0.975]).double())
    return [float(per_text.sum() / weights.sum()), *means.tolist()]


Clean = list[tuple[Tokens, Tensor]]


@torch.no_grad()
def clean_runs(model: Model, texts: list[str]) -> Clean:
    """Texts in batches, with the log-probabilities of the model as it is."""
    batches = [acts.tokens for acts in stream(model, texts, [mlp_out[0]], batch_size=8)]
    return [(tokens, log_softmax(model.run(tokens)[:, :-1].double(), -1)) for tokens in batches]


@torch.no_grad()
def losses(model: Model, runs: Clean, changes: Mapping[Site, Intervention]) -> Tensor:
    """For each text, summed over its predictions: cross-entropy before and after, KL, same next token, predictions."""
    found = []
    for tokens, clean in runs:
        answered = tokens.content[:, :-1] & tokens.content[:, 1:]
        with intervene(model, {**changes}):
            changed = log_softmax(model.run(tokens)[:, :-1].double(), -1)
        answers = tokens.ids[:, 1:, None]
        each = [-clean.gather(2, answers)[..., 0], -changed.gather(2, answers)[..., 0]]
        each.append(kl_div(changed, clean, reduction="none", log_target=True).sum(-1))
        each.append((changed.argmax(-1) == clean.argmax(-1)).double())
        found.append(torch.stack([(part * answered).sum(1) for part in (*each, torch.ones_like(each[0]))], 1))
    return torch.cat(found)


def figures(model: Model, runs: Clean, changes: Mapping[Site, Intervention]) -> dict[str, Any]:
    """The figures of one change."""
    clean, changed, kl, same, n = losses(model, runs, changes).unbind(1)
    return {
        "cross_entropy_added": interval(changed - clean, n),
        "kl": interval(kl, n),
        "same_next_token": interval(same, n),
    }


@torch.no_grad()
def errors(clt: CrossLayerTranscoder, source: Source) -> tuple[list[float], list[float]]:
    """Per layer: E||y - y_hat||^2 / E||y - E y||^2, and latents on."""
    rows = torch.cat([*source])
    x, y = clt.parts(rows)
    y_hat = torch.cat([clt(part) for part in x.split(512)])
    on = torch.cat([(clt.encode(part) > 0).view(len(part), clt.n_layers, -1).sum(2) for part in x.split(512)])
    nmse = (y - y_hat).pow(2).sum((0, 2)) / (y - y.mean(0)).pow(2).sum((0, 2))
    return nmse.tolist(), on.double().mean(0).tolist()


@torch.no_grad()
def threshold_for(clt: CrossLayerTranscoder, source: Source, l0: float) -> tuple[float, int]:
    """The one threshold above which l0 latents per token are, and of how many tokens."""
    kept, n, floor = list[Tensor](), 0, None
    for rows in source:
        for x in clt.parts(rows)[0].split(512):
            z = clt.pre(x).flatten()
            floor = float(z.topk(int(3 * l0 * len(x))).values[-1]) if floor is None else floor
            kept.append(z[z > floor])
            n += len(x)
    return float(torch.cat(kept).topk(int(l0 * n)).values[-1]), n


def calibrate(given: argparse.Namespace) -> None:
    """Set the threshold of each, and save it."""
    model = load("landmark")
    source = pairs(model, landmark.unseen_texts(model, given.texts, seed=950_000))
    for folder in given.folders:
        clt = load_sae(folder)
        assert isinstance(clt, CrossLayerTranscoder)
        before = clt.threshold.unique().tolist()
        theta, n = threshold_for(clt, source, given.l0)
        with torch.no_grad():
            clt.threshold.fill_(theta)
        save(clt, folder)
        print(f"{folder}: threshold {before} -> {theta}, of {n} tokens", flush=True)


@torch.no_grad()
def count(given: argparse.Namespace) -> None:
    """Count the latents on per token of more documents than are measured, and write how far they differ."""
    model = load("landmark")
    texts, found, n = landmark.unseen_texts(model, given.texts, seed=970_000), dict[str, float](), 0
    source = across([(model, mlp_in[layer]) for layer in range(model.n_layers)], texts)
    for folder in given.folders:
        clt, on, n = fold_normalisation(load_sae(folder)), 0, 0
        assert isinstance(clt, CrossLayerTranscoder)
        for rows in source:
            on += sum(int((clt.pre(x) > clt.threshold).sum()) for x in rows.split(512))
            n += len(rows)
        found[Path(folder).name] = on / n
    row = {"tokens": n, "l0": found, "spread": max(found.values()) / min(found.values()) - 1}
    print(row, flush=True)
    keep({}, "l0_of_more_text", row)


def shuffled(clt: CrossLayerTranscoder) -> CrossLayerTranscoder:
    """The same with the decoders of each layer's latents permuted."""
    twin, random = copy.deepcopy(clt), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for D in twin.decoders():
            D.copy_(D[torch.randperm(len(D), generator=random)])
    return twin


def measured(
    model: Model, clt: CrossLayerTranscoder, texts: list[str], means: Tensor, *, brief: bool
) -> dict[str, Any]:
    """All figures of one; without those of single layers if brief."""
    theta = clt.threshold.unique()
    source, layers, runs = pairs(model, texts), range(model.n_layers), clean_runs(model, texts)
    quality = evaluate(clt, source)
    nmse, on = errors(clt, source)
    averages = {mlp_out[layer]: mean(means[layer]) for layer in layers}
    rows: dict[str, Any] = {
        "settings": clt.settings() | {"d_sae": clt.d_sae},
        "parameters": sum(p.numel() for p in clt.parameters()),
        "tokens_measured": quality.tokens,
        "threshold": theta.tolist() if len(theta) == 1 else None,
        "explained_variance": quality.explained_variance,
        "l0": quality.l0,
        "dead_share": quality.dead_share,
        "nmse_per_layer": nmse,
        "l0_per_layer": on,
        "all_replaced": figures(model, runs, replace_layers(clt)),
        "all_replaced_decoders_shuffled": figures(model, runs, replace_layers(shuffled(clt))),
        "all_means": figures(model, runs, averages),
    }
    if brief:
        return rows
    rows["one_replaced"] = [figures(model, runs, replace_layers(clt, [layer])) for layer in layers]
    rows["one_mean"] = [figures(model, runs, {mlp_out[layer]: averages[mlp_out[layer]]}) for layer in layers]
    return rows


def measure(given: argparse.Namespace) -> None:
    """Measure each, and write it next to what the file has of the same texts."""
    model = load("landmark")
    texts = landmark.unseen_texts(model, given.texts, seed=900_000)
    rows = torch.cat([*pairs(model, landmark.unseen_texts(model, 100, seed=950_000))])
    means = rows[:, model.n_layers :].mean(0).clone()
    del rows
    about = {"model": model.name, "fingerprint": model.fingerprint, "texts": len(texts)}
    for folder in given.folders:
        clt = fold_normalisation(load_sae(folder))
        assert isinstance(clt, CrossLayerTranscoder)
        began = time.process_time()
        row = measured(model, clt, texts, means, brief=given.brief)
        row["cpu_s"] = time.process_time() - began
        print(Path(folder).name, row, flush=True)
        keep(about, Path(folder).name, row)


def keep(about: dict[str, Any], name: str, row: Any) -> None:
    """Write one more figure into the file; those that are of other texts go."""
    file, before = RESULTS / "cross_layer.json", {}
    if file.exists():
        before = json.loads(file.read_text())["figures"]
    if any(before.get(key) != value for key, value in about.items()):
        before = {"skip_trio": before.get("skip_trio")}
    write("cross_layer", "python benchmarks/cross_layer.py", before | about | {name: row})


def trio(_: argparse.Namespace) -> None:
    """Both kinds on the skip-trio, at an L0 that is enough for all three steps and at one that is not."""
    known = skip_trio()
    random = torch.Generator().manual_seed(0)
    texts = torch.randint(2, 6, (8_000, 4), generator=random)
    texts[torch.rand(texts.shape, generator=random) < 0.25] = YES
    acts = capture(known.model, texts, [site[layer] for site in (mlp_in, mlp_out) for layer in range(3)])
    rows = torch.stack([acts[site].flatten(0, 1) for site in acts.sites], 1).float()
    exact = attribution_graph(known.model, neurons(known.model), known.task.clean, targets=[YES])
    found: list[dict[str, Any]] = [{"kind": "the model's own neurons"} | steps_of(exact)]
    for k in (0.3, 0.9):
        for kind, reach in (("per-layer", 1), ("cross-layer", 3)):
            drawn = [trio_of(known.model, known.task.clean, rows, k, reach, seed) for seed in range(SEEDS)]
            best = max(drawn, key=lambda one: one["explained_variance"])
            found.append({"kind": kind, "k": k, "best_of_seeds": best, "seeds": drawn})
            print(found[-1], flush=True)
    keep({}, "skip_trio", found)


def trio_of(model: Model, text: Text, rows: Tensor, k: float, reach: int, seed: int) -> dict[str, float]:
    """One of them: its quality, and the share of the answer that goes through features of each step."""
    clt = CrossLayerTranscoder(model.d_model, 3 * 8, 3, k=k, reach=reach, pre_act_coefficient=1e-6, seed=seed)
    source = normalise_source(tensor_source(rows), rms_scaling(tensor_source(rows)))
    quality = train(clt, source, tokens=200_000, batch_size=512, lr=1e-2, seed=seed, progress=False).quality
    clt.sites = tuple(site[layer] for site in (mlp_in, mlp_out) for layer in range(3))
    clt.fingerprint = None
    graph = attribution_graph(model, cross_layer(model, clt.double()), text, targets=[YES])
    return {"explained_variance": quality.explained_variance, "l0": quality.l0} | steps_of(graph)


def steps_of(graph: AttributionGraph) -> dict[str, float]:
    """The share of the answer's influence that goes through the features of each step, which has a layer each."""
    features = graph.nodes.kind == FEATURE
    return {
        f"through_{step}": float(graph.influence[features & (graph.nodes.layer == layer)].sum() / graph.nodes.p.sum())
        for layer, step in enumerate("ABC")
    }


def main() -> None:
    """Train or measure."""
    options = argparse.ArgumentParser(description=__doc__)
    verbs = options.add_subparsers(required=True)
    one = verbs.add_parser("train")
    one.add_argument("folder")
    one.add_argument("--latents", type=int, default=2048, help="of each layer")
    one.add_argument("--k", type=float, default=64, help="latents on per token, of all layers together")
    one.add_argument("--reach", type=int, default=8, help="layers that a latent writes to")
    one.add_argument("--tokens", type=int, default=2_000_000)
    one.add_argument("--documents", type=int, default=6000)
    one.add_argument("--lr", type=float, default=1e-3)
    one.add_argument(
        "--lift",
        type=float,
        default=1e-6,
        help="lambda_P, which lifts latents that are dead; 1e-4 lifts so many that the loss swings",
    )
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--quiet", action="store_true")
    one.set_defaults(do=train_one)
    many = verbs.add_parser("measure")
    many.add_argument("folders", nargs="+")
    many.add_argument("--texts", type=int, default=60)
    many.add_argument("--brief", action="store_true", help="not one layer at a time")
    many.set_defaults(do=measure)
    alike = verbs.add_parser("calibrate")
    alike.add_argument("folders", nargs="+")
    alike.add_argument("--texts", type=int, default=200)
    alike.add_argument("--l0", type=float, default=64, help="latents on per token, of all layers together")
    alike.set_defaults(do=calibrate)
    more = verbs.add_parser("count")
    more.add_argument("folders", nargs="+")
    more.add_argument("--texts", type=int, default=300)
    more.set_defaults(do=count)
    verbs.add_parser("trio").set_defaults(do=trio)
    given = options.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
