"""Attribution graphs of the bundled model's facts: what they explain, whether steering agrees, what a row costs.

`python benchmarks/graphs.py FOLDER...` reads transcoders that `benchmarks/cross_layer.py train` wrote, and writes
benchmarks/results/graphs.json, the tables of docs/story_of_a_fact.md, and with Chromium the picture of that page:

1. Scores of the graphs of 50 prompts, next to the same with decoders shuffled.
2. Supernodes turned down: the features of the subject and those of the rest of the prompt, and finer ones, of one token
   in a band of layers. The change of logits, of the answer and of other cities, as predicted and as measured, next to
   as many random features, and to predictions that are dealt out again; and the same with more and more of the model
   held as the graph holds it, which says what a wrong prediction misses.
3. A landmark's features put in another's place: what the model says then, next to features with others' decoders.
4. The cost of 100 rows, next to a forward and backward pass over the same 20 tokens, in CPU time, alternating.
5. The prompt of the story: its graph, the heads that carry it, and edges, causal tracing and the place for ROME.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Model, load  # noqa: E402
from interp import landmark  # noqa: E402
from interp.circuits.edges import FaithfulnessCurve, Task, eap_ig, edge_attribution, faithfulness_curve, random_scores  # noqa: E402
from interp.common.statistics import bootstrap, wilson  # noqa: E402
from interp.graphs import (  # noqa: E402
    AttributionGraph,
    Transcoders,
    attribute_score,
    attribution_graph,
    collect_feature_texts,
    edges_between,
    head_loadings,
    read_transcoders,
    scale_features,
    shuffle_decoders,
    steer_features,
)
from interp.graphs.cotangents import Sources, feature_targets, rows_of  # noqa: E402
from interp.graphs.local_model import LocalModel, local_models  # noqa: E402
from interp.landmark.relations import triples  # noqa: E402
from interp.memory import Subject, locate, trace_mlp  # noqa: E402
from interp.show import graph_page  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PAGE, PICTURE = ROOT / "docs" / "story_of_a_fact.md", ROOT / "docs" / "images" / "graph_of_a_fact.png"
STORY = "The Golden Gate Bridge is located in"
AFTER = 4  # tokens of " is located in"
BANDS = {"low": range(3), "middle": range(3, 6), "high": range(6, 8)}
RIVALS = 4  # other cities
EDGE_DRAWS = (2, 3, 4)  # seeds of the pairs that edge circuits are found on
HELD: dict[str, dict[str, Any]] = {  # in the model, besides feed-forward layers through the supernode's last
    "nothing": {},
    "patterns": {"hold": ("patterns",)},
    "patterns, norms": {"hold": ("patterns", "norms")},
    "patterns, norms, all feed-forward layers": {"hold": ("patterns", "norms"), "held_through": 7},
}
TOP = 100  # features with the most influence, of which supernodes are made
LATENTS, TOKENS, ROWS, BAR = 2048, 20, 100, 20.0


@dataclass(frozen=True)
class Prompt:
    """A fact that the model knows."""

    text: str
    name: str
    city: str
    answer: int
    length: int


def prompts(model: Model) -> list[Prompt]:
    """The city of each landmark that the model knows, in the words of the story."""
    found = []
    for triple in triples():
        if triple.relation.name == "located_in_city":
            text = f"{triple.subject.text} is located in"
            text = text[0].upper() + text[1:]
            length = model.tokens(text).ids.shape[1]
            answer = int(model.tokens(f"{text} {triple.object}").ids[0, length])
            if int(model.run(text)[0, -1].argmax()) == answer:
                found.append(Prompt(text, triple.subject.name, triple.object, answer, length))
    return found


def mean_of(values: Sequence[float]) -> dict[str, float]:
    """The mean with its 95 % bootstrap interval."""
    return vars(bootstrap(lambda rows: float(rows[0].mean()), [torch.tensor(values, dtype=torch.float64)]))


def share_of(values: Sequence[bool]) -> dict[str, float]:
    """A share with its 95 % interval."""
    return vars(wilson(sum(values) / len(values), len(values)))


def agreement(predicted: Tensor, measured: Tensor) -> dict[str, Any]:
    """How well predictions agree with what was measured."""
    left = float((measured - predicted).square().sum() / (measured - measured.mean()).square().sum())
    return {
        "n": len(predicted),
        "same_sign": share_of((predicted.sign() == measured.sign()).tolist()),
        "r2": 1 - left,
        "correlation": float(torch.corrcoef(torch.stack([predicted, measured]))[0, 1]),
        "same_sign_by_size": _by_size(predicted, measured),
        "mean_predicted": float(predicted.mean()),
        "mean_measured": float(measured.mean()),
    }


def _by_size(predicted: Tensor, measured: Tensor) -> list[dict[str, float]]:
    """The share of signs that agree, for each quarter of predictions, the largest first, with their mean size."""
    quarters = predicted.abs().argsort(descending=True).tensor_split(4)
    return [
        {
            "size": float(predicted[one].abs().mean()),
            **share_of((predicted[one].sign() == measured[one].sign()).tolist()),
        }
        for one in quarters
    ]


def scores(model: Model, given: Transcoders, chosen: list[Prompt]) -> dict[str, Any]:
    """The scores of the graphs, and of the same with decoders shuffled."""
    graphs = [attribution_graph(model, given, one.text) for one in chosen]
    broken = [attribution_graph(model, shuffle_decoders(given), one.text) for one in chosen]
    names = ("replacement", "completeness", "bias_share")
    rows: dict[str, Any] = {name: mean_of([getattr(graph, name) for graph in graphs]) for name in names}
    rows["shuffled"] = {name: mean_of([getattr(graph, name) for graph in broken]) for name in names}
    rows["features"] = mean_of([float(len(graph.local.active)) for graph in graphs])
    rows["closure"] = max(graph.closure for graph in graphs)
    return rows


def with_rivals(model: Model, given: Transcoders, one: Prompt, known: list[Prompt]) -> AttributionGraph:
    """The graph of the answer and of some other cities, which are given no weight by their probability."""
    others = sorted({prompt.answer for prompt in known} - {one.answer})
    words = [model.tokenizer.decode([i]) for i in (one.answer, *Random(one.text).sample(others, RIVALS))]
    return attribution_graph(model, given, one.text, targets=words)


def coarse(graph: AttributionGraph) -> dict[str, list[str]]:
    """The features of the most influence at the subject's tokens, and at those after it."""
    found: dict[str, list[str]] = {"subject": [], "rest": []}
    for name, _ in graph.top(TOP):
        pos = int(graph.nodes.pos[graph.nodes.number(name)])
        if pos:
            found["subject" if pos < len(graph.pieces) - AFTER else "rest"].append(name)
    return {name: members for name, members in found.items() if members}


