"""Circuits against their truth, against a published implementation, and on the bundled model's facts.

`python benchmarks/circuits.py` prints three tables and writes benchmarks/results/circuits.json:

1. AUROC of every method on every known circuit, with what its own check says.
2. Time and memory of edge attribution on a GPT-2 of random weights; with `--peer FOLDER`, the `src` folder of a
   checkout of EAP-IG (Hanna et al. 2024), the same of it, and how far the two agree. Its scores are of a batch's mean
   metric divided by the batch's size: that is undone here by giving it the sum, and its device is set to the CPU.
3. CPR and CMD on landmark's facts, three draws of the texts that circuits are found on, measured on others.

`--redundancy DRAW` says why exact single effects rank below EAP-IG there, and adds it to that file: what the edges that
only one of the two takes do one by one and together, and the CPR of exact effects that are measured again as edges go.

`--tiny` runs small ones once, to see that it runs, and writes nothing.
"""

import argparse
import importlib
import json
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.random_gpt2 import hooked_settings  # noqa: E402
from benchmarks.timing import RESULTS, in_turn, peak_mb, write  # noqa: E402
from hooks import Model, load  # noqa: E402
from interp.circuits.edges import (  # noqa: E402
    Circuit,
    EdgeEffect,
    FaithfulnessCurve,
    Slope,
    Task,
    acdc,
    clean_corrupt,
    eap,
    eap_ig,
    edge_attribution,
    edge_graph,
    exact_edges,
    faithfulness_curve,
    gim,
    prune_edges,
    random_scores,
    relp,
    run_circuit,
    top_circuit,
)
from interp.circuits.known import (  # noqa: E402
    KnownCircuit,
    and_gate,
    edge_auroc,
    induction_circuit,
    or_gate,
    proportion_circuit,
    reverse_circuit,
    skip_trio,
)
from interp.common.statistics import Estimate, bootstrap  # noqa: E402
from interp.landmark.relations import triples  # noqa: E402

SLOPES: dict[str, Slope] = {
    "EAP": eap(),
    "EAP-IG 5": eap_ig(5),
    "EAP-IG 5, left": eap_ig(5, rule="left"),
    "EAP-IG 50": eap_ig(50),
    "clean-corrupt": clean_corrupt(),
    "RelP": relp(),
    "GIM": gim(),
}
FASTER, SMALLER, ALIKE = 4.0, 0.5, 1e-5
TEMPLATES = ("{} is located in", "{} can be found in", "{} stands in")


def known_circuits() -> list[KnownCircuit]:
    """Every known circuit, at attention both soft and hard."""
    attention = (3.0, 6.0, 20.0)
    return [
        *(induction_circuit(scale) for scale in attention),
        induction_circuit(20.0, change="answer"),
        reverse_circuit(6.0),
        reverse_circuit(20.0),
        proportion_circuit(),
        and_gate(),
        or_gate(),
        skip_trio(),
    ]


def recovery(known: KnownCircuit) -> dict[str, Any]:
    """The AUROC of every method on a known circuit, and whether its check would have said that it is wrong."""
    found: dict[str, Any] = {"exact": {"auroc": known.auroc(exact_edges(known.model, known.task))}}
    for name, slope in SLOPES.items():
        effect = edge_attribution(known.model, known.task, slope)
        found[name] = {"auroc": known.auroc(effect), "trusted": effect.check is not None and effect.check.trusted}
    kept = acdc(known.model, known.task, 1e-3).circuit
    found["ACDC"] = {"auroc": edge_auroc(known.circuit, kept.mask.double())}
    pruned = prune_edges(known.model, known.task, len(known.edges), steps=200)
    found["edge pruning"] = {"auroc": edge_auroc(known.circuit, pruned.log_alpha)}
    found["random"] = {"auroc": edge_auroc(known.circuit, random_scores(known.circuit.graph))}
    return found


def random_gpt2(tiny: bool) -> Any:
    """A GPT-2 of random weights, not at its initialisation, where all is almost linear."""
    import transformers

    sizes: dict[str, Any] = (
        {"n_layer": 2, "n_head": 2, "n_embd": 16} if tiny else {"n_layer": 6, "n_head": 8, "n_embd": 256}
    )
    torch.manual_seed(0)
    hf = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=1000, n_positions=64, **sizes)).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return hf


