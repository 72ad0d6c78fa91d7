"""Texts evolved for latents of a dictionary, next to real texts and to random directions.

python benchmarks/text_evolution.py FOLDER [LATENTS]     # of an autoencoder on the bundled model; writes results

`make workbench` once leaves a dictionary in build/workbench/sae. Bar: for 80 % of 50 latents a text above every real
one that is at most 2 nats a token less likely than the best real piece; all are read as their own tokens. The texts
begin as the best pieces of real documents other than those compared with, and evolve in rounds until one is above
every real text or the rounds are over. It resumes from what it kept in FOLDER/evolved.jsonl. With 0 latents it only
measures how much context they need.
"""

import json
import sys
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Activations, Model, load, stream  # noqa: E402
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
from interp.visualisation.text_comparison import TextComparison  # noqa: E402
from interp.visualisation.text_evolution import TextFront, measure_texts  # noqa: E402
from interp.visualisation.writer import Writer  # noqa: E402

LENGTH, STEPS, ROUNDS, TEXTS, RANDOM, SEED = 16, 10, 4, 300, 10, 0
CHILDREN, CHOICES, BEGIN, PIECES, LATENTS = 16, 64, 8, 32, 50
RESULTS = Path(__file__).parent / "results" / "text_evolution.json"
REACH = "what the best real pieces of so many tokens reach alone, of the greatest in its own context"
WEIGHTS = tuple(10 ** (-1.5 + 2 * i / 7) for i in range(8))
"""λ from .03 to 3: at the texts that are as likely as real pieces, not at the likeliest of all."""