def fine(graph: AttributionGraph) -> dict[str, list[str]]:
    """The features of the most influence at each token and band of layers."""
    found: dict[str, list[str]] = {}
    for name, _ in graph.top(TOP):
        number = graph.nodes.number(name)
        band = next(band for band, layers in BANDS.items() if int(graph.nodes.layer[number]) in layers)
        found.setdefault(f"{band}@{int(graph.nodes.pos[number])}", []).append(name)
    return found


def steering(
    graphs: list[AttributionGraph], groups: Callable[[AttributionGraph], dict[str, list[str]]], factor: float
) -> dict[str, Any]:
    """Every supernode of every prompt times a factor, and as many random features of the same prompt."""
    draw, found = Random(0), {name: list[Tensor]() for name in ("predicted", "measured", "random", "random predicted")}
    for graph in graphs:
        every = [name for name in graph.nodes.numbers if name[0] == "f"]
        for members in groups(graph).values():
            ours = steer_features(graph, scale_features(graph, members, factor))
            others = [name for name in every if name not in members]
            theirs = steer_features(
                graph, scale_features(graph, draw.sample(others, min(len(members), len(others))), factor)
            )
            found["predicted"].append(ours.predicted.double())
            found["measured"].append(ours.measured.double())
            found["random predicted"].append(theirs.predicted.double())
            found["random"].append(theirs.measured.double())
    whole = {name: torch.stack(rows) for name, rows in found.items()}
    dealt = whole["predicted"][torch.randperm(len(whole["predicted"]), generator=torch.Generator().manual_seed(0))]
    figures: dict[str, Any] = {}
    for name, columns in (("answer", slice(0, 1)), ("rivals", slice(1, None))):
        predicted, measured = (whole[key][:, columns].flatten() for key in ("predicted", "measured"))
        figures[name] = {
            "supernodes": agreement(predicted, measured),
            "predictions_dealt_anew": agreement(dealt[:, columns].flatten(), measured),
            "random_features": agreement(*(whole[key][:, columns].flatten() for key in ("random predicted", "random"))),
            "effect_size": float(measured.abs().mean()),
            "random_effect_size": float(whole["random"][:, columns].abs().mean()),
        }
    return figures


