"""Circuits: the attribution graph of a prompt, its nodes steered, and the edges that a difference runs through."""

import torch

from interp.circuits import logit_difference
from interp.circuits.edges import Task, eap_ig, edge_attribution, faithfulness_curve, random_scores
from interp.graphs import AttributionGraph, attribution_graph, scale_features, shuffle_decoders, steer_features
from interp.graphs.graph import warning_of
from interp.graphs.nodes import FEATURE
from interp.show.attribution_graph import graph_data
from interp.workbench.arguments import CircuitArguments, GraphArguments, SteerNodesArguments
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress, check_length
from interp.workbench.session import Session, name_of

LISTED = 20


def draw_graph(session: Session, given: GraphArguments, progress: Progress) -> Document:
    """The attribution graph of what comes after a text, next to the scores of one with its decoders shuffled."""
    check_length(session.model.tokens(given.text))
    transcoders, model = session.transcoders_of(given.transcoders), session.model
    graphs: list[AttributionGraph] = []
    for one in (transcoders, shuffle_decoders(transcoders)):
        progress.check()
        targets = given.targets or None
        made = attribution_graph(
            model, one, given.text, targets=targets, max_features=given.max_features, progress=False
        )
        graphs.append(made)
    graph, control = graphs
    value = [graph.replacement, control.replacement, *(influence for _, influence in graph.top(LISTED))]
    name = f"graph_{1 + sum(entry.kind == 'graph' for entry in session.entries)}"
    session.made.keep_graph(name, graph)
    called = name_of("transcoders", given.transcoders)
    how = f"{given.text!r}, targets={given.targets or None!r}, max_features={given.max_features}, progress=False"
    code = (
        f"{name} = attribution_graph(model, {called}, {how})\n"
        f"control = attribution_graph(model, shuffle_decoders({called}), {how})\n"
        f"value = [{name}.replacement, control.replacement, *(share for _, share in {name}.top({LISTED}))]"
    )
    session.record(Entry("graph", given.model_dump(), code, value))
    scores = {
        score: [getattr(graph, score), getattr(control, score)]
        for score in ("replacement", "completeness", "bias_share")
    }
    said = [[word, float(p)] for word, p in zip(graph.said, graph.nodes.p[-len(graph.said) :], strict=True)]
    return {
        "name": name,
        "by": transcoders.name,
        "said": said,
        "scores": scores,
        "warning": warning_of(graph) or "",
        "graph": graph_data(graph),
    }


def steer_nodes(session: Session, given: SteerNodesArguments, progress: Progress) -> Document:
    """What scaling some features does to the graph's logits: predicted by the graph, measured in the model.

    The control is as many other features of the same prompt, drawn at random, scaled alike.
    """
    graph = session.made.graph(given.graph)
    progress.check()
    activations = scale_features(graph, given.nodes, given.factor)
    others = other_features(graph, given.nodes, len(activations), given.seed)
    found = steer_features(graph, activations)
    control = steer_features(graph, scale_features(graph, others, given.factor)) if others else None
    value = [found.predicted.tolist(), found.measured.tolist()]
    code = (
        f"found = steer_features({given.graph}, scale_features({given.graph}, {given.nodes!r}, {given.factor!r}))\n"
        "value = [found.predicted.tolist(), found.measured.tolist()]"
    )
    session.record(Entry("steer_nodes", given.model_dump(), code, value))
    before = graph.nodes.p[-len(graph.said) :].tolist()
    rows = zip(graph.said, value[0], value[1], before, found.p.tolist(), strict=True)
    return {
        "logits": [
            {"token": word, "predicted": predicted, "measured": measured, "before": p, "after": after}
            for word, predicted, measured, p, after in rows
        ],
        "control": None if control is None else control.measured.tolist(),
        "others": others,
        "same_sign": found.same_sign,
        "likeliest": [list(one) for one in found.likeliest],
        "features": len(activations),
    }


def other_features(graph: AttributionGraph, nodes: list[str], n: int, seed: int) -> list[str]:
    """Features of the same prompt that are none of `nodes`, drawn at random: at most `n`, fewer where there are."""
    features = (graph.nodes.kind == FEATURE).nonzero().flatten().tolist()
    names = [name for name in (graph.nodes.name(node) for node in features) if name not in set(nodes)]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    return [names[i] for i in order[:n]]


def find_circuit(session: Session, given: CircuitArguments, progress: Progress) -> Document:
    """The edges that matter most to a difference, checked on a sample, and how faithful their circuits are."""
    for text in (given.clean, given.corrupt):
        check_length(session.model.tokens(text))
    model = session.model
    task = Task(given.clean, given.corrupt, logit_difference(model, given.right, given.wrong))
    progress.check()
    found = edge_attribution(model, task, eap_ig(given.steps), progress=False)
    progress.check()
    top = found.top(given.top)
    curves = [
        faithfulness_curve(model, task, scores, name=name, progress=False)
        for name, scores in ((found.how, found.scores("contribution")), ("random", random_scores(found.graph)))
    ]
    value = [curves[0].cpr, curves[1].cpr, *(effect for _, effect in top)]
    code = (
        f"task = Task({given.clean!r}, {given.corrupt!r}, logit_difference(model, {given.right!r}, {given.wrong!r}))\n"
        f"found = edge_attribution(model, task, eap_ig({given.steps}), progress=False)\n"
        "curves = [\n"
        "    faithfulness_curve(model, task, scores, progress=False)\n"
        "    for scores in (found.scores('contribution'), random_scores(found.graph))\n"
        "]\n"
        f"value = [curves[0].cpr, curves[1].cpr, *(effect for _, effect in found.top({given.top}))]"
    )
    session.record(Entry("circuit", given.model_dump(), code, value))
    return {
        "how": found.how,
        "n_edges": found.graph.n_edges,
        "edges": [[name, effect] for name, effect in top],
        "check": "" if found.check is None else str(found.check),
        "curves": [{"name": one.name, "cpr": one.cpr, "edges": list(one.real), "f": list(one.f)} for one in curves],
    }
