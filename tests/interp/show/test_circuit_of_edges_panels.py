"""The panels of edges show the numbers they are given, and their controls."""

import pytest
import torch

from hooks.errors import InvalidArgument
from interp.circuits.edges import eap, edge_attribution, exact_edges, faithfulness_curve, random_scores
from interp.circuits.known import induction_circuit
from interp.show import circuit_panel, faithfulness_panel


def test_every_edge_of_the_circuit_is_a_line_between_its_nodes_with_its_effect() -> None:
    known = induction_circuit(20.0)
    found = exact_edges(known.model, known.task)
    panel = circuit_panel(found, n_edges=3)
    *lines, nodes = panel.body.data
    assert [line.hovertemplate.split(":")[0] for line in lines] == list(known.edges)
    assert set(nodes.text) == {"embed", "h0.0", "h1.0", "logits"}
    at = dict(zip(nodes.text, zip(nodes.x, nodes.y, strict=True), strict=True))
    assert at["embed"][1] < at["h0.0"][1] < at["h1.0"][1] < at["logits"][1]
    for line, (sender, node) in zip(lines, (("embed", "h0.0"), ("h0.0", "h1.0"), ("h1.0", "logits")), strict=True):
        assert (line.x[0], line.y[0]) == at[sender]
        assert (line.x[2], line.y[2]) == at[node]
    assert "Not checked" in panel.control
    assert "WRONG here" in circuit_panel(edge_attribution(known.model, known.task, eap())).control


def test_a_faithfulness_panel_has_a_line_for_each_ranking_and_the_random_one_is_grey() -> None:
    known = induction_circuit(20.0)
    found = exact_edges(known.model, known.task)
    scores = {"exact": found.scores("contribution"), "random": random_scores(found.graph)}
    curves = [faithfulness_curve(known.model, known.task, score, name=name) for name, score in scores.items()]
    panel = faithfulness_panel(curves)
    for line, curve in zip(panel.body.data, curves, strict=True):
        torch.testing.assert_close(torch.tensor(line.y), curve.f.float(), check_dtype=False)
    assert panel.body.data[1].line.color != panel.body.data[0].line.color
    assert f"exact: CPR {curves[0].cpr:.3f}" in panel.caption
    with pytest.raises(InvalidArgument, match="no curves"):
        faithfulness_panel([])
