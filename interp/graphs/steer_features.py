"""Features of a prompt set to other activations: what the graph says that does to the logits, and what it does."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Intervention, Site, capture, intervene
from hooks.direction import wide
from hooks.errors import InvalidArgument, OutOfRange, UnknownName, nearest
from hooks.interventions import apply
from hooks.pieces import piece
from hooks.position import everywhere, special
from hooks.site import mlp_out, resid_post, v, z
from interp.circuits.edges.norm import Norm
from interp.graphs.graph import AttributionGraph
from interp.graphs.local_model import LocalLayer, LocalModel, push_norm
from interp.graphs.logits import logit_targets, unembedding_of
from interp.graphs.nodes import FEATURE

NAME = re.compile(r"f(\d+)\.(\d+)@(\d+)")
LIKELIEST = 5
HOLD = ("patterns", "norms")


@dataclass(frozen=True, eq=False)
class SteeredFeatures:
    """What setting some features of a prompt was said to do to its logits, and what it did. Made by `steer_features`.

    Attributes:
        graph: of the prompt.
        activations: what each feature was set to, by name.
        held_through: the last layer whose feed-forward output was held.
        hold: what else was held in the model.
        predicted: the change of each logit of the graph, less that of the mean logit, in the local replacement model.
        measured: the same in the model.
        p: the probability of each after it.
        likeliest: the likeliest next tokens after it, with their probabilities.
    """

    graph: AttributionGraph
    activations: Mapping[str, float]
    held_through: int
    hold: tuple[str, ...]
    predicted: Float[Tensor, "n"]
    measured: Float[Tensor, "n"]
    p: Float[Tensor, "n"]
    likeliest: tuple[tuple[str, float], ...]

    @property
    def same_sign(self) -> float:
        """The share of the graph's logits that moved the way they were said to."""
        return float((self.predicted.sign() == self.measured.sign()).double().mean())

    def __repr__(self) -> str:
        before = self.graph.nodes.p[-len(self.p) :].tolist()
        rows = zip(
            self.graph.said, self.predicted.tolist(), self.measured.tolist(), before, self.p.tolist(), strict=True
        )
        said = ", ".join(f"{word!r} {p:.2f}" for word, p in self.likeliest)
        also = "".join(f", {each} held" for each in self.hold)
        return "\n".join(
            [
                f"SteeredFeatures({len(self.activations)} features, feed-forward layers held through "
                f"{self.held_through}{also}; says {said})",
                *(
                    f"{word!r}: predicted {predicted:+.2f}, measured {measured:+.2f}, p {p:.2f} → {after:.2f}"
                    for word, predicted, measured, p, after in rows
                ),
            ]
        )


def scale_features(graph: AttributionGraph, nodes: Iterable[str], factor: float | int) -> dict[str, float]:
    """Return the activations of some features times a factor, for `steer_features`; other nodes are passed over.

    Raises:
        UnknownName: a node that the graph does not have.

    Examples:
        ```python
        steer_features(graph, scale_features(graph, supernodes["bridge"], 0.0))  # turned off
        ```
    """
    numbers = [(name, graph.nodes.number(name)) for name in nodes]
    return {name: factor * float(graph.nodes.a[i]) for name, i in numbers if graph.nodes.kind[i] == FEATURE}


@torch.no_grad()
def steer_features(
    graph: AttributionGraph,
    activations: Mapping[str, float],
    *,
    held_through: int | None = None,
    hold: Collection[str] = (),
) -> SteeredFeatures:
    """Set features of a prompt to other activations, and return what the graph predicts and what the model does.

    In the model, the feed-forward outputs of the layers up to `held_through` are what they were, plus the changes
    times their decoders there; all that comes after them, attention patterns and norms included, is computed again
    (constrained patching, Ameisen et al. 2025). Predicted, in the local replacement model: active features read the
    change with patterns and norms held, δz = w_enc · δx and δa = δz, and what features write changes by it, in the
    layers after `held_through`.

    What `hold` names is held in the model too, so that it says what a prediction misses: with patterns, norms and all
    feed-forward outputs held, the model does exactly what is predicted.

    Args:
        graph: of the prompt.
        activations: what each feature is set to, by the name of its node, such as those of `scale_features`; a
            feature that is off in this prompt (`f3.120@5`) may be turned on.
        held_through: a layer; by default the last one at which these features read.
        hold: what is held in the model as in the graph: "patterns", of attention, and "norms", their divisors.

    Raises:
        InvalidArgument: no features, or something else to hold.
        UnknownName: a name that is no feature's.
        OutOfRange: a feature or token that there is not, or layers held through one before a feature's own.

    Cost: two forward passes, and one in the local replacement model.

    Examples:
        ```python
        steered = steer_features(graph, scale_features(graph, ["f0.476@4", "f0.564@4"], 0.0))
        print(steered)
        ```
    """
    local, held = graph.local, _check_hold(hold)
    changes = _changes(local, activations)
    first = int(changes.layer.max())
    through = first if held_through is None else held_through
    if not first <= through < len(local.layers):
        raise OutOfRange(
            f"held_through is {through}: give a layer from {first}, a feature's own, to {len(local.layers) - 1}"
        )
    unembedding = unembedding_of(local.model)
    ids = graph.nodes.index[-len(graph.said) :].to(local.final.device)
    slope = logit_targets(local, unembedding, ids).slope
    predicted = slope @ _predict(local, changes, through)[-1]
    columns = unembedding.W_U[:, ids] - unembedding.W_U.mean(1, keepdim=True)
    measured, p = _measure(local, changes, through, held, columns)
    best = p.topk(min(LIKELIEST, len(p)))
    likeliest = [
        (piece(local.model.tokenizer, int(i)), float(value)) for i, value in zip(best.indices, best.values, strict=True)
    ]
    return SteeredFeatures(
        graph, dict(activations), through, held, predicted.cpu(), measured.cpu(), p[ids].cpu(), tuple(likeliest)
    )