def held(graphs: list[AttributionGraph], groups: Callable[[AttributionGraph], dict[str, list[str]]]) -> dict[str, Any]:
    """Every supernode of every prompt turned off, with more and more held in the model."""
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in HELD}
    for graph in graphs:
        for members in groups(graph).values():
            off = scale_features(graph, members, 0.0)
            for name, what in HELD.items():
                found = steer_features(graph, off, **what)
                rows[name].append((found.predicted.double(), found.measured.double()))
    figures: dict[str, Any] = {}
    for name, pairs in rows.items():
        predicted, measured = (torch.stack([pair[i] for pair in pairs]) for i in range(2))
        figures[name] = {
            of: agreement(predicted[:, columns].flatten(), measured[:, columns].flatten())
            for of, columns in (("answer", slice(0, 1)), ("rivals", slice(1, None)))
        }
    return figures


def features_of(graph: AttributionGraph, layers: range) -> dict[str, float]:
    """The features that are on at the subject's tokens, in some layers."""
    nodes = graph.nodes
    here = (nodes.kind == 2) & (nodes.pos > 0) & (nodes.pos < len(graph.pieces) - AFTER)
    here &= torch.isin(nodes.layer, torch.tensor([*layers]))
    return {nodes.name(int(i)): float(nodes.a[i]) for i in here.nonzero().flatten()}


def swap(model: Model, given: Transcoders, one: Prompt, other: Prompt, layers: range) -> dict[str, Any]:
    """One landmark's features at its tokens put in the place of another's, which has as many tokens."""
    words = [model.tokenizer.decode([prompt.answer]) for prompt in (one, other)]
    graphs = [attribution_graph(model, given, prompt.text, targets=words, max_features=0) for prompt in (one, other)]
    off, on = (features_of(graph, layers) for graph in graphs)
    found = steer_features(graphs[0], dict.fromkeys(off, 0.0) | on)
    return {
        "from": one.name,
        "to": other.name,
        "said": found.likeliest[0][0],
        "p": found.likeliest[0][1],
        "as_asked": found.likeliest[0][0] == words[1],
        "own": found.likeliest[0][0] == words[0],
        "predicted": float(found.predicted[1] - found.predicted[0]),
        "measured": float(found.measured[1] - found.measured[0]),
        "needed": float(graphs[0].nodes.a[-2] - graphs[0].nodes.a[-1]),
    }


