"""Slopes: at which points, and by which backward rules, the gradient of the metric is taken."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Activations, Model, Site, Tokens
from hooks.border import Count
from hooks.errors import InvalidArgument
from hooks.resume import HeldPass
from hooks.site import resid_post, resid_pre
from hooks.summary import summarise
from interp.circuits.edges.backward_rules import BackwardRules
from interp.circuits.edges.blocks import Block, sites_of_writes


@dataclass(frozen=True)
class Slope:
    """How an estimate takes dm/da: the mean over points x_clean + alpha (x_corrupt - x_clean) of the embeddings.

    Made by `eap`, `eap_ig`, `clean_corrupt`, `relp` and `gim`.

    Attributes:
        name: how it prints.
        points: alpha and the weight of each point.
        rules: what the backward pass does differently from the model's own.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    rules: BackwardRules = field(default_factory=BackwardRules)

    __repr__ = summarise

    @property
    def only_clean(self) -> bool:
        """Whether the gradient is taken in the clean run alone."""
        return all(alpha == 0.0 for alpha, _ in self.points)


def eap() -> Slope:
    """Edge attribution patching: the slope in the clean run (Syed et al. 2023, arXiv:2310.10348).

    Blind where the clean run is saturated: after a hard attention pattern it is 0.

    Examples:
        >>> eap().points
        ((0.0, 1.0),)
    """
    return Slope("EAP", ((0.0, 1.0),))


def eap_ig(steps: Count = 5, *, rule: str = "midpoint") -> Slope:
    """EAP with integrated gradients over the embeddings (Hanna et al. 2024, arXiv:2403.17806).

    Args:
        steps: m, the number of points.
        rule: "midpoint", alpha = (k + 1/2) / m, whose error falls as 1/m²; or "left", the published code's, which
            begins in the corrupt run: alpha = 1 - k/m, whose error falls as 1/m.

    Raises:
        InvalidArgument: no points, or another rule.

    Examples:
        >>> [alpha for alpha, _ in eap_ig(2).points]
        [0.25, 0.75]
        >>> [alpha for alpha, _ in eap_ig(2, rule="left").points]
        [1.0, 0.5]
    """
    if steps < 1:
        raise InvalidArgument(f"steps is {steps}: give at least 1 point to take the slope at")
    if rule not in ("midpoint", "left"):
        raise InvalidArgument(f"no rule is called '{rule}': give 'midpoint' or 'left'")
    alphas = [(k + 0.5) / steps if rule == "midpoint" else 1 - k / steps for k in range(steps)]
    name = f"EAP-IG, {steps} steps" if rule == "midpoint" else f"EAP-IG, {steps} steps from the left"
    return Slope(name, tuple((alpha, 1 / steps) for alpha in alphas))


def clean_corrupt() -> Slope:
    """The mean of the slopes of the two runs.

    Examples:
        >>> clean_corrupt().points
        ((0.0, 0.5), (1.0, 0.5))
    """
    return Slope("clean-corrupt", ((0.0, 0.5), (1.0, 0.5)))


def relp(*, patterns_held: bool = False) -> Slope:
    """Relevance patching: the propagation rules of LRP for the slope of the clean run (Jafari et al. 2025).

    Norms are held, an activation's derivative is phi(x) / x, and the factors of a gated product get half each.

    Args:
        patterns_held: whether attention patterns are constants too; in the published recipe they are not.

    Examples:
        >>> relp().rules.gates_halved
        True
    """
    rules = BackwardRules(norms_held=True, activations_identity=True, gates_halved=True, patterns_held=patterns_held)
    return Slope("RelP", ((0.0, 1.0),), rules)


def gim() -> Slope:
    """Gradient interaction modifications: the slope of the clean run through a softer softmax (Edin et al. 2025).

    The softmax's gradient is that at temperature 2, norms are held, and the factors of each product share its
    gradient: values get a half, queries and keys a quarter, gate and value of a gated layer a half.

    Examples:
        >>> gim().rules.temperature
        2.0
    """
    rules = BackwardRules(norms_held=True, gates_halved=True, temperature=2.0, attention_split=True)
    return Slope("GIM", ((0.0, 1.0),), rules)


