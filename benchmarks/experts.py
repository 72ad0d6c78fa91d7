"""What the experts of the world `experts` do, each figure with its control. `python benchmarks/experts.py`.

Writes benchmarks/results/experts.json. `--run FOLDER` adds how soon routing is settled, over a run's checkpoints;
`--part language` measures only what forcing the experts of a language does, `--part matrix-LAYER` only what leaving
each expert out costs, and the other figures are kept.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402

from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, intervene, load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.common.statistics import share  # noqa: E402
from interp.experts import (  # noqa: E402
    capture_routing,
    cluster_routing,
    find_expert_words,
    force_expert,
    measure_ablation,
    measure_ablation_matrix,
    measure_contributions,
    measure_saturation,
    measure_specialisation,
    measure_usage,
)
from interp.worlds import checkpoints, load_world, world  # noqa: E402

N = 160
COMMAND = "python benchmarks/experts.py --run RUN"


def sample() -> tuple[list[str], list[str], list[str]]:
    """Documents that no training read, their genres, and the language that most of each is in."""
    rows = landmark.corpus(N, seed=1_000_000)
    texts, genres, languages = [], [], []
    for row in rows:
        said: list[str] = row["language"]  # type: ignore[index]
        texts.append(row["text"])  # type: ignore[index]
        genres.append(row["genre"])  # type: ignore[index]
        languages.append(max({*said, ""}, key=said.count) or "english")
    return texts, genres, languages


def language() -> dict[str, Any]:
    """Whether forcing the experts that a language's tokens use most changes the language of what is written."""
    model, rows = load_world("experts"), landmark.corpus(600, seed=1_000_000)
    found: dict[str, Any] = {}
    plain = [row for row in rows if not any(row["language"])]  # type: ignore[arg-type]
    english = {word for row in plain for word in words(row["text"])}  # type: ignore[arg-type]
    for name in ("french", "german", "spanish"):
        spoken = [row for row in rows if name in row["language"]]  # type: ignore[operator]
        chosen, other = spoken[::2], spoken[1::2]
        ahead = lean(model, chosen, name)  # by layer and expert
        spans = [span for row in other for span in spans_of(model, row, name)]
        foreign = {word for row in spoken for span in spans_of(model, row, name) for word in words(span)} - english
        prompts = [" ".join(row["text"].split()[:6]) for row in plain[:40]]  # type: ignore[union-attr]
        starts = [" ".join(span.split()[:3]) for span in spans if len(span.split()) > 4][:40]
        random = torch.Generator().manual_seed(0)
        forced = {
            "its experts": ahead.argmax(1).tolist(),
            "random experts": torch.randint(ahead.shape[1], (len(ahead),), generator=random).tolist(),
        }
        said: dict[str, Any] = {
            "nothing forced": model.generate(prompts, max_new_tokens=16),
            "begun in it, nothing forced": model.generate(starts, max_new_tokens=16),
        }
        for way, experts in forced.items():
            changes = {site: change for i, e in enumerate(experts) for site, change in force_expert(i, e).items()}
            with intervene(model, {**changes}):
                said[way] = model.generate(prompts, max_new_tokens=16)
        found[name] = {
            way: asdict(share(torch.tensor([sum(w in foreign for w in words(t)) >= 2 for t in texts])))
            for way, texts in said.items()
        }
        found[name]["how much more its tokens use each expert"] = ahead.tolist()
        print(name, {way: e["value"] for way, e in found[name].items() if isinstance(e, dict)}, flush=True)
    found["words, by layer"] = {
        str(layer): {"bits": one.bits, "shuffled": one.shuffled, "of": one.token_bits}
        for layer, routing in capture_routing(model, [row["text"] for row in plain[:160]]).items()  # type: ignore[misc]
        for one in [find_expert_words(routing)]
    }
    return found


def words(text: str) -> list[str]:
    """The words of a text in small letters."""
    return re.findall(r"[^\W\d_]{2,}", text.lower())


def spans_of(model: Model, row: Any, name: str) -> list[str]:
    """The pieces of a document that are in a language."""
    spans, held = [], []
    for token, said in zip([*row["input_ids"], 0], [*row["language"], ""], strict=True):
        if said == name:
            held.append(token)
        elif held:
            spans, held = [*spans, model.tokenizer.decode(held).strip()], []
    return spans


