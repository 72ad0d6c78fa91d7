"""Strict interchange training: realistic weights for a given program, with the circuit that was asked for."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Position, load
from hooks.border import Count, Natural, Positive
from hooks.errors import InvalidArgument
from hooks.position import last
from hooks.progress import progress_bar
from hooks.site import Site, mlp_out, z
from hooks.summary import summarise
from interp.circuits.edges.circuit import Circuit
from interp.circuits.edges.graph import EdgeGraph, edge_graph, sender_number
from interp.circuits.interchange import CausalModel, Implementation, Place, interchange_accuracy
from interp.circuits.interchange.causal_model import Values
from interp.circuits.interchange.interchange import swap_place

EVERY = Position("every token", lambda tokens: tokens.mask)


@dataclass(frozen=True, eq=False)
class StrictModel:
    """A model trained to carry out a program in given nodes and in no others.

    Attributes:
        implementation: the model, its program, how inputs are written and answers read.
        nodes: the node that holds each variable.
        accuracy: of its answers, on inputs drawn after training.
        interchange: IIA of each variable at its node.
        strictness: for every other node, how often the answer stays when the node has its value on another input.
    """

    implementation: Implementation
    nodes: Mapping[str, str]
    accuracy: float
    interchange: Mapping[str, float]
    strictness: Mapping[str, float]

    __repr__ = summarise

    @property
    def circuit(self) -> Circuit:
        """The edges between nodes whose variables are parent and child, all three inputs of a head counted.

        A head may read its value alone, or its queries and keys too: the truth is known by node, so compare methods
        with it by `edge_auroc` of scores joined by `by_node`.
        """
        graph, causal = edge_graph(self.implementation.model), self.implementation.causal
        mask = torch.zeros_like(graph.allowed)
        for name, of in causal.parents.items():
            into = graph.fed_by[sender_number(graph, self.nodes[name])]
            for parent in of:
                mask[sender_number(graph, self.nodes.get(parent, "embed")), into] = True
        mask[sender_number(graph, self.nodes[causal.output]), -1] = True
        return Circuit(graph, mask & graph.allowed)


def by_node(graph: EdgeGraph, scores: Float[Tensor, "sender receiver"]) -> Float[Tensor, "sender receiver"]:
    """Return scores in which the inputs of a node all have the largest of theirs, from each sender.

    Examples:
        ```python
        edge_auroc(strict.circuit, by_node(graph, found.effect.abs()))
        ```
    """
    joined = scores.clone()
    for node in range(1, len(graph.senders)):
        mine = graph.fed_by[node]
        if bool(mine.any()):
            joined[:, mine] = scores[:, mine].max(1, keepdim=True).values
    return joined


def train_strictly(
    causal: CausalModel,
    nodes: Mapping[str, str],
    *,
    n_layers: Count = 2,
    n_heads: Count = 4,
    d_model: Count = 64,
    steps: Count = 600,
    batch_size: Count = 256,
    lr: Positive = 3e-3,
    seed: Natural = 0,
    progress: bool = True,
) -> StrictModel:
    """Train a GPT-2 from random weights to carry out a program in given nodes.

    loss = CE(answer) + CE(answer with one variable's node as on another input, the program's variable likewise)
         + CE(answer with a node that holds no variable as on another input, the answer staying).

    Inputs are written one token each and then an end token, at which the answer is read. The last of the three terms,
    strictness, is what makes the circuit known: without it, other nodes may hold the variable too.

    Args:
        causal: the program, with at most ten thousand inputs.
        nodes: for each of its variables the node to hold it, such as `h0.1` or `mlp1`.
        n_layers: of the model.
        n_heads: of each layer.
        d_model: its width.
        steps: of Adam.
        batch_size: pairs of inputs per step.
        lr: its largest value; it rises over the first tenth of the steps and falls to 0 along a cosine.
        seed: of weights and inputs.
        progress: whether to show a bar.

    Raises:
        InvalidArgument: a variable without a node, or two in one.
        UnknownName: a node that is not there.

    Cost: four forward passes and a backward pass per step; a minute or two for programs of this size.

    Gupta et al. 2024, arXiv:2407.14494 (strict interchange training); Geiger et al. 2022, arXiv:2112.00826.

    Examples:
        ```python
        train_strictly(program, {"first": "h0.0", "second": "h0.1", "same": "mlp1"}).interchange
        ```
    """
    if set(nodes) != set(causal.variables) or len(set(nodes.values())) != len(nodes):
        raise InvalidArgument(f"give each of {', '.join(causal.variables)} a node of its own, got {dict(nodes)}")
    implementation = _new(causal, n_layers, n_heads, d_model, seed)
    graph = edge_graph(implementation.model)
    for node in nodes.values():
        sender_number(graph, node)
    idle = [name for name in graph.senders[1:] if name not in nodes.values()]
    random = torch.Generator().manual_seed(seed)
    hf = implementation.model.hf
    adam = torch.optim.AdamW(hf.parameters(), lr=lr, weight_decay=0.01)
    rises = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adam,
        lambda step: min((step + 1) / rises, 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())),
    )
    for step in progress_bar(range(steps), desc="strict training", progress=progress):
        base, source = (causal.draw(batch_size, random) for _ in range(2))
        variable = causal.variables[step % len(nodes)]
        still = idle[int(torch.randint(len(idle), (), generator=random))] if idle else None
        with torch.inference_mode(False), torch.enable_grad():
            loss = _loss(implementation, base, source, variable, nodes[variable], still)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    hf.zero_grad(set_to_none=True)
    return _measure(implementation, nodes, idle, seed)


def _new(causal: CausalModel, n_layers: int, n_heads: int, d_model: int, seed: int) -> Implementation:
    import transformers

    most, n_answers = max(causal.inputs.values()), 1 + int(causal.run(causal.every_input())[causal.output].max())
    config = transformers.GPT2Config(
        vocab_size=most + 1 + n_answers,
        n_positions=len(causal.inputs) + 1,
        n_layer=n_layers,
        n_head=n_heads,
        n_embd=d_model,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = load(transformers.GPT2LMHeadModel(config), check=False)

    def ids(inputs: Values) -> Int[Tensor, "batch pos"]:
        texts = torch.stack([inputs[name] for name in causal.inputs], 1)
        return torch.cat([texts, torch.full((len(texts), 1), most)], 1)

    return Implementation(model, causal, ids, torch.arange(most + 1, most + 1 + n_answers), last)


def find_place(node: str) -> Place:
    """Return where a node's value is, at every token.

    Examples:
        >>> find_place("h0.1").head
        1
    """
    if node.startswith("mlp"):
        return Place(mlp_out[int(node[3:])], EVERY)
    layer, _, head = node[1:].partition(".")
    return Place(z[int(layer)], EVERY, head=int(head))


def _loss(
    implementation: Implementation, base: Values, source: Values, variable: str, node: str, still: str | None
) -> Float[Tensor, ""]:
    causal, cross_entropy = implementation.causal, torch.nn.functional.cross_entropy
    tokens = implementation.tokens(base)
    places = [find_place(name) for name in (node, still) if name is not None]
    given = _values(implementation.model, implementation.tokens(source), [place.site for place in places])
    answer = causal.run(base)[causal.output]
    plain = implementation.model.run(tokens)[:, -1, implementation.answers]
    loss = cross_entropy(plain, answer)
    loss = loss + cross_entropy(
        swap_place(implementation, places[0], tokens, given[places[0].site]), causal.interchange(variable, base, source)
    )
    if still is not None:
        loss = loss + cross_entropy(swap_place(implementation, places[1], tokens, given[places[1].site]), answer)
    return loss


def _values(model: Model, tokens: Any, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """The values at some sites, with their gradients."""
    got: dict[Site, Tensor] = {}
    with ExitStack() as stack:
        for site in dict.fromkeys(sites):
            stack.callback(model.tap(site).attach(lambda a, at=site: got.__setitem__(at, a)).remove)
        model.run(tokens)
    return got


def _measure(implementation: Implementation, nodes: Mapping[str, str], idle: Sequence[str], seed: int) -> StrictModel:
    causal, random = implementation.causal, torch.Generator().manual_seed(seed + 1)
    base, source = causal.draw(512, random), causal.draw(512, random)
    with torch.no_grad():
        said = implementation.model.run(implementation.tokens(base))[:, -1, implementation.answers].argmax(-1)
    right = causal.run(base)[causal.output]
    interchange = {
        name: interchange_accuracy(implementation, name, find_place(node), base, source) for name, node in nodes.items()
    }
    stays = {}
    for node in idle:
        place = find_place(node)
        with torch.no_grad():
            given = _values(implementation.model, implementation.tokens(source), [place.site])
            other = swap_place(implementation, place, implementation.tokens(base), given[place.site]).argmax(-1)
        stays[node] = float((other == said).double().mean())
    return StrictModel(implementation, dict(nodes), float((said == right).double().mean()), interchange, stays)