@dataclass(frozen=True, eq=False)
class Slopes:
    """What one forward and one backward pass give.

    Attributes:
        m: the metric.
        values: of `sites_of_writes`, and of the stream before every norm.
        read: dm/dy at each projection's output and each feed-forward layer's input, by (layer, "q" ... or "mlp").
        final: dm/dx at the last stream.
    """

    m: Float[Tensor, "batch"]
    values: dict[Site, Tensor]
    read: dict[tuple[int, str], Tensor]
    final: Float[Tensor, "batch pos d_model"]


def slopes_at(
    model: Model,
    blocks: tuple[Block, ...],
    tokens: Tokens,
    embedded: Float[Tensor, "batch pos d_model"] | None,
    measured: Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch"]],
    rules: BackwardRules,
) -> Slopes:
    """Run a model once forward and once backward, and return the slopes of a metric at what reads the stream.

    Args:
        model: the model.
        blocks: of `blocks_of`.
        tokens: the texts.
        embedded: the stream before the first block, or None for the model's own.
        measured: from the last stream to one number per text.
        rules: of the backward pass.

    Cost: one forward and one backward pass, without gradients of parameters.

    Examples:
        ```python
        slopes_at(model, blocks, tokens, None, lambda x: model.unembed(x[:, -1])[:, 7], BackwardRules())
        ```
    """
    seen: dict[Site, Tensor] = {}
    nodes: dict[nn.Module, Tensor] = {}
    streams = [resid_pre[block.layer] for block in blocks] + [block.mlp_reads for block in blocks]
    sites = dict.fromkeys([*streams, *sites_of_writes(model)[1:-1]])

    def begin(x: Tensor) -> Tensor:
        x = (x.expand(len(tokens), *x.shape[1:]) if embedded is None else embedded).detach().requires_grad_()
        seen[resid_pre[0]] = x
        return x

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda value: seen.__setitem__(site, value.detach())

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_without_parameter_gradients(model))
        stack.enter_context(rules.apply(model))
        stack.enter_context(_nodes_kept(blocks, nodes))
        held = HeldPass(model, Activations({}, tokens, model.fingerprint), lambda x: x)
        edits = {site: keep(site) for site in sites if site != resid_pre[0]}
        final = held.resume(0, {resid_pre[0]: begin, **edits})
        m = measured(final)
        wanted = [final, *nodes.values()]
        last, *rest = torch.autograd.grad(m.sum(), wanted, materialize_grads=True)
    seen[resid_pre[0]] = seen[resid_pre[0]].detach()
    seen[resid_post[model.n_layers - 1]] = final.detach()
    return Slopes(m.detach(), seen, _by_reader(blocks, dict(zip(nodes, rest, strict=True)), seen), last)


def _by_reader(
    blocks: tuple[Block, ...], slopes: dict[nn.Module, Tensor], seen: dict[Site, Tensor]
) -> dict[tuple[int, str], Tensor]:
    read = {}
    for block in blocks:
        like = seen[resid_pre[block.layer]]
        for name, reader in block.readers.items():
            slope = slopes[reader.module]
            read[block.layer, name] = reader.of(slope.reshape(*like.shape[:2], -1))
        if block.mlp is not None:
            read[block.layer, "mlp"] = slopes[block.mlp].reshape(like.shape)
    return read


@contextmanager
def _nodes_kept(blocks: tuple[Block, ...], nodes: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Keep each projection's output, and each feed-forward layer's input as a node of its own."""

    def output(module: nn.Module, _: object, value: Tensor) -> None:
        nodes[module] = value

    def own(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        name = None if args else next(iter(kwargs))
        value = args[0] if name is None else kwargs[name]
        nodes[module] = value.view_as(value)
        return ((nodes[module], *args[1:]), kwargs) if name is None else (args, {**kwargs, name: nodes[module]})

    with ExitStack() as stack:
        for block in blocks:
            for module in dict.fromkeys(reader.module for reader in block.readers.values()):
                stack.callback(module.register_forward_hook(output).remove)
            if block.mlp is not None:
                stack.callback(block.mlp.register_forward_pre_hook(own, with_kwargs=True).remove)
        yield


@contextmanager
def _without_parameter_gradients(model: Model) -> Iterator[None]:
    trained = [parameter for parameter in model.hf.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