def swaps(model: Model, given: Transcoders, known: list[Prompt], count: int) -> dict[str, Any]:
    """Pairs of landmarks of as many tokens in other cities."""
    draw, pairs = Random(1), list[tuple[Prompt, Prompt]]()
    for one in draw.sample(known, len(known)):
        others = [other for other in known if other.length == one.length and other.answer != one.answer]
        if others:
            pairs.append((one, draw.choice(others)))
    rows: dict[str, Any] = {}
    for name, which, layers in (
        ("first layer", given, range(1)),
        ("all layers", given, range(8)),
        ("first layer, decoders shuffled", shuffle_decoders(given), range(1)),
    ):
        each = [swap(model, which, *pair, layers) for pair in pairs[:count]]
        figures = {key: share_of([row[key] for row in each]) for key in ("as_asked", "own")}
        predicted, measured = (torch.tensor([row[key] for row in each]).double() for key in ("predicted", "measured"))
        foretold = share_of([(row["predicted"] > row["needed"]) == row["as_asked"] for row in each])
        rows[name] = figures | {"agreement": agreement(predicted, measured), "flip_foretold": foretold}
        if name == "first layer":
            rows[name]["examples"] = each[:8]
    return rows


def cpu_ratio(way: Callable[[], object], other: Callable[[], object], repeats: int = 15) -> list[float]:
    """How many times the CPU time of the other a way takes, in turn: the quartiles."""
    ratios = []
    for _ in range(repeats):
        times = []
        for one in (way, other):
            began = time.process_time()
            one()
            times.append(time.process_time() - began)
        ratios.append(times[0] / times[1])
    return statistics.quantiles(ratios, n=4)


