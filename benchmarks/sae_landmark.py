"""What dictionaries recover of the bundled model's known concepts: `python benchmarks/sae_landmark.py`.

Every token of the corpus says which entity and which topic it expresses, so that a latent can be right or wrong; of a
name's tokens the last counts, where it can first be known, and of a topic's sentence all. Three architectures at the
same sparsity and three seeds each learn one site in one pass; then, on documents that neither the model nor they have
read: the share of entities and of topics with a latent of held-out F1 >= 0.9, k-sparse probes, how many latents a
concept is split into, how often other latents have absorbed it, stability across seeds, and what the model loses by the
reconstruction. Next to each the same of an untrained dictionary. Writes benchmarks/results/sae_landmark.json.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Model, load  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp import landmark  # noqa: E402
from interp.sae import (  # noqa: E402
    SAE,
    BatchTopK,
    Interval,
    LabelledTokens,
    MatryoshkaBatchTopK,
    Member,
    TopK,
    absorption,
    activations_of,
    capture_labelled_tokens,
    compare,
    concept_recovery,
    k_sparse,
    recovery,
    stability,
    tensor_source,
    train_many,
)

COLUMNS = {"entity": "entities", "concept": "topics"}
PROBED = 4  # concepts of each kind that are probed one by one, the commonest
MAKE: dict[str, Callable[[int, int, int, int], SAE]] = {
    "TopK": lambda d, latents, k, seed: TopK(d, latents, k, seed=seed),
    "BatchTopK": lambda d, latents, k, seed: BatchTopK(d, latents, k, seed=seed),
    "Matryoshka": lambda d, latents, k, seed: MatryoshkaBatchTopK(
        d, latents, k, widths=(latents // 8, latents // 2), seed=seed
    ),
}


def commonest(data: LabelledTokens, n: int) -> list[str]:
    """The concepts of most tokens among those in at least four texts, two of each half."""
    halves = [data.choose_half(0), ~data.choose_half(0)]
    counted = {c: data.where(c) for c in set(data.concepts) - {""}}
    kept = {c: int(y.sum()) for c, y in counted.items() if all(len(data.text[y & h].unique()) > 1 for h in halves)}
    return sorted(kept, key=lambda c: (-kept[c], c))[:n]


def part(data: LabelledTokens, n: int) -> LabelledTokens:
    """The first n rows: probes one by one need no more."""
    return LabelledTokens(data.x[:n], data.concepts[:n], data.text[:n])


def probed(sae: SAE, data: LabelledTokens, concepts: list[str]) -> dict[str, float]:
    """Means over concepts: F1 of the best latent and of five, latents a concept is split into, absorption.

    Absorption is along the difference of means of the half that latents are chosen on, counted on the other.
    """
    if not concepts:
        raise ValueError(f"None of the concepts of {len(data.x)} rows is in four texts: take more by --probed.")
    chosen, sums = data.choose_half(0), torch.zeros(5)
    for concept in concepts:
        y, probe = data.where(concept), k_sparse(sae, data, concept)
        direction = data.x[chosen & y].mean(0) - data.x[chosen & ~y].mean(0)
        own = probe.latents[: probe.split]
        missed = absorption(sae, data.x[~chosen], y[~chosen], own, direction)
        sums += torch.tensor([probe.f1[0], probe.f1[-1], probe.split, missed.rate, missed.missed])
    names = ("F1 of one latent", "F1 of five", "latents of a concept", "absorbed", "own latents off")
    return dict(zip(names, (sums / len(concepts)).tolist(), strict=True))


def figures(
    sae: SAE, model: Model, data: Mapping[str, LabelledTokens], texts: list[str], probe_rows: int
) -> dict[str, float]:
    """Every figure of one dictionary."""
    found: dict[str, float] = {}
    for column, each in data.items():
        result, name = concept_recovery(sae, each), COLUMNS[column]
        found[f"share of {name} with a latent of F1 >= 0.9"] = result.share()
        found[f"mean F1 of {name}"] = sum(result.f1.values()) / len(result.f1)
        few = part(each, probe_rows)
        found |= {f"{name}: {what}": value for what, value in probed(sae, few, commonest(few, PROBED)).items()}
    lost = recovery(sae, model, texts)
    return found | {"cross-entropy recovered, of mean ablation": lost.of_mean, "KL, nats": lost.kl_sae}


def main() -> None:
    """Train, measure, print and write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--layer", type=int, default=3)
    options.add_argument("--latents", type=int, default=1024)
    options.add_argument("--k", type=int, default=8)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--documents", type=int, default=3000, help="that dictionaries are trained on")
    options.add_argument("--tokens", type=int, default=600_000, help="activations they are trained on")
    options.add_argument("--labelled", type=int, default=600, help="documents that they are measured on")
    options.add_argument("--probed", type=int, default=60_000, help="rows that concepts are probed on")
    given = options.parse_args()
    model, site = load("landmark"), resid_post[given.layer]
    source = activations_of(model, landmark.unseen_texts(model, given.documents, seed=11), site)
    d, seeds = model.d_model, range(given.seeds)
    members = {
        f"{kind} {seed}": Member(make(d, given.latents, given.k, seed), lr=2e-3)
        for kind, make in MAKE.items()
        for seed in seeds
    }
    train_many(members, source, tokens=given.tokens, batch_size=1024, buffer=1 << 20, dead_after=50_000)
    corpus = landmark.corpus(given.labelled, seed=landmark.UNSEEN + 12)
    data = {column: capture_labelled_tokens(model, corpus, site, column) for column in COLUMNS}
    data["entity"] = data["entity"].ends()
    saes = {kind: [members[f"{kind} {seed}"].sae for seed in seeds] for kind in MAKE}
    said = compare(saes, tensor_source(data["entity"].x))
    print(said, flush=True)
    untrained = [TopK(d, given.latents, given.k, seed=100 + seed) for seed in seeds]
    for sae in untrained:
        sae.objective().initialise(data["entity"].x)
        sae.site = site
    texts = corpus["text"][:16]
    rows: dict[str, Any] = {}
    for kind, each in (*saes.items(), ("untrained", untrained)):
        measured = [figures(sae, model, data, texts, given.probed) for sae in each]
        measures = {name: Interval.of([one[name] for one in measured]) for name in measured[0]}
        if len(each) > 1:
            pairs = stability([sae.W_dec.detach() for sae in each]).tolist()
            measures["stability across seeds"] = Interval.of(pairs)
        if kind in saes:
            measures |= {"explained variance": said.explained_variance(kind), "L0": said.l0(kind)}
            measures["dead share"] = said.dead_share(kind)
        print(f"{kind}\n" + "\n".join(f"  {name}: {interval}" for name, interval in measures.items()), flush=True)
        rows[kind] = {name: asdict(interval) for name, interval in measures.items()}
        about = {"site": str(site), "rows": len(data["entity"].x), "fingerprint": model.fingerprint}
        write("sae_landmark", " ".join(["python benchmarks/sae_landmark.py", *sys.argv[1:]]), about | {"figures": rows})


if __name__ == "__main__":
    main()
