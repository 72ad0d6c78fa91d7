"""What the memories of a feed-forward layer say: each value read over the vocabulary, and each key's rows."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument, OutOfRange
from hooks.layout import gate_up_rows, parts
from hooks.pieces import piece
from hooks.site import mlp_act, mlp_out
from hooks.weights import matrix_of
from interp.features.logits import measure_logit_effects
from interp.lenses import Lens
from interp.lenses.parts import output_of
from interp.memory.neurons.triggers import Sign


@torch.no_grad()
def value_logits(
    model: Model, layer: int, neurons: Int[Tensor, "n"] | None = None, *, lens: Lens | None = None, sign: Sign = 1
) -> Float[Tensor, "n vocab"]:
    """The logits r_i = unembed(norm(v_i)) − unembed(norm(0)) of some memories' values, what v_i alone promotes.

    Row i of the output projection is v_i (Geva et al. 2022, arXiv:2203.14680, section 3, with the final norm kept).
    Through a lens the value is first mapped to the last layer: lens(v_i) − lens(0).

    Args:
        model: the model.
        layer: whose memories.
        neurons: which of them; all by default.
        lens: a tuned or a Jacobian lens, which knows what later layers make of a direction.
        sign: -1 for what -v_i promotes, which a gated memory of negative coefficient writes.

    Raises:
        OutOfRange: the layer has no such memory.
        InvalidArgument: a lens of another model; a family that normalises the output before it is added.

    Cost: one unembedding for each memory; memory for a row of logits each.

    Examples:
        ```python
        value_logits(model, 3, torch.tensor([17])).topk(10)
        ```
    """
    W, _ = output_of(model, mlp_act[layer], mlp_out[layer])
    chosen = torch.arange(len(W)) if neurons is None else neurons
    for neuron in chosen[(chosen < 0) | (chosen >= len(W))].tolist():
        raise OutOfRange(f"memory {neuron} does not exist: layer {layer} has memories 0 to {len(W) - 1}")
    v = sign * W[chosen.to(W.device)]
    if lens is None:
        return measure_logit_effects(model, v)
    if lens.model.fingerprint != model.fingerprint:
        raise InvalidArgument(
            f"the lens reads {lens.model.name}, the memories are of {model.name}: give a lens of this one"
        )
    return lens.read(v, layer).float() - lens.read(torch.zeros_like(v[:1]), layer).float()


def find_top_tokens(
    model: Model, layer: int, *, lens: Lens | None = None, sign: Sign = 1, batch_size: int = 256
) -> tuple[Int[Tensor, "d_mlp"], Float[Tensor, "d_mlp"]]:
    """The token that each memory's value promotes most, and by how many nats of logit.

    Cost: one unembedding for each memory; memory for a batch of them.
    """
    found = [
        value_logits(model, layer, neurons, lens=lens, sign=sign).max(1)
        for neurons in torch.arange(model.d_mlp).split(batch_size)
    ]
    return torch.cat([part.indices for part in found]).cpu(), torch.cat([part.values for part in found]).cpu()


def find_promoted_tokens(
    model: Model, layer: int, neurons: Sequence[int], *, lens: Lens | None = None, sign: Sign = 1, top: int = 10
) -> tuple[tuple[tuple[str, float], ...], ...]:
    """The tokens that each of some memories' values promotes most, with their logits in nats.

    Cost: one unembedding for each memory.

    Examples:
        ```python
        promoted(model, 3, [17])[0][:3]  # ((" bridge", 4.1), ...)
        ```
    """
    found = []
    for some in torch.tensor([*neurons], dtype=torch.long).split(256):
        best = value_logits(model, layer, some, lens=lens, sign=sign).topk(top)
        rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        found += [tuple((piece(model.tokenizer, i), v) for i, v in zip(*row, strict=True)) for row in rows]
    return tuple(found)


def key_rows(model: Model, layer: int) -> dict[str, Float[Tensor, "d_mlp d_model"]]:
    """The rows that each memory compares the stream with: "key", or "gate" and "up" in a gated layer.

    The coefficient is f(x . key + b), or f(x . gate) (x . up): `mlp_act`.

    Raises:
        InvalidArgument: a layer whose input projections are not found.

    Examples:
        ```python
        key_rows(model, 3)["key"][17]
        ```
    """
    model.tap(mlp_act[layer])
    part = parts(model.blocks[layer], model.paths)
    if "mlp.gate_up" in part:
        gate, up = gate_up_rows(part["mlp.gate_up"])
        rows = matrix_of(part["mlp.gate_up"]).T
        return {"gate": rows[gate], "up": rows[up]}
    named = {"gate": "mlp.gate", "up": "mlp.in"} if "mlp.gate" in part else {"key": "mlp.in"}
    if not set(named.values()) <= part.keys():
        raise InvalidArgument(
            f"layer {layer} of {model.name} has no input projection that is known: keys cannot be read"
        )
    return {name: matrix_of(part[path]).T for name, path in named.items()}


def is_gated(model: Model, layer: int) -> bool:
    """Whether a layer's coefficients are products of a gate and another projection, which can have either sign."""
    model.tap(mlp_act[layer])
    return not {"mlp.gate", "mlp.gate_up"}.isdisjoint(parts(model.blocks[layer], model.paths))
