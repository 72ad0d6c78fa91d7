"""Attribution graphs as files of the graph viewer that comes with circuit-tracer, which also reads ours."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.border import Share
from hooks.disk import read_bytes, write_text
from hooks.errors import DamagedFile, InvalidArgument
from hooks.json_file import parse_object
from interp.graphs.feature_texts import FeatureText
from interp.graphs.graph import AttributionGraph
from interp.graphs.nodes import ERROR, FEATURE, TOKEN
from interp.graphs.supernodes import Supernodes, members_of

LIST = "graph-metadata.json"
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
VISIBLE = str.maketrans({"\n": "⏎", "\t": "→", "\r": "↵", '"': "”"})  # the viewer reads a token between two "
KINDS = ("embedding", "mlp reconstruction error", "cross layer transcoder", "logit")


def write_viewer_json(
    graph: AttributionGraph,
    folder: str | Path,
    slug: str,
    *,
    scan: str | None = None,
    texts: Mapping[str, FeatureText] | None = None,
    supernodes: Supernodes | None = None,
    node_share: Share = 0.8,
    edge_share: Share = 0.98,
) -> Path:
    """Write the pruned graph for the graph viewer of circuit-tracer, and return the file.

    The file is `slug.json`, and `graph-metadata.json` next to it lists the graphs of the folder. Ids are those of the
    viewer, but for errors `{layer}_-1_{token}`, which no feature's id can equal. What is written of a node as its
    `influence` is the share of all influence that it and the nodes with more of it have together. The viewer hides what
    has more than the file's `node_threshold`, so that is the largest of what is kept.

    Args:
        graph: of a prompt.
        folder: made if it is not there.
        slug: the graph's name in the viewer: letters, digits, - and _.
        scan: the name under which the viewer looks for features; the transcoders' name, by default.
        texts: of `collect_feature_texts`, whose labels are shown of features.
        supernodes: whose members are pinned; what is pruned is left out.
        node_share: of the influence, kept by nodes.
        edge_share: likewise by edges.

    Raises:
        InvalidArgument: a slug with other letters, or that of the list; supernodes that share a node.
        UnknownName: a supernode's member that is no node of the graph.
        DamagedFile: the list in the folder is no such list.
        StorageFailed: the folder cannot be written to.

    Examples:
        ```python
        write_viewer_json(graph, "graphs", "golden-gate")
        ```
    """
    if not SLUG.fullmatch(slug) or f"{slug}.json" == LIST:
        raise InvalidArgument(
            f"the slug {slug!r} is no name of a graph: give letters, digits, - and _, such as 'bridge'"
        )
    folder = Path(folder)
    members_of(graph, supernodes or {})
    scan = scan or re.sub(r"[^A-Za-z0-9]+", "-", graph.local.transcoders.name)
    labels = {name: text.label for name, text in (texts or {}).items()}
    content = _content(graph, scan, labels, float(node_share), float(edge_share))
    content["metadata"] = {"slug": slug} | content["metadata"]
    content["qParams"] |= _pin_supernodes(graph, supernodes or {}, {node["node_id"] for node in content["nodes"]})
    listed = _read_list(folder / LIST)
    others = [one for one in listed if one.get("slug") != slug]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{slug}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(folder / LIST, json.dumps({"graphs": [*others, content["metadata"]]}, indent=1) + "\n")
    return folder / f"{slug}.json"


def _content(
    graph: AttributionGraph, scan: str, labels: Mapping[str, str], node_share: float, edge_share: float
) -> dict[str, Any]:
    kept, edges = graph.prune(node_share, edge_share)
    share = _cumulative(graph.influence)
    ids = {node: _id(graph, node) for node in kept.nonzero().flatten().tolist()}
    links = [
        {"source": ids[s], "target": ids[int(graph.rows[t])], "weight": float(graph.A[t, s])}
        for t, s in edges.nonzero().tolist()
    ]
    inner = kept & ((graph.nodes.kind == ERROR) | (graph.nodes.kind == FEATURE))
    metadata = {
        "scan": scan,
        "transcoder_list": [],
        "prompt_tokens": list(graph.pieces),
        "prompt": graph.text,
        "node_threshold": max([node_share, *share[inner].tolist()]),
        "schema_version": 1,
    }
    params = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    nodes = [_node(graph, node, name, float(share[node]), labels) for node, name in ids.items()]
    return {"metadata": metadata, "qParams": params, "nodes": nodes, "links": links}


def _pin_supernodes(graph: AttributionGraph, supernodes: Supernodes, written: set[str]) -> dict[str, Any]:
    """The supernodes as the viewer has them: each a name and ids, all of them pinned."""
    ids = {name: [_id(graph, graph.nodes.number(node)) for node in members] for name, members in supernodes.items()}
    kept = {name: [one for one in members if one in written] for name, members in ids.items()}
    return {
        "pinnedIds": [one for members in kept.values() for one in members],
        "supernodes": [[name, *members] for name, members in kept.items() if members],
    }


def _id(graph: AttributionGraph, node: int) -> str:
    kind, layer, pos, index = _place(graph, node)
    if kind == TOKEN:
        return f"E_{index}_{pos}"
    return f"{layer}_{index}_{pos}" if kind in (ERROR, FEATURE) else f"{layer + 1}_{index}_{pos}"


def _place(graph: AttributionGraph, node: int) -> tuple[int, int, int, int]:
    """The kind, layer, token and number of a node; the number of an error is -1."""
    nodes = graph.nodes
    return int(nodes.kind[node]), int(nodes.layer[node]), int(nodes.pos[node]), int(nodes.index[node])


def _node(graph: AttributionGraph, node: int, name: str, share: float, labels: Mapping[str, str]) -> dict[str, Any]:
    kind, layer, pos, index = _place(graph, node)
    first = len(graph.nodes) - len(graph.said)
    shown = {
        "node_id": name,
        "ctx_idx": pos,
        "feature_type": KINDS[kind],
        "token_prob": float(graph.nodes.p[node]),
        "is_target_logit": node == first,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "clerp": "",
        "influence": share,
        "activation": float(graph.nodes.a[node]) if kind == FEATURE else None,
    }
    if kind == TOKEN:
        return shown | {"feature": pos, "layer": "E", "jsNodeId": f"E_{index}-{pos}"}
    if kind == ERROR:
        return shown | {"feature": -1, "layer": str(layer), "jsNodeId": f"{layer}_-1-{pos}"}
    if kind == FEATURE:
        named = {"jsNodeId": f"{layer}_{index}-0", "clerp": labels.get(f"f{layer}.{index}", "")}
        return shown | {"feature": _cantor(layer, index), "layer": str(layer)} | named
    said = graph.said[node - first].translate(VISIBLE)
    text = f'Output "{said}" (p={shown["token_prob"]:.3f})'
    return shown | {"feature": index, "layer": str(layer + 1), "jsNodeId": f"L_{index}-{pos}", "clerp": text}


def _cantor(layer: int, index: int) -> int:
    """Cantor's number of a pair, by which the viewer finds a feature."""
    return (layer + index) * (layer + index + 1) // 2 + index


def _cumulative(influence: Float[Tensor, "node"]) -> Float[Tensor, "node"]:
    """The share of influence that each node has together with those that have more."""
    ordered, order = influence.double().sort(descending=True)
    share = torch.empty_like(ordered)
    share[order] = ordered.cumsum(0) / ordered.sum().clamp(min=1e-30)
    return share


def _read_list(path: Path) -> list[dict[str, Any]]:
    """What a folder's list says of the graphs that are there."""
    if not path.is_file():
        return []
    cure = "take it out of the folder, and write its graphs again by write_viewer_json"
    found = parse_object(read_bytes(path), path, cure).get("graphs")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DamagedFile(f"{path} lists no graphs: {cure}")
    return found