def peer_scores(folder: Path, hf: Any, clean: Tensor, corrupt: Tensor) -> Callable[[int], Tensor]:
    """The published implementation, on the same weights and tokens: from steps (0 for EAP) to its scores."""
    from transformer_lens import HookedTransformer
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    settings = hooked_settings(hf, use_attn_result=True, use_split_qkv_input=True, use_hook_mlp_in=True)
    theirs = HookedTransformer(settings)
    theirs.load_state_dict(convert_gpt2_weights(hf, settings), strict=False)
    attribute, graph = _peer_modules(folder, clean, corrupt)
    made = graph.Graph.from_model(theirs)

    def metric(logits: Tensor, *_: object) -> Tensor:
        return (logits[:, -1, 5] - logits[:, -1, 6]).sum()

    def scores(steps: int) -> Tensor:
        loader = [(["clean"] * len(clean), ["corrupt"] * len(clean), None)]
        if steps:
            return attribute.get_scores_eap_ig(theirs, made, loader, metric, steps=steps, quiet=True)
        return attribute.get_scores_eap(theirs, made, loader, metric, quiet=True)

    return scores


def _peer_modules(folder: Path, clean: Tensor, corrupt: Tensor) -> tuple[Any, Any]:
    """Its modules with the device set to the CPU, without drawings, and reading these tokens."""
    copy = Path(tempfile.mkdtemp())
    (copy / "eap").mkdir()
    for file in (folder / "eap").glob("*.py"):
        text = file.read_text().replace("'cuda'", "'cpu'").replace('"cuda"', '"cpu"')
        (copy / "eap" / file.name).write_text("" if file.name == "__init__.py" else text)
    sys.path.insert(0, str(copy))
    drawing = types.ModuleType("eap.visualization")
    drawing.__dict__.update(get_color=None, generate_random_color=None)
    sys.modules["eap.visualization"] = drawing
    attribute, graph = importlib.import_module("eap.attribute"), importlib.import_module("eap.graph")

    def tokenize(_: object, texts: list[str], **__: object) -> tuple[Tensor, Tensor, Tensor, int]:
        tokens = clean if texts[0] == "clean" else corrupt
        return tokens, torch.ones_like(tokens), torch.full((len(tokens),), tokens.shape[1]), tokens.shape[1]

    attribute.__dict__["tokenize_plus"] = tokenize
    return attribute, graph


def speed(peer: Path | None, tiny: bool) -> dict[str, Any]:
    """Seconds and megabytes of EAP and EAP-IG with five steps; next to the peer's, if it is there."""
    hf = random_gpt2(tiny)
    n_texts, n_pos = (2, 6) if tiny else (8, 16)
    draw = torch.Generator().manual_seed(1)
    clean = torch.randint(10, 1000, (n_texts, n_pos), generator=draw)
    corrupt = clean.clone()
    corrupt[:, 1:3] = torch.randint(10, 1000, (n_texts, 2), generator=draw)
    theirs = None if peer is None else peer_scores(peer, hf, clean, corrupt)
    model = load(hf, check=False)
    task = Task(clean, corrupt, lambda logits: logits[:, 5] - logits[:, 6])
    figures: dict[str, Any] = {"edges": edge_graph(model).n_edges, "texts": n_texts, "tokens": n_pos}
    for name, steps, slope in (("EAP", 0, eap()), ("EAP-IG 5, left", 5, eap_ig(5, rule="left"))):

        def ours(slope: Slope = slope) -> EdgeEffect:
            return edge_attribution(model, task, slope, sample=0)

        ways: dict[str, Callable[[], object]] = {"ours": ours}
        if theirs is not None:
            ways["theirs"] = lambda steps=steps: theirs(steps)
        times = in_turn(ways, repeats=1 if tiny else 5, warm_up=0 if tiny else 1)
        row: dict[str, Any] = {f"{way}_s": timed.median for way, timed in times.items()}
        row |= {f"{way}_mb": peak_mb(run) for way, run in ways.items()}
        if theirs is not None:
            one, other = ours().effect, theirs(steps)
            row["largest_difference"] = float((one - other).abs().max() / other.abs().max())
            row["times_faster"] = times["ours"].times(times["theirs"])[0]
        figures[name] = row
    return figures