@dataclass(frozen=True, eq=False)
class _Changes:
    """By how much the activations of some features are changed."""

    layer: Int[Tensor, "n"]
    latent: Int[Tensor, "n"]
    pos: Int[Tensor, "n"]
    da: Float[Tensor, "n"]

    def output_of(self, local: LocalModel, layer: int) -> Float[Tensor, "pos d_model"]:
        """What they add to the feed-forward output of a layer."""
        found = torch.zeros_like(local.final)
        for source in local.transcoders.writers(layer):
            here = self.layer == source
            W_dec = local.transcoders.layers[source].W_dec[layer][self.latent[here]].to(found)
            found.index_add_(0, self.pos[here], W_dec * self.da[here, None])
        return found


def _changes(local: LocalModel, activations: Mapping[str, float]) -> _Changes:
    if not activations:
        raise InvalidArgument("no features were given to steer: give their names and new activations, such as scaled")
    active = local.active
    now = {
        key: value
        for *key, value in zip(
            active.layer.tolist(), active.latent.tolist(), active.pos.tolist(), active.a.tolist(), strict=True
        )
        for key in [tuple(key)]
    }
    rows, changed = [], []
    for name, value in activations.items():
        parts = NAME.fullmatch(name)
        if parts is None:
            raise UnknownName(f"'{name}' is no feature of a prompt: give names such as f3.120@5")
        layer, latent, pos = map(int, parts.groups())
        one = local.transcoders.layers.get(layer)
        if one is None or latent >= len(one.W_enc) or pos >= len(local.ids):
            raise OutOfRange(f"there is no {name}: the prompt has {len(local.ids)} tokens, by {local.transcoders.name}")
        rows.append((layer, latent, pos))
        changed.append(value - now.get((layer, latent, pos), 0.0))
    layer, latent, pos = torch.tensor(rows, device=local.final.device).unbind(1)
    return _Changes(layer, latent, pos, torch.tensor(changed, dtype=local.final.dtype, device=local.final.device))


def _predict(local: LocalModel, changes: _Changes, through: int) -> Float[Tensor, "pos d_model"]:
    """By how much the last stream changes in the local replacement model."""
    layers = range(len(local.layers))
    stream = torch.zeros_like(local.final)
    written = [changes.output_of(local, layer) for layer in layers]
    for at in layers:
        layer = local.layers[at]
        after = stream if layer.pattern is None else stream + layer.push_attention(stream)
        read = stream if local.parallel else after
        if layer.features is not None:
            at_input = push_norm(layer.block.mlp_norm, read, layer.read) if layer.reads_normed else read
            for to, value in _responses(local, changes, at, at_input).items():
                if to > through:
                    written[to] += value
            if layer.features.W_skip is not None:
                written[at] += at_input @ layer.features.W_skip.to(read).T
        stream = after + written[at]
    return stream


def _responses(local: LocalModel, changes: _Changes, at: int, read: Tensor) -> dict[int, Tensor]:
    """By layer, what the active features of a layer that are not set write of what they read."""
    active, one = local.active, local.transcoders.layers[at]
    fixed = set(zip(changes.layer.tolist(), changes.latent.tolist(), changes.pos.tolist(), strict=True))
    here = (active.layer == at).nonzero().flatten()
    free = [(at, int(active.latent[i]), int(active.pos[i])) not in fixed for i in here.tolist()]
    here = here[torch.tensor(free, dtype=torch.bool, device=here.device)]
    latent, pos = active.latent[here], active.pos[here]
    da = (read[pos] * one.W_enc[latent].to(read)).sum(-1)
    return {
        to: torch.zeros_like(read).index_add_(0, pos, W_dec[latent].to(read) * da[:, None])
        for to, W_dec in one.W_dec.items()
    }


def _check_hold(hold: Collection[str]) -> tuple[str, ...]:
    """What is held, in one order.

    Raises:
        InvalidArgument: something that cannot be held.
    """
    names = (hold,) if isinstance(hold, str) else hold
    for name in names:
        if name not in HOLD:
            raise InvalidArgument(f"'{name}' cannot be held; did you mean {nearest(name, HOLD)}?")
    return tuple(name for name in HOLD if name in names)


