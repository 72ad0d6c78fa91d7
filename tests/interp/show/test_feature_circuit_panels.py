"""The panels of feature circuits show every node, edge and share that the circuit has, and their controls."""

import pytest

from hooks.site import mlp_out
from interp.circuits.known import skip_trio
from interp.common.statistics import Estimate
from interp.graphs.feature_circuits import (
    FeatureCircuit,
    FeatureFaithfulness,
    feature_circuit,
    feature_faithfulness,
)
from interp.sae import SAE
from interp.show import feature_circuit_panel, feature_faithfulness_panel
from tests.interp.graphs.feature_circuits.test_feature_circuit import identity

ERRORS = ("circuit", "keep", "remove")


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


def test_faithfulness_has_a_bar_with_its_interval_for_the_circuit_and_both_controls() -> None:
    shares = {
        name: {errors: Estimate(base - i / 10, base - 0.3, base + 0.2, 8) for i, errors in enumerate(ERRORS)}
        for name, base in (("circuit", 0.8), ("random", 0.2), ("complement", 0.1))
    }
    panel = feature_faithfulness_panel(FeatureFaithfulness(**shares, under_nodes=0.77, n_nodes=12))
    for bar, by_errors in zip(
        panel.body.data, (shares[name] for name in ("circuit", "random", "complement")), strict=True
    ):
        assert list(bar.y) == [by_errors[errors].value for errors in ERRORS]
        for y, up, down, one in zip(bar.y, bar.error_y.array, bar.error_y.arrayminus, by_errors.values(), strict=True):
            assert (y - down, y + up) == pytest.approx((one.low, one.high))
    assert "77%" in panel.caption and "over 8 pairs" in panel.control


def test_one_pair_of_texts_has_bars_without_intervals(circuit: FeatureCircuit, saes: list[SAE]) -> None:
    panel = feature_faithfulness_panel(feature_faithfulness(skip_trio().model, saes, circuit))
    assert not any(bar.error_y.visible for bar in panel.body.data) and "no interval" in panel.control
    assert panel.body.data[0].y[0] == pytest.approx(1.0)