def facts(model: Model, count: int, seed: int) -> tuple[list[str], list[str], Tensor, Tensor]:
    """Pairs of prompts of equal length about landmarks in two cities, both known: clean, corrupt, and the answers."""
    draw = Random(seed)
    by_length: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for triple in triples():
        if triple.relation.name == "located_in_city":
            for template in TEMPLATES:
                text = template.format(triple.subject.text)
                text = text[0].upper() + text[1:]
                answer = model.tokens(f"{text} {triple.object}").ids[0]
                length = len(model.tokens(text).ids[0])
                if int(model.run(text)[0, -1].argmax()) == int(answer[length]):
                    by_length.setdefault((template, length), []).append((text, int(answer[length])))
    pairs = [
        (one, other)
        for group in by_length.values()
        for one, other in zip(draw.sample(group, len(group)), draw.sample(group, len(group)), strict=True)
        if one[1] != other[1]
    ]
    chosen = draw.sample(pairs, min(count, len(pairs)))
    right, wrong = (torch.tensor([pair[i][1] for pair in chosen]) for i in range(2))
    return [one[0] for one, _ in chosen], [other[0] for _, other in chosen], right, wrong


def task_about(chosen: tuple[list[str], list[str], Tensor, Tensor], rows: slice) -> Task:
    """The task of some of the pairs: one city over the other."""
    clean, corrupt = chosen[0][rows], chosen[1][rows]
    right, wrong = chosen[2][rows], chosen[3][rows]

    def metric(logits: Tensor) -> Tensor:
        return (logits.gather(1, right[:, None]) - logits.gather(1, wrong[:, None]))[:, 0]

    return Task(clean, corrupt, metric)


def area(curve: FaithfulnessCurve, which: str) -> Estimate:
    """CPR or CMD, with its interval over the texts it is measured on."""
    rows = torch.arange(len(curve.whole))[:, None].float()
    return bootstrap(lambda drawn: getattr(curve.of_texts(drawn[0][:, 0].long().tolist()), which), [rows], draws=200)


def draw_of_facts(model: Model, seed: int, tiny: bool) -> dict[str, Any]:
    """CPR and CMD of each method, found on some pairs and measured on others."""
    found_on, count = (2, 6) if tiny else (8, 32)
    chosen = facts(model, count, seed)
    find, measure = task_about(chosen, slice(0, found_on)), task_about(chosen, slice(found_on, None))
    rankings: dict[str, EdgeEffect] = {
        "EAP-IG": edge_attribution(model, find, eap_ig(5), sample=0 if tiny else 24),
        "EAP": edge_attribution(model, find, eap(), sample=0 if tiny else 24),
        "RelP": edge_attribution(model, find, relp(), sample=0),
    }
    if not tiny:
        rankings["exact"] = exact_edges(model, find)
    figures: dict[str, Any] = {}
    for name, effect in rankings.items():
        curves = {
            which: faithfulness_curve(model, measure, effect.scores(by), name=name)
            for which, by in (("cpr", "contribution"), ("cmd", "size"))
        }
        figures[name] = {which: vars(area(curve, which)) for which, curve in curves.items()}
        figures[name]["log_area"] = curves["cpr"].log_area
        if effect.check is not None:
            figures[name]["correlation with exact"] = effect.check.correlation
    floor = faithfulness_curve(model, measure, random_scores(edge_graph(model), seed), name="random")
    figures["random"] = {"cpr": vars(area(floor, "cpr")), "cmd": vars(area(floor, "cmd")), "log_area": floor.log_area}
    return figures


def redundancy(model: Model, seed: int) -> dict[str, Any]:
    """Edges of the smallest circuits that only EAP-IG or only exact single effects take: one by one, and together.

    Redundant edges do little one by one, as the others do the work of the one that is corrupted, and more together.
    """
    chosen = facts(model, 32, seed)
    find, measure = task_about(chosen, slice(0, 8)), task_about(chosen, slice(8, None))
    graph, exact = edge_graph(model), exact_edges(model, find)
    single, ig = exact.scores("contribution"), edge_attribution(model, find, eap_ig(5), sample=0).scores("contribution")
    sizes = [int(share * graph.n_edges) for share in (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)]
    masks = [top_circuit(graph, scores, sizes[1]).mask for scores in (ig, single)]
    whole = float(run_circuit(model, find, Circuit.whole(graph)).mean())
    figures: dict[str, Any] = {"way": float((exact.clean - exact.corrupt).mean()), "edges": sizes[1]}
    for name, mask in (("EAP-IG only", masks[0] & ~masks[1]), ("exact only", masks[1] & ~masks[0])):
        left = float(run_circuit(model, find, Circuit(graph, graph.allowed & ~mask)).mean())
        sums = {"one_by_one": float(single[mask].sum()), "together": whole - left}
        figures[name] = {"edges": int(mask.sum())} | sums
    candidates = top_circuit(graph, ig, sizes[0]).mask | top_circuit(graph, single, sizes[0]).mask
    rankings = {
        "EAP-IG": ig,
        "exact": single,
        "exact, measured again": measured_again(model, find, single, candidates, sizes),
    }
    for name, scores in rankings.items():
        curve = faithfulness_curve(model, measure, scores, name=name)
        figures[name] = {"cpr": vars(area(curve, "cpr")), "log_area": curve.log_area, "f": curve.f.tolist()}
    return figures


