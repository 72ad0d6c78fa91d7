"""Where an editor writes: the token, the layers and the covariances of their keys, measured where not given."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import nn

from hooks import Model
from interp.memory.covariance import Covariance, covariances
from interp.memory.edit import set_aside
from interp.memory.fact import Fact
from interp.memory.locate import locate
from interp.memory.own_words import own_texts
from interp.memory.value import TOKENS

TRACED, PER_KEY = 20, 4
_MEASURED: "WeakKeyDictionary[nn.Module, dict[int, Covariance]]" = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Place:
    """The token to write at, and the covariance of each layer to write into, by layer."""

    token: str
    covariances: tuple[Covariance, ...]


def placed(
    model: Model,
    facts: Sequence[Fact],
    covariance: Covariance | Sequence[Covariance] | None,
    layers: Sequence[int] | None,
    token: str | None,
) -> Place:
    """Take what is given; else the token and layers where `locate` finds the facts, and keys of the model's own texts.

    Raises:
        ValueError: another token; covariances of other layers or another model, or two of one layer.

    Cost: none where all is given; else that of `locate` over twenty facts at most, and once for a model, of sampling
    and reading four tokens for each of its keys.
    """
    if token is not None and token not in TOKENS:
        raise ValueError(f"token={token!r}: choose {TOKENS[0]!r} or {TOKENS[1]!r}")
    given = None if covariance is None else checked_covariances(model, covariance, layers)
    if layers is None and given is not None:
        layers = [c.layer for c in given]
    if layers is None or token is None:
        found = locate(model, facts[:TRACED], token=token)
        layers, token = found.layers if layers is None else layers, found.role
    return Place(token, given or measured_covariances(model, layers))


def placed_in_one(
    model: Model, facts: Sequence[Fact], covariance: Covariance | None, layer: int | None, token: str | None
) -> Place:
    """The same for an editor of one layer: the middle one of those located."""
    if layer is None and covariance is None:
        found = locate(model, facts[:TRACED], token=token)
        layer, token = found.layer, found.role
    return placed(model, facts, covariance, None if layer is None else [layer], token)


def measured_covariances(model: Model, layers: Sequence[int]) -> tuple[Covariance, ...]:
    """The covariances of these layers' keys over texts the model wrote itself, measured once, without its edits."""
    known = _MEASURED.setdefault(model.hf, {})
    missing = [layer for layer in layers if layer not in known]
    if missing:
        with set_aside(model):
            texts = own_texts(model, PER_KEY * model.d_mlp)
            known.update(zip(missing, covariances(model, texts, missing), strict=True))
    return tuple(known[layer] for layer in sorted(layers))


def checked_covariances(
    model: Model, covariance: Covariance | Sequence[Covariance], layers: Sequence[int] | None = None
) -> tuple[Covariance, ...]:
    """One covariance or several, by layer.

    Raises:
        ValueError: none at all, two of one layer, one of another model; other layers than those named.
    """
    several = (covariance,) if isinstance(covariance, Covariance) else tuple(covariance)
    held = [c.layer for c in several]
    if not several or len(set(held)) < len(held):
        raise ValueError(f"covariances of layers {held} were given: give one for each layer to edit")
    for c in several:
        if c.fingerprint != model.fingerprint:
            raise ValueError(
                f"the covariance is of layer {c.layer} of model {c.fingerprint[:12]}, "
                f"the edit is of {model.fingerprint[:12]}: call covariance(model, data, {c.layer})"
            )
    if layers is not None and sorted(layers) != sorted(held):
        raise ValueError(
            f"the covariances are of layers {sorted(held)}, the edit is at layers {sorted(layers)}: "
            f"call covariances(model, data, {sorted(layers)})"
        )
    return tuple(sorted(several, key=lambda c: c.layer))
