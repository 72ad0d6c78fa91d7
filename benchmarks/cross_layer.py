"""A cross-layer transcoder of the bundled model next to transcoders of one layer: `python benchmarks/cross_layer.py`.

`train FOLDER --reach 8` trains one, from a checkpoint where there is one (`--reach 1`: of one layer each, by the same
trainer; as many latents are on in training, but not by the thresholds that training ends with). `measure FOLDER...`
says of each, on documents that neither the model nor it has read: the error of each layer, latents on and dead, and
what the model loses in cross-entropy, KL and next tokens when its feed-forward layers are replaced, all at once and one
at a time, next to the layers' means and to the same transcoder with its decoders shuffled. Intervals are over texts.
Writes benchmarks/results/cross_layer.json.
"""

import argparse
import copy
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Intervention, Model, Site, intervene, load, stream  # noqa: E402
from hooks.interventions import mean  # noqa: E402
from hooks.site import mlp_in, mlp_out  # noqa: E402
from interp import landmark  # noqa: E402
from interp.sae import (  # noqa: E402
    Checkpoint,
    CrossLayerTranscoder,
    Schedule,
    Source,
    across,
    evaluate,
    folded,
    normalised,
    replace_layers,
    rms_scaled,
    save,
    train,
)
from interp.sae import load as load_sae  # noqa: E402

DRAWS = 2000


def pairs(model: Model, texts: list[str]) -> Source:
    """What every feed-forward layer reads, then what it writes."""
    places = [(model, site[layer]) for site in (mlp_in, mlp_out) for layer in range(model.n_layers)]
    return across(places, texts)


def train_one(given: argparse.Namespace) -> None:
    """Train and save one."""
    model = load("landmark")
    source = pairs(model, landmark.unseen_texts(model, given.documents, seed=21))
    scale = rms_scaled([*islice(source, 12)])
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
        normalised(source, scale),
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


@torch.no_grad()
def losses(model: Model, texts: list[str], changes: Mapping[Site, Intervention]) -> Tensor:
    """For each text, summed over its predictions: cross-entropy before and after, KL, same next token, predictions."""
    found = []
    for acts in stream(model, texts, [mlp_out[0]], batch_size=16):
        tokens = acts.tokens
        answered = tokens.content[:, :-1] & tokens.content[:, 1:]
        clean = log_softmax(model.run(tokens)[:, :-1].double(), -1)
        with intervene(model, {**changes}):
            changed = log_softmax(model.run(tokens)[:, :-1].double(), -1)
        answers = tokens.ids[:, 1:, None]
        each = [-clean.gather(2, answers)[..., 0], -changed.gather(2, answers)[..., 0]]
        each.append(kl_div(changed, clean, reduction="none", log_target=True).sum(-1))
        each.append((changed.argmax(-1) == clean.argmax(-1)).double())
        found.append(torch.stack([(part * answered).sum(1) for part in (*each, torch.ones_like(each[0]))], 1))
    return torch.cat(found)


def figures(model: Model, texts: list[str], changes: Mapping[Site, Intervention]) -> dict[str, Any]:
    """The figures of one change."""
    clean, changed, kl, same, n = losses(model, texts, changes).unbind(1)
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


def shuffled(clt: CrossLayerTranscoder) -> CrossLayerTranscoder:
    """The same with the decoders of each layer's latents permuted."""
    twin, random = copy.deepcopy(clt), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for D in twin.decoders():
            D.copy_(D[torch.randperm(len(D), generator=random)])
    return twin


def measured(model: Model, clt: CrossLayerTranscoder, texts: list[str], means: Tensor) -> dict[str, Any]:
    """All figures of one."""
    source, layers = pairs(model, texts), range(model.n_layers)
    quality = evaluate(clt, source)
    nmse, on = errors(clt, source)
    averages = {mlp_out[layer]: mean(means[layer]) for layer in layers}
    rows: dict[str, Any] = {
        "settings": clt.settings() | {"d_sae": clt.d_sae},
        "parameters": sum(p.numel() for p in clt.parameters()),
        "tokens_measured": quality.tokens,
        "explained_variance": quality.explained_variance,
        "l0": quality.l0,
        "dead_share": quality.dead_share,
        "nmse_per_layer": nmse,
        "l0_per_layer": on,
        "all_replaced": figures(model, texts, replace_layers(clt)),
        "all_replaced_decoders_shuffled": figures(model, texts, replace_layers(shuffled(clt))),
        "all_means": figures(model, texts, averages),
    }
    rows["one_replaced"] = [figures(model, texts, replace_layers(clt, [layer])) for layer in layers]
    rows["one_mean"] = [figures(model, texts, {mlp_out[layer]: averages[mlp_out[layer]]}) for layer in layers]
    return rows


def measure(given: argparse.Namespace) -> None:
    """Measure and write."""
    model = load("landmark")
    texts = landmark.unseen_texts(model, given.texts, seed=900_000)
    rows = torch.cat([*islice(pairs(model, landmark.unseen_texts(model, 200, seed=950_000)), 8)])
    means = rows[:, model.n_layers :].mean(0)
    found = {}
    for folder in given.folders:
        clt = folded(load_sae(folder))
        assert isinstance(clt, CrossLayerTranscoder)
        found[Path(folder).name] = measured(model, clt, texts, means)
        print(Path(folder).name, found[Path(folder).name], flush=True)
    about = {"model": model.name, "fingerprint": model.fingerprint, "texts": len(texts)}
    write("cross_layer", " ".join(["python benchmarks/cross_layer.py", *sys.argv[1:]]), about | {"figures": found})


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
    one.add_argument("--lift", type=float, default=1e-4, help="lambda_P, which lifts latents that are dead")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--quiet", action="store_true")
    one.set_defaults(do=train_one)
    many = verbs.add_parser("measure")
    many.add_argument("folders", nargs="+")
    many.add_argument("--texts", type=int, default=48)
    many.set_defaults(do=measure)
    given = options.parse_args()
    given.do(given)


if __name__ == "__main__":
    main()
