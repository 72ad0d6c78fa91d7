"""The panels of feature circuits show every node, edge and share that the circuit has, and their controls."""

import pytest

from hooks.site import mlp_out
from interp.circuits.known import skip_trio
from interp.graphs.feature_circuits import FeatureCircuit, feature_circuit, feature_faithfulness
from interp.sae import SAE
from interp.show import feature_circuit_panel, feature_faithfulness_panel
from tests.interp.graphs.feature_circuits.test_feature_circuit import identity


@pytest.fixture(scope="module")
def saes() -> list[SAE]:
    return [identity(mlp_out[layer], skip_trio().model.d_model) for layer in range(3)]


@pytest.fixture(scope="module")
def circuit(saes: list[SAE]) -> FeatureCircuit:
    known = skip_trio()
    return feature_circuit(known.model, saes, known.task, node_threshold=0.01, edge_threshold=0.01)


def test_every_node_is_a_mark_in_its_sites_row_and_every_edge_a_line_between_its_ends(circuit: FeatureCircuit) -> None:
    labels = {circuit.names[0]: "the first of the chain"}
    panel = feature_circuit_panel(circuit, labels=labels)
    *lines, marks = panel.body.data
    names = [hover.partition(":")[0] for hover in marks.customdata]
    assert names == [*circuit.names, "metric"] and "the first of the chain" in marks.customdata[0]
    at = dict(zip(names, zip(marks.x, marks.y, strict=True), strict=True))
    for name, (_, y) in at.items():
        assert panel.body.layout.yaxis.ticktext[int(y)] == (name.rpartition("/")[0] or "metric")
    edges = circuit.edges.above(circuit.edge_threshold)
    for line, (source, target, weight) in zip(lines, edges, strict=True):
        assert ((line.x[0], line.y[0]), (line.x[2], line.y[2])) == (at[source], at[target])
        assert f"{source} → {target}: {weight:+.4g}" in line.hovertemplate
    colours = dict(zip(names, marks.marker.color, strict=True))
    assert all((colours[name] == lines[0].line.color) == (circuit.effects.of(name) < 0) for name in circuit.names)
    assert f"{len(edges)} of {len(edges)} edges" in panel.caption and "Checked" in panel.control
    *few, _ = feature_circuit_panel(circuit, n_edges=1).body.data
    assert len(few) == 1 and f"1 of {len(edges)} edges" in feature_circuit_panel(circuit, n_edges=1).caption


def test_faithfulness_has_a_bar_with_its_interval_for_the_circuit_and_both_controls(
    circuit: FeatureCircuit, saes: list[SAE]
) -> None:
    found = feature_faithfulness(skip_trio().model, saes, circuit)
    panel = feature_faithfulness_panel(found)
    for bar, by_errors in zip(panel.body.data, (found.circuit, found.random, found.complement), strict=True):
        assert list(bar.y) == [by_errors[errors].value for errors in ("circuit", "keep", "remove")]
        lows = [y - below for y, below in zip(bar.y, bar.error_y.arrayminus, strict=True)]
        assert lows == pytest.approx([min(by_errors[e].low, by_errors[e].value) for e in ("circuit", "keep", "remove")])
    assert f"{found.under_nodes:.0%}" in panel.caption
