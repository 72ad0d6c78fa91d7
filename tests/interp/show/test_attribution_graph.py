"""A graph's drawing and page show what the graph holds, and the page can be walked, pinned and grouped."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hooks.errors import InvalidArgument, UnknownName
from interp.graphs import (
    AttributionGraph,
    FeatureText,
    attribution_graph,
    collect_feature_texts,
    cross_layer,
    edges_between,
    per_layer,
    shuffle_decoders,
)
from interp.sae import Transcoder
from interp.show import graph_page, graph_panel
from tests.interp.circuits.edges.twins import double
from tests.interp.graphs.test_attribution_graph import TEXT, clt, transcoders
from tests.interp.show.test_browser import CHROMIUM, CONTRAST, Browser

NEEDS_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.fixture(scope="module")
def graph() -> AttributionGraph:
    model = double("gpt2")
    return attribution_graph(model, cross_layer(model, clt()), TEXT)


@pytest.fixture(scope="module")
def texts(graph: AttributionGraph) -> dict[str, FeatureText]:
    names = [name for name in graph.nodes.numbers if name[0] == "f"]
    local = graph.local
    return collect_feature_texts(local.model, local.transcoders, ["fog over the bay", "a <b>hat"], names, top=2)


@pytest.fixture(scope="module")
def groups(graph: AttributionGraph) -> dict[str, list[str]]:
    kept, _ = graph.prune()
    names = [graph.nodes.name(i) for i in kept.nonzero().flatten().tolist()]
    low, high = ([name for name in names if name[0] == "f" and name[1] in at][:4] for at in ("0", "12"))
    return {"low": low, "high": high, "said": [names[-1]]}


@pytest.fixture(scope="module")
def page(
    graph: AttributionGraph,
    texts: dict[str, FeatureText],
    groups: dict[str, list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    local = graph.local
    control = attribution_graph(local.model, shuffle_decoders(local.transcoders), TEXT)
    path = tmp_path_factory.mktemp("graph") / "graph.html"
    return graph_page(path, graph, texts, supernodes=groups, control=control)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    yield opened
    opened.close()


def data_of(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"))
    assert found is not None
    return json.loads(found[1])


def test_every_kept_node_and_edge_is_drawn_with_the_share_that_the_graph_has(
    graph: AttributionGraph, page: Path
) -> None:
    kept, edges = graph.prune()
    data, html = data_of(page), page.read_text("utf-8")
    assert [node["name"] for node in data["nodes"]] == [graph.nodes.name(i) for i in kept.nonzero().flatten().tolist()]
    assert html.count('class="node ') == int(kept.sum()) and html.count('<path class="edge ') == int(edges.sum())
    for s, t, share, value in data["edges"][::37]:
        source, target = (data["nodes"][end]["name"] for end in (s, t))
        assert value == pytest.approx(graph.edge(source, target), rel=1e-4)
        assert share == pytest.approx(value / float(graph.A[graph.row(target)].abs().sum()), rel=1e-3)
    assert "{" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.S)


def test_a_notebook_shows_the_drawing_with_its_scores_and_the_warning_of_skipped_layers(
    graph: AttributionGraph,
) -> None:
    model = graph.local.model
    alone = attribution_graph(model, per_layer(model, transcoders(Transcoder)), TEXT)
    shown = graph._repr_html_()
    assert "<svg" in shown and f"completeness {graph.completeness:.2f}" in shown and "skips layers" in shown
    panel = graph_panel(alone, control=attribution_graph(model, shuffle_decoders(alone.local.transcoders), TEXT))
    assert "skips layers" not in panel.control and "given another&#39;s decoder" not in panel.control
    assert "replacement is" in panel.control
    assert "No graph with shuffled decoders" in graph_panel(graph).control


def test_a_page_of_supernodes_that_are_none_is_refused(graph: AttributionGraph, tmp_path: Path) -> None:
    for groups, error in (({"a": ["f9.9@9"]}, UnknownName), ({"a": []}, InvalidArgument)):
        with pytest.raises(error):
            graph_page(tmp_path / "page.html", graph, supernodes=groups)
    with pytest.raises(InvalidArgument, match="'a' and 'b'"):
        graph_page(tmp_path / "page.html", graph, supernodes={"a": ["t@0"], "b": ["t@0"]})


@NEEDS_BROWSER
def test_the_page_loads_alone_in_light_and_dark_and_fits_a_phone(browser: Browser, page: Path) -> None:
    for scheme in ("light", "dark"):
        browser.open(page, scheme)
        assert browser.complaints() == [] and browser.js(CONTRAST) >= 4.5
    browser.do("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
    browser.open(page)
    assert browser.js("document.documentElement.scrollWidth <= innerWidth") and browser.js("innerWidth") == 390
    browser.do("Emulation.clearDeviceMetricsOverride")


@NEEDS_BROWSER
def test_pointing_at_a_node_lights_its_edges_and_tells_what_it_fires_on(
    browser: Browser, page: Path, texts: dict[str, FeatureText]
) -> None:
    browser.open(page)
    data = data_of(page)
    i = next(i for i, node in enumerate(data["nodes"]) if node["kind"] == "feature")
    name, feature = data["nodes"][i]["name"], data["nodes"][i]["feature"]
    assert (browser.hover(f'.node[data-node="{i}"] > *') or "").startswith(f"{name}: {texts[feature].label}")
    ends = "[...document.querySelectorAll('.edge.on')].map(e => [+e.dataset.s, +e.dataset.t])"
    assert browser.js(ends) and all(i in pair for pair in browser.js(ends))
    text = browser.js("document.getElementById('node').textContent")
    assert f"{texts[feature].firing_rate:.2%}" in text and "Is read by" in text
    assert browser.js("document.querySelectorAll('#node .examples li').length") == len(texts[feature].examples)


@NEEDS_BROWSER
def test_pinned_nodes_become_a_supernode_and_the_page_counts_between_them_as_the_graph_does(
    browser: Browser, page: Path, graph: AttributionGraph, groups: dict[str, list[str]]
) -> None:
    browser.open(page)
    rows = "[...document.querySelectorAll('#between tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    exact, names = edges_between(graph, groups), [*groups]
    found = {(a, b): float(share.replace("−", "-").split()[0]) / 100 for a, b, share in browser.js(rows)}
    for T, target in enumerate(names):
        for S, source in enumerate(names):
            if T != S and abs(float(exact[T, S])) > 0.002:
                assert found[source, target] == pytest.approx(float(exact[T, S]), abs=2e-3)
    data = data_of(page)
    grouped = {name for members in groups.values() for name in members}
    loose = [i for i, node in enumerate(data["nodes"]) if node["name"] not in grouped][:2]
    for i in loose:
        node = f"document.querySelector('.node[data-node=\"{i}\"]')"
        browser.js(f"{node}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    assert browser.js("document.getElementById('pins').textContent") == "2"
    browser.press("g", *"mine", "Enter")
    listed = "[...document.querySelectorAll('#groups li button:first-of-type')].map(b => b.textContent)"
    assert browser.js(listed) == [*names, "mine"]
    kept = browser.js("location.hash")
    browser.open(page, after=kept)
    assert browser.js(listed) == [*names, "mine"] and browser.complaints() == []


@NEEDS_BROWSER
def test_the_graph_is_walked_and_pinned_by_keys_and_searched_by_label(browser: Browser, page: Path) -> None:
    browser.open(page, after="#%7B%7D")
    browser.press("/", *"logit.")
    said = browser.js("document.getElementById('count').textContent")
    logits = [node for node in data_of(page)["nodes"] if node["kind"] == "logit"]
    assert said == f"{len(logits)} of {len(data_of(page)['nodes'])} nodes"
    browser.press("Escape", "ArrowRight", "Enter")
    assert browser.js("document.querySelectorAll('.node.pinned.logit').length") == 1
    before = browser.js("document.querySelector('.node.chosen').dataset.node")
    browser.press("ArrowDown")
    assert browser.js("document.querySelector('.node.chosen').dataset.node") != before