def lean(model: Model, rows: list[Any], name: str) -> torch.Tensor:
    """How much more often each expert of each layer serves a token in a language than one in English."""
    routings = capture_routing(model, [row["text"] for row in rows])
    said = torch.tensor([one == name for row in rows for one in row["language"][1:]])
    found = []
    for routing in routings.values():
        assert len(routing) == len(said), "the labels are of other tokens"
        used = torch.nn.functional.one_hot(routing.choice, routing.n_experts).sum(1).double()
        found.append(used[said].mean(0) - used[~said].mean(0))
    return torch.stack(found)


def balanced(each: int) -> dict[str, tuple[list[str], list[str]]]:
    """As many documents of every genre, and as many of every language and of English; the label of each."""
    rows: Any = landmark.corpus(1200, seed=1_000_000)
    found: dict[str, tuple[list[str], list[str]]] = {}
    for what in ("genre", "language"):
        of: dict[str, list[str]] = {}
        for row in rows:
            said = row["language"]
            label = row["genre"] if what == "genre" else max({*said, ""}, key=said.count) or "english"
            of.setdefault(label, []).append(row["text"])
        kept = {label: texts[:each] for label, texts in of.items() if len(texts) >= each // 2}
        found[what] = [t for texts in kept.values() for t in texts], [k for k, texts in kept.items() for _ in texts]
    return found


def matrix(layer: int) -> dict[str, Any]:
    """What leaving each expert of a layer out costs each genre and language, next to one of nearly its load."""
    trained, found = load_world("experts"), {}
    load_of = measure_usage(capture_routing(trained, sample()[0])[layer]).load
    for what, (texts, labels) in balanced(8).items():
        one = measure_ablation_matrix(trained, texts, labels, layer, load_of)
        print(what, one, flush=True)
        found[what] = {
            "rows": [asdict(row) for row in one.rows],
            "p": one.p.tolist(),
            "dearest": [*one.dearest],
            "load": load_of.tolist(),
        }
    return found


def measure(run: Path | None) -> None:
    """Measure every layer of the trained model, an untrained one, and clusters of a dense model's states."""
    texts, genres, languages = sample()
    of = world("experts")
    trained, untrained = load_world("experts"), load(of.build(0), of.tokenizer(), check=False)
    found: dict[str, Any] = {}
    dense = cluster_routing(load("landmark"), texts, 8)
    routings = {f"trained, layer {i}": r for i, r in capture_routing(trained, texts).items()}
    routings |= {f"untrained, layer {i}": r for i, r in capture_routing(untrained, texts).items()}
    for name, routing in {**routings, "clusters of landmark's states": dense}.items():
        usage = measure_usage(routing)
        found[name] = {
            "load": usage.load.tolist(),
            "entropy of the load, bits": usage.entropy,
            "balance": usage.balance,
            "repetition": asdict(usage.repetition),
            "repetition by chance": usage.repetition_chance,
            **{f"bits of {what}": asdict(measure_specialisation(routing, labels, permutations=40))
               for what, labels in (("genre", genres), ("language", languages))},
        }  # fmt: skip
        print(name, found[name]["bits of genre"], found[name]["bits of language"], sep="\n", flush=True)
        write("experts", COMMAND, found)
    for layer in range(trained.n_layers):
        added = measure_contributions(trained, texts[:60], layer)
        found[f"contributions, layer {layer}"] = {"share": added.share.tolist(), "sum less block": added.worst}
    last = trained.n_layers - 1
    load_of = measure_usage(routings[f"trained, layer {last}"]).load
    costs = measure_ablation(trained, texts, languages, last, int(load_of.argmax()), load_of)
    print(costs)
    found["without an expert"] = asdict(costs)
    if run is not None:
        by_step = {s: capture_routing(load(m, check=False), texts[:80])[last] for s, m in checkpoints(run).items()}
        found["saturation"] = asdict(measure_saturation(by_step))
    write("experts", COMMAND, found)


PARTS: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
    ("language", "language forced", language),
    *((f"matrix-{i}", f"without each expert of layer {i}", partial(matrix, i)) for i in range(4)),
]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--part", choices=[part for part, _, _ in PARTS])
    given = parser.parse_args()
    file = RESULTS / "experts.json"
    if given.part is None:
        measure(given.run)
    for part, name, of in PARTS:
        if given.part in (None, part):
            figures = of()
            held = json.loads(file.read_text("utf-8"))["figures"]
            write("experts", COMMAND, {**held, name: figures})


if __name__ == "__main__":
    main()