def _measure(
    local: LocalModel, changes: _Changes, through: int, hold: tuple[str, ...], columns: Float[Tensor, "d_model n"]
) -> tuple[Float[Tensor, "n"], Float[Tensor, "vocab"]]:
    """By how much logits change in the model, less the mean, and the probabilities of all tokens after it."""
    model, tokens = local.model, local.model.tokens(local.ids[None])
    last = resid_post[model.n_layers - 1]
    edits = _hold_outputs(local, changes.output_of, through)
    if "patterns" in hold:
        edits |= _hold_patterns(local)
    with ExitStack() as stack:
        if "norms" in hold:
            stack.enter_context(_norms_held(local))
        with intervene(model, {**edits}):
            final = wide(capture(model, tokens, [last])[last][0, -1:])
        p = wide(model.unembed(final.to(model.dtype)))[0].softmax(-1)
    norm, before = local.final_norm, local.final[-1:]
    if "norms" in hold:
        return (push_norm(norm, final - before, before).to(columns) @ columns)[0], p
    return ((norm(final.to(model.dtype)) - norm(before.to(model.dtype))).to(columns) @ columns)[0], p


def _hold_patterns(local: LocalModel) -> dict[Site, Intervention]:
    """What mixes the values of each head by the patterns of the prompt."""
    seen: dict[int, Tensor] = {}
    made: dict[Site, Intervention] = {}
    for layer, one in enumerate(local.layers):
        if one.pattern is not None:
            made[v[layer]] = apply(_keep(seen, layer, 0.0), everywhere | special)
            made[z[layer]] = apply(_mix(seen, layer, one.pattern), everywhere | special)
    return made


def _mix(
    seen: dict[int, Tensor], layer: int, pattern: Float[Tensor, "head pos pos"]
) -> Callable[[Float[Tensor, "pos head d_head"]], Float[Tensor, "pos head d_head"]]:
    """What puts the kept values, mixed by a pattern, in the place of what heads read."""

    def mix(z: Float[Tensor, "pos head d_head"]) -> Float[Tensor, "pos head d_head"]:
        value = seen[layer].repeat_interleave(pattern.shape[0] // seen[layer].shape[1], 1)
        return torch.einsum("hqk,khf->qhf", pattern, value).to(z)

    return mix


@contextmanager
def _norms_held(local: LocalModel) -> Iterator[None]:
    """Inside the block, the divisor of every norm of the stream is that of the prompt."""
    pairs = [(local.final_norm, local.final)]
    for layer in local.layers:
        pairs += [(layer.block.attn_norm, layer.pre), (layer.block.mlp_norm, layer.read)]
        pairs += [(layer.block.post_norm, layer.raw)] if layer.raw is not None else []
    with ExitStack() as stack:
        for norm, x in {id(norm.module): (norm, x) for norm, x in pairs if norm.module is not None}.values():
            assert norm.module is not None
            stack.callback(norm.module.register_forward_hook(_hold_at(norm, x)).remove)
        yield


def _hold_at(norm: Norm, x_0: Float[Tensor, "pos d_model"]) -> Callable[..., Tensor]:
    """A hook that gives norm(x_0) and what the norm makes of x - x_0 with the divisor of x_0; x may be the last."""

    def hold(_: object, args: tuple[Tensor, ...], y: Any) -> Tensor:
        x = wide(args[0])
        before = x_0[-x.shape[-2] :].to(x).expand_as(x)
        return (norm(before.to(y)).to(x) + push_norm(norm, x - before, before)).to(y)

    return hold


def _hold_outputs(
    local: LocalModel, written: Callable[[LocalModel, int], Tensor], through: int
) -> dict[Site, Intervention]:
    """What holds the feed-forward outputs up to a layer, with something written to each.

    A linear path of a transcoder goes on reading.
    """
    sites = [mlp_out[layer] for layer in range(through + 1) if local.layers[layer].error is not None]
    held = {
        here.features.reads: here.block.layer
        for here in local.layers[: through + 1]
        if here.features is not None and here.features.W_skip is not None
    }
    base = capture(local.model, local.model.tokens(local.ids[None]), [*sites, *held])
    seen: dict[int, Tensor] = {}
    made = {site: apply(_keep(seen, layer, wide(base[site][0])), everywhere | special) for site, layer in held.items()}
    for site in sites:
        layer = int(site.layer or 0)
        value = wide(base[site][0]) + written(local, layer)
        made[site] = apply(_put(seen, local.layers[layer], value), everywhere | special)
    return made


def _keep(seen: dict[int, Tensor], layer: int, before: Tensor | float) -> Callable[[Tensor], Tensor]:
    """What keeps by how much a value differs from one before, and leaves it as it is."""

    def keep(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        seen[layer] = wide(x) - before
        return x

    return keep


def _put(seen: dict[int, Tensor], here: LocalLayer, value: Tensor) -> Callable[[Tensor], Tensor]:
    """What puts a value in the place of a feed-forward output, and what the linear path adds to it."""

    def put(y: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_model"]:
        if here.features is None or here.features.W_skip is None:
            return value.to(y)
        return (value + seen[here.block.layer] @ here.features.W_skip.to(value).T).to(y)

    return put