def main(folder: Path, n: int) -> None:
    """Evolve for each latent, keep, print and write."""
    model, sae = load("landmark"), load_sae(folder)
    documents = [document.text for document in islice(landmark.documents(11), 2 * TEXTS)]
    texts, others = (
        [piece for each in cut_texts(model, part) for piece in each] for part in (documents[:TEXTS], documents[TEXTS:])
    )
    kept = folder / "evolved.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    assert sae.site is not None
    chosen = live(model, sae, texts, LATENTS)
    reach = reach_of_pieces(model, [along(sae.direction(latent)) for latent in chosen], texts)
    if n == 0:
        before = json.loads(RESULTS.read_text(encoding="utf-8"))["figures"] if RESULTS.is_file() else {}
        print(write("text_evolution", "python benchmarks/text_evolution.py FOLDER 0", before | {REACH: reach}))
        return
    wanted = [along(sae.direction(latent)) for latent in chosen[:n]]
    random = [along(random_direction(model, sae.site, seed)) for seed in range(RANDOM)]
    rest = [one for pair in zip_longest(wanted, random) for one in pair if one is not None][len(rows) :]
    beginnings, real = (best_pieces(model, rest, part) if rest else [] for part in (others, texts))
    for objective, begin, pieces in zip(rest, beginnings, real, strict=True):
        rows.append(measured(model, objective, texts, begin[:BEGIN]) | above_alone(model, objective, pieces))
        rows[-1]["exceeds alone"] = rows[-1]["likely"] and rows[-1]["value"] > rows[-1]["greatest alone"]
        with kept.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], flush=True)
    ours = [row for row in rows if "random" not in row["objective"]]
    drawn = [row for row in rows if "random" in row["objective"]]
    figures = {
        "latents": len(ours),
        "above every real text within 2 nats": share([row["exceeds"] for row in ours]),
        "the same of random directions": share([row["exceeds"] for row in drawn]),
        "above the 32 best real pieces of as many tokens, read alone": share([row["exceeds alone"] for row in ours]),
        "the same of random directions, alone": share([row["exceeds alone"] for row in drawn]),
        "the texts it begins from": share([row["begins above"] for row in ours]),
        "the same of random directions, begun": share([row["begins above"] for row in drawn]),
        REACH: reach,
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


def best_pieces(model: Model, objectives: list[Objective], texts: list[str]) -> list[list[str]]:
    """For each objective, which is a direction, the pieces of texts that end where it is largest, largest first."""
    vectors = torch.stack([one.vector for one in objectives if one.vector is not None], 1)
    found = [list[tuple[float, str]]() for _ in objectives]
    for acts in stream(model, texts, [objectives[0].site]):
        row, column = acts.tokens.content.nonzero(as_tuple=True)
        late = acts.tokens.content.long().cumsum(1)[row, column] >= LENGTH
        row, column = row[late], column[late]
        values = acts[objectives[0].site][row, column] @ vectors
        best = values.topk(min(2 * PIECES, len(values)), dim=0)
        for i, kept in enumerate(found):
            for value, at in zip(best.values[:, i].tolist(), best.indices[:, i].tolist(), strict=True):
                ids = acts.tokens.ids[row[at], int(column[at]) - LENGTH + 1 : int(column[at]) + 1].tolist()
                text = model.tokenizer.decode(ids)
                if model.tokenizer(text)["input_ids"][1:] == ids:
                    kept.append((value, text))
    return [list(dict.fromkeys(text for _, text in sorted(kept, reverse=True)))[:PIECES] for kept in found]


def measured(model: Model, objective: Objective, texts: list[str], begin: list[str]) -> dict[str, Any]:
    """What evolution finds for one objective, in rounds of which each begins from the best texts of all before."""
    front = evolved(model, objective, begin, SEED)
    begun, rounds, found = front.begun, 1, compare_with_texts(model, front, texts)
    while not found.exceeds and rounds < ROUNDS:
        front = evolved(model, objective, next_beginning(model, front, found), SEED + rounds)
        rounds, found = rounds + 1, compare_with_texts(model, front, texts)
    return row_of(model, front, found) | {"steps": STEPS * rounds, "begins above": begun > found.greatest}


def evolved(model: Model, objective: Objective, begin: list[str], seed: int) -> TextFront:
    """One round."""
    return evolve_texts(
        model, objective, length=LENGTH, steps=STEPS, children=CHILDREN, choices=CHOICES, weights=WEIGHTS,
        texts=begin, seed=seed,
    )  # fmt: skip


def reach_of_pieces(model: Model, objectives: list[Objective], texts: list[str]) -> dict[str, Any]:
    """How much of the greatest value in context is left where the last 8, 12 or 16 tokens are read alone.

    Of the eight greatest tokens of each objective; a made text is as long and has no more context than such a piece.
    """
    writer, found = Writer(model, torch.Generator().manual_seed(SEED)), dict[str, Any]()
    read = [*stream(model, texts, [objectives[0].site])]
    tops = [greatest_tokens(one, read) for one in objectives]
    for length in (8, 12, 16):
        shares = []
        for objective, top in zip(objectives, tops, strict=True):
            ids = torch.tensor([ids[-length:] for _, ids in top if len(ids) >= length][:BEGIN])
            shares.append(float(measure_texts(model, objective, writer, ids).values.max()) / top[0][0])
        reached = torch.tensor(shares)
        found[f"{length} tokens"] = {
            "median": float(reached.median()),
            "at least 0.9": share((reached >= 0.9).tolist()),
            "below 0.6": share((reached < 0.6).tolist()),
        }
    return found


def greatest_tokens(objective: Objective, read: list[Activations]) -> list[tuple[float, list[int]]]:
    """The tokens an objective is largest at, largest first, each with the ids of its text up to it."""
    found = []
    for acts in read:
        row, column = acts.tokens.content.nonzero(as_tuple=True)
        assert objective.vector is not None
        best = (acts[objective.site][row, column] @ objective.vector).topk(2 * BEGIN)
        for value, at in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            found.append((value, acts.tokens.ids[row[at], 1 : int(column[at]) + 1].tolist()))
    return sorted(found, reverse=True)


def above_alone(model: Model, objective: Objective, pieces: list[str]) -> dict[str, float]:
    """The greatest value of real pieces that are read alone, as made texts are."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"][1:] for text in pieces])
    writer = Writer(model, torch.Generator().manual_seed(SEED))
    return {"greatest alone": float(measure_texts(model, objective, writer, ids).values.max())}


def next_beginning(model: Model, front: TextFront, found: TextComparison) -> list[str]:
    """Those of the frontier that are likely enough, the largest first."""
    kept = front.frontier.cross_entropies <= found.natural_cross_entropy + found.within
    ids = front.frontier.ids[kept if bool(kept.any()) else kept | True].flip(0)[:BEGIN]
    return model.tokenizer.batch_decode(ids.tolist(), clean_up_tokenization_spaces=False)


def row_of(model: Model, front: TextFront, found: TextComparison) -> dict[str, Any]:
    """What is kept of one objective."""
    again = [model.tokenizer(text)["input_ids"][1:] for text in front.texts] == front.ids.tolist()
    limit = found.natural_cross_entropy + found.within
    return {
        "objective": str(front.objective),
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