def cost(model: Model, given: Transcoders) -> dict[str, Any]:
    """100 rows of a prompt of 20 tokens, next to a plain pass forward and backward."""
    text = landmark.unseen_texts(model, 3, seed=5)[0]
    tokens = model.tokens(model.tokens(text).ids[:, :TOKENS])
    local: LocalModel = local_models(model, given, tokens)[0]
    which = torch.linspace(0, len(local.active) - 1, min(ROWS, len(local.active))).long()
    embedded = model.hf.get_input_embeddings()(tokens.ids).detach()

    def rows() -> None:
        with torch.no_grad():
            rows_of(Sources(local), feature_targets(local, which))

    def plain() -> None:
        x = embedded.clone().requires_grad_()
        model.hf(inputs_embeds=x).logits[0, -1].max().backward()

    parameters = [p for p in model.hf.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for way in (rows, plain) * 3:
        way()
    low, middle, high = cpu_ratio(rows, plain)
    for parameter in parameters:
        parameter.requires_grad_(True)
    return {
        "tokens": len(local.ids),
        "rows": len(which),
        "features": len(local.active),
        "times_a_pass": middle,
        "quartiles": [low, high],
        "bar": BAR,
        "pass": middle <= BAR,
    }


def story(model: Model, given: Transcoders, name: str, texts: list[str]) -> dict[str, Any]:
    """The graph of the story's prompt: supernodes, the edges between them, the heads, and a page of it."""
    graph = attribution_graph(model, given, STORY)
    control = attribution_graph(model, shuffle_decoders(given), STORY)
    top = [feature for feature, _ in graph.top(TOP)]
    last, said = len(graph.pieces) - 1, graph.nodes.name(len(graph.nodes) - 1)
    at = {feature: int(graph.nodes.pos[graph.nodes.number(feature)]) for feature in top}
    groups = {
        "the bridge": [feature for feature in top if 0 < at[feature] <= last - AFTER],
        "is located in": [feature for feature in top if last - AFTER < at[feature]],
    }
    loadings = head_loadings(graph, said)
    shares = edges_between(graph, groups | {"San": [said]})
    labels = collect_feature_texts(model, given, texts, top)
    off = {group: steer_features(graph, scale_features(graph, members, 0.0)) for group, members in groups.items()}
    figures = {
        "said": dict(zip(graph.said, graph.nodes.p[-len(graph.said) :].tolist(), strict=True)),
        "replacement": graph.replacement,
        "completeness": graph.completeness,
        "shuffled": {"replacement": control.replacement, "completeness": control.completeness},
        "closure": graph.closure,
        "features": len(graph.local.active),
        "top": [
            {"feature": feature, "influence": value, "label": labels[feature.partition("@")[0]].label}
            for feature, value in graph.top(12)
        ],
        "supernodes": {group: len(members) for group, members in groups.items()},
        "share_of_San": {group: float(shares[-1, i]) for i, group in enumerate(groups)},
        "heads": loadings.top(6, groups["the bridge"]),
        "through_no_head": float(loadings.direct.sum()),
        "scores_of_heads": _scores(graph, [name for name, _ in loadings.top(2, groups["the bridge"])]),
        "turned_off": {
            group: {
                "predicted": float(found.predicted[0]),
                "measured": float(found.measured[0]),
                "p": float(found.p[0]),
                "says": found.likeliest[:3],
            }
            for group, found in off.items()
        },
        "influence_by_layer": _by_layer(graph),
    }
    page = ROOT / "build" / "graphs" / f"{name}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    graph_page(page, graph, labels, supernodes=groups | {"San": [said]}, control=control)
    return figures


def _scores(graph: AttributionGraph, heads: list[str]) -> dict[str, Any]:
    """Why some heads look from the last token at the subject's: the pairs that add most to the score."""
    last, found = len(graph.pieces) - 1, dict[str, Any]()
    for name in heads:
        layer, head = map(int, name[1:].split("."))
        pattern = graph.local.layers[layer].pattern
        assert pattern is not None
        table = attribute_score(graph, layer, head, query=last, key=last - AFTER)
        found[name] = {"looks": pattern[head, last].tolist(), "score": table.score, "pairs": table.top(5)}
    return found


def _by_layer(graph: AttributionGraph) -> dict[str, list[float]]:
    """The influence of features and errors in each layer, at the subject's last token and at the prompt's."""
    nodes, whole = graph.nodes, float(graph.influence.sum())
    inner, last = (nodes.kind == 1) | (nodes.kind == 2), len(graph.pieces) - 1
    return {
        role: [
            float(graph.influence[inner & (nodes.layer == layer) & (nodes.pos == pos)].sum()) / whole
            for layer in range(len(graph.local.layers))
        ]
        for role, pos in (("last subject", last - AFTER), ("last prompt", last))
    }


def edges(model: Model, known: list[Prompt], seed: int) -> dict[str, Any]:
    """The circuit of edges of some of the prompts, measured on others."""
    draw, rows = Random(seed), list[tuple[Prompt, Prompt]]()
    for one in draw.sample(known, len(known)):
        others = [other for other in known if other.length == one.length and other.answer != one.answer]
        rows += [(one, draw.choice(others))] if others else []
    find, measure = (_task(part) for part in (rows[:8], rows[8:40]))
    found = edge_attribution(model, find, eap_ig(5))
    scores = {"eap_ig": found.scores("contribution"), "random": random_scores(found.graph, seed)}
    by_sender = found.contribution.sum(1).tolist()
    senders = dict(zip(found.graph.senders, by_sender, strict=True))
    return {
        "pairs": [len(rows[:8]), len(rows[8:40])],
        "cpr": {name: _cpr(faithfulness_curve(model, measure, score)) for name, score in scores.items()},
        "check": None if found.check is None else found.check.correlation,
        "heads": sorted(((n, v) for n, v in senders.items() if n[0] == "h"), key=lambda pair: -abs(pair[1]))[:6],
        "mlps": [senders[f"mlp{layer}"] for layer in range(model.n_layers)],
    }


def _cpr(curve: FaithfulnessCurve) -> dict[str, float]:
    """CPR, with its interval over the texts it is measured on."""
    rows = torch.arange(len(curve.whole))[:, None].float()
    return vars(bootstrap(lambda drawn: curve.of_texts(drawn[0][:, 0].long().tolist()).cpr, [rows], draws=200))


def elsewhere(model: Model, known: list[Prompt]) -> dict[str, Any]:
    """The edges of the same prompts, causal tracing, and where ROME would edit."""
    facts = [Subject(one.text, one.city, one.name) for one in known[:30]]
    trace, place = trace_mlp(model, facts, window=1, draws=4), locate(model, facts)
    effect = trace.average_indirect_effect
    return {
        "edges": [edges(model, known, seed) for seed in EDGE_DRAWS],
        "trace": {role: effect[trace.roles.index(role)].tolist() for role in ("last subject", "last prompt")},
        "rome": {"role": place.role, "layers": list(place.layers), "sure": place.sure},
    }


def _task(pairs: list[tuple[Prompt, Prompt]]) -> Task:
    right, wrong = (torch.tensor([pair[i].answer for pair in pairs]) for i in range(2))

    def metric(logits: Tensor) -> Tensor:
        return (logits.gather(1, right[:, None]) - logits.gather(1, wrong[:, None]))[:, 0]

    return Task([one.text for one, _ in pairs], [other.text for _, other in pairs], metric)


def ranks_agree(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's correlation."""
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def picture(page: Path) -> None:
    """What a window shows of the page, where there is Chromium."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is not None:
        quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1060"]
        subprocess.run([browser, *quiet, f"--screenshot={PICTURE}", page.as_uri()], check=True, capture_output=True)


def percent(share: dict[str, float]) -> str:
    """A share with its interval."""
    return f"{share['value']:.0%} ({share['low']:.0%} to {share['high']:.0%})"


def number(mean: dict[str, float]) -> str:
    """A mean with its interval."""
    return f"{mean['value']:.2f} ({mean['low']:.2f} to {mean['high']:.2f})"


def tables(figures: dict[str, Any]) -> dict[str, str]:
    """The tables of the page, by the name of their place."""
    names = list(figures["dictionaries"])
    rows = {name: figures["dictionaries"][name] for name in names}
    made = {
        "scores": [
            "| | features on | replacement | with decoders shuffled | completeness | with decoders shuffled |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {row['scores']['features']['value']:.0f} | {number(row['scores']['replacement'])} | "
                f"{number(row['scores']['shuffled']['replacement'])} | {number(row['scores']['completeness'])} | "
                f"{number(row['scores']['shuffled']['completeness'])} |"
                for name, row in rows.items()
            ),
        ],
        "steering": [
            "| | supernodes | times | logits of | n | same sign | R² | correlation | dealt again: same sign, R² "
            "| mean size of the effect, and of random features' |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {kind} | {factor} | {of} | {one['supernodes']['n']} | "
                f"{percent(one['supernodes']['same_sign'])} | {one['supernodes']['r2']:.2f} | "
                f"{one['supernodes']['correlation']:.2f} | {percent(one['predictions_dealt_anew']['same_sign'])}, "
                f"{one['predictions_dealt_anew']['r2']:.2f} | {one['effect_size']:.2f}, "
                f"{one['random_effect_size']:.2f} |"
                for name, row in rows.items()
                for kind, factors in row["steering"].items()
                for factor, both in factors.items()
                for of, one in both.items()
            ),
        ],
        "held": [
            "| | supernodes | logits of | held in the model | same sign | by size of the prediction | R² |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {kind} | {of} | {what} | {percent(one['same_sign'])} | "
                f"{', '.join(format(each['value'], '.0%') for each in one['same_sign_by_size'])} | {one['r2']:.2f} |"
                for name, row in rows.items()
                for kind, rungs in row["held"].items()
                for of in ("answer", "rivals")
                for what, both in rungs.items()
                for one in [both[of]]
            ),
        ],
        "swaps": [
            "| | features swapped | says the other's city | its own | change of the logit difference: same sign, R², "
            "correlation | flip predicted |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {which} | {percent(one['as_asked'])} | {percent(one['own'])} | "
                f"{percent(one['agreement']['same_sign'])}, {one['agreement']['r2']:.2f}, "
                f"{one['agreement']['correlation']:.2f} | {percent(one['flip_foretold'])} |"
                for name, row in rows.items()
                for which, one in row["swaps"].items()
            ),
        ],
    }
    return {place: "\n".join(lines) for place, lines in made.items()}


def write_tables(figures: dict[str, Any]) -> None:
    """Put the tables into the page, between their marks."""
    text = PAGE.read_text("utf-8")
    for place, table in tables(figures).items():
        text = re.sub(
            rf"(<!-- {place} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.S
        )
    PAGE.write_text(text, encoding="utf-8")


def parts(
    model: Model, folder: Path, known: list[Prompt], chosen: list[Prompt], texts: list[str]
) -> dict[str, Callable[[], Any]]:
    """What is measured of one dictionary, each part alone."""
    transcoders = read_transcoders(model, folder)

    def graphs() -> list[AttributionGraph]:
        return [with_rivals(model, transcoders, one, known) for one in chosen]

    def steered(kind: Callable[[AttributionGraph], dict[str, list[str]]], factors: Sequence[float]) -> dict[str, Any]:
        made = graphs()
        return {str(factor): steering(made, kind, factor) for factor in factors}

    return {
        "scores": lambda: scores(model, transcoders, chosen),
        "subject, rest": lambda: steered(coarse, (0.0, 0.5, 2.0)),
        "by token and layers": lambda: steered(fine, (0.0,)),
        "subject, rest, held": lambda: held(graphs(), coarse),
        "by token and layers, held": lambda: held(graphs(), fine),
        "swaps": lambda: swaps(model, transcoders, known, len(chosen)),
        "cost": lambda: cost(model, transcoders),
        "story": lambda: story(model, transcoders, folder.name, texts),
    }


def kept(work: Path, name: str, make: Callable[[], Any]) -> Any:
    """A part that was measured before, or is now."""
    file = work / f"{name}.json"
    if not file.exists():
        print(f"{name} ...", flush=True)
        file.write_text(json.dumps(make()), encoding="utf-8")
    return json.loads(file.read_text("utf-8"))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "graphs", help="where parts are kept")
    parser.add_argument("--tiny", action="store_true", help="a few prompts, nothing written to results and docs")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    model = load("landmark")
    known = prompts(model)
    chosen = Random(0).sample(known, min(3 if given.tiny else given.prompts, len(known)))
    texts = landmark.unseen_texts(model, 20 if given.tiny else 400, seed=40_000)
    rows: dict[str, Any] = {}
    for folder in given.folders:
        todo = parts(model, folder, known, chosen, texts)
        found = {name: kept(given.work, f"{folder.name}, {name}", make) for name, make in todo.items()}
        kinds = ("subject, rest", "by token and layers")
        steered = {kind: found.pop(kind) for kind in kinds if kind in found}
        rows[folder.name] = {"steering": steered, "held": {kind: found.pop(f"{kind}, held") for kind in kinds}} | found
    figures = {"model": model.name, "fingerprint": model.fingerprint, "prompts": len(chosen), "known": len(known)}
    figures |= {"dictionaries": rows, "elsewhere": kept(given.work, "elsewhere", lambda: elsewhere(model, known))}
    for row in rows.values():
        row["story"]["agrees_with"] = {
            role: ranks_agree(values, figures["elsewhere"]["trace"][role])
            for role, values in row["story"]["influence_by_layer"].items()
        }
    print(json.dumps(figures, indent=1), *tables(figures).values(), sep="\n\n")
    if not given.tiny:
        print(write("graphs", " ".join(["python benchmarks/graphs.py", *(one.name for one in given.folders)]), figures))
        write_tables(figures)
        picture(ROOT / "build" / "graphs" / f"{given.folders[0].name}.html")


if __name__ == "__main__":
    main()
