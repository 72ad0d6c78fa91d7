"""Texts evolved for latents of a dictionary, next to real texts and to random directions.

python benchmarks/text_evolution.py FOLDER [LATENTS]     # of an autoencoder on the bundled model; writes results

`make workbench` once leaves a dictionary in build/workbench/sae. Bar: for 80 % of 50 latents a text above every real
one that is at most 2 nats a token less likely than the best real piece; all are read as their own tokens. It resumes
from what it kept in FOLDER/evolved.jsonl.
"""

import json
import sys
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Model, load  # noqa: E402
from hooks.rows import cut_texts  # noqa: E402
from interp import landmark  # noqa: E402
from interp.common.statistics import wilson  # noqa: E402
from interp.sae import SAE, activations_of  # noqa: E402
from interp.sae import load as load_sae  # noqa: E402
from interp.visualisation import (  # noqa: E402
    Objective,
    along,
    compare_with_texts,
    evolve_texts,
)
from interp.visualisation.objective import random_direction  # noqa: E402

LENGTH, STEPS, TEXTS, RANDOM, SEED = 8, 60, 300, 10, 0


def main(folder: Path, n: int) -> None:
    """Evolve for each latent, keep, print and write."""
    model, sae = load("landmark"), load_sae(folder)
    documents = [document.text for document in islice(landmark.documents(11), TEXTS)]
    texts = [piece for each in cut_texts(model, documents) for piece in each]
    kept = folder / "evolved.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    assert sae.site is not None
    wanted = [along(sae.direction(latent)) for latent in live(model, sae, texts, n)]
    random = [along(random_direction(model, sae.site, seed)) for seed in range(RANDOM)]
    for objective in [one for pair in zip_longest(wanted, random) for one in pair if one is not None][len(rows) :]:
        rows.append(measured(model, objective, texts))
        with kept.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], flush=True)
    ours = [row for row in rows if "random" not in row["objective"]]
    others = [row for row in rows if "random" in row["objective"]]
    figures = {
        "latents": len(ours),
        "above every real text within 2 nats": share([row["exceeds"] for row in ours]),
        "the same of random directions": share([row["exceeds"] for row in others]),
        "likely enough at all": share([row["likely"] for row in ours]),
        "read as their own tokens": share([row["read again"] for row in rows]),
        "rows": rows,
    }
    print(json.dumps({name: value for name, value in figures.items() if name != "rows"}, indent=1))
    write("text_evolution", f"python benchmarks/text_evolution.py FOLDER {n}", figures)


def share(held: list[bool]) -> dict[str, Any]:
    """A share with its Wilson interval."""
    return vars(wilson(sum(held) / len(held), len(held)))


def live(model: Model, sae: SAE, texts: list[str], n: int) -> list[int]:
    """Latents that fire on a thousandth to a tenth of tokens, drawn at random."""
    assert sae.site is not None
    fired = torch.zeros(sae.d_sae)
    tokens = 0
    for batch in activations_of(model, texts[:200], sae.site):
        fired += (sae.encode(batch) > 0).sum(0)
        tokens += len(batch)
    rate = fired / tokens
    found = ((rate > 1e-3) & (rate < 0.1)).nonzero().flatten()
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(SEED))][:n].tolist()


def measured(model: Model, objective: Objective, texts: list[str]) -> dict[str, Any]:
    """What evolution finds for one objective."""
    front = evolve_texts(model, objective, length=LENGTH, steps=STEPS, texts=texts[:8], seed=SEED)
    found = compare_with_texts(model, front, texts)
    again = [model.tokenizer(text)["input_ids"][1:] for text in front.texts] == front.ids.tolist()
    limit = found.natural_cross_entropy + found.within
    return {
        "objective": str(objective),
        "exceeds": found.exceeds,
        "likely": found.cross_entropy <= limit,
        "text": found.text,
        "value": found.value,
        "nats": found.cross_entropy,
        "natural": found.natural_text,
        "greatest": found.greatest,
        "natural nats": found.natural_cross_entropy,
        "read again": again,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50)