def measured_again(model: Model, task: Task, single: Tensor, candidates: Tensor, sizes: list[int]) -> Tensor:
    """Scores by backward elimination: of what is left, the exact effect of each edge in the circuit that is left."""
    graph, left = edge_graph(model), candidates.clone()
    scores = single.double().clamp(-900, 900) - 1000
    for step, size in enumerate([*sizes, 0]):
        places = left.nonzero()
        without = [Circuit(graph, left & ~graph.mask([graph.name(*edge)])) for edge in places.tolist()]
        m = run_circuit(model, task, [Circuit(graph, left), *without], batch_size=128).mean(1).double()
        scores[places[:, 0], places[:, 1]] = (m[0] - m[1:]).cpu() + 1000 * step
        left = top_circuit(graph, scores.masked_fill(~left, float("-inf")), size).mask if size else left & False
    return scores


def print_recovery(rows: dict[str, dict[str, Any]]) -> None:
    """The table of AUROC; a star where the method's own check calls it wrong."""
    names = list(next(iter(rows.values())))
    print("\nAUROC of true edges; * where the result's own check says that the estimate is wrong")
    print("circuit".ljust(40) + "".join(name.rjust(16) for name in names))
    for circuit, row in rows.items():
        cells = [f"{row[name]['auroc']:.3f}{'' if row[name].get('trusted', True) else '*'}" for name in names]
        print(circuit.ljust(40) + "".join(cell.rjust(16) for cell in cells))


def print_facts(draws: list[dict[str, Any]]) -> None:
    """CPR of each draw, and whether exact >= EAP-IG >= EAP >= random."""
    for i, row in enumerate(draws):
        print(f"\nlandmark's facts, draw {i}: CPR, CMD with 95 % intervals over texts, area over log size")
        for name, value in row.items():
            cpr, cmd = value["cpr"], value["cmd"]
            print(
                f"  {name:<8} {cpr['value']:.3f} [{cpr['low']:.3f}, {cpr['high']:.3f}]  "
                f"{cmd['value']:.3f} [{cmd['low']:.3f}, {cmd['high']:.3f}]  {value['log_area']:.3f}"
            )
        order = [row[name]["cpr"]["value"] for name in ("exact", "EAP-IG", "EAP", "random") if name in row]
        print(f"  exact >= EAP-IG >= EAP >= random: {'pass' if order == sorted(order, reverse=True) else 'miss'}")


def add_redundancy(draw: int) -> None:
    """Measure the redundancy of a draw of the facts, print it, and add it to the results."""
    found = redundancy(load("landmark"), draw)
    print(found)
    file = RESULTS / "circuits.json"
    written = json.loads(file.read_text())
    written["figures"]["facts"][draw]["redundancy"] = found
    file.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="the `src` folder of a checkout of EAP-IG")
    parser.add_argument("--redundancy", type=int, metavar="DRAW", help="of which draw of the facts")
    parser.add_argument("--tiny", action="store_true", help="small ones, once, nothing written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.redundancy is not None:
        add_redundancy(given.redundancy)
        return
    chosen = known_circuits()[-2:] if given.tiny else known_circuits()
    rows = {known.name: recovery(known) for known in chosen}
    print_recovery(rows)
    times = speed(given.peer, given.tiny)
    print("\ntime and memory:", *(f"\n  {name}: {row}" for name, row in times.items()))
    for name in ("EAP", "EAP-IG 5, left"):
        row = times[name]
        if "theirs_s" in row:
            good = row["times_faster"] >= FASTER and row["ours_mb"] <= SMALLER * row["theirs_mb"]
            good = good and row["largest_difference"] <= ALIKE
            print(f"  {name}: a quarter of the time, half of the memory, equal to 1e-5: {'pass' if good else 'miss'}")
    model = load("landmark")
    draws = [draw_of_facts(model, seed, given.tiny) for seed in range(1 if given.tiny else 3)]
    print_facts(draws)
    if not given.tiny:
        figures = {"recovery": rows, "speed": times, "facts": draws}
        print(write("circuits", "python benchmarks/circuits.py --peer EAP-IG/src", figures))


if __name__ == "__main__":
    main()
