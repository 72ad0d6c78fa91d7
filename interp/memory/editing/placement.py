"""Where an editor writes: the token, the layers and the covariances of their keys, measured where not given."""

from collections.abc import Sequence
from dataclasses import dataclass

from hooks import Model
from hooks.errors import EditRefused, InvalidArgument, WrongModel
from hooks.fingerprint import is_of
from interp.common.completion import says
from interp.memory.editing.contexts import generate_texts
from interp.memory.editing.covariance import Covariance, covariances
from interp.memory.editing.locate import locate
from interp.memory.editing.remembered import Remembered, by_itself
from interp.memory.editing.value_search import TOKENS
from interp.memory.facts.fact import Fact, extract_answer
from interp.memory.tracing.trace import Location

TRACED, PER_KEY, ANSWER = 20, 4, 8
_MEASURED = Remembered[int, Covariance]()


@dataclass(frozen=True, eq=False)
class Place:
    """The token to write at, and the covariance of each layer to write into, by layer."""

    token: str
    covariances: tuple[Covariance, ...]


def choose_placement(
    model: Model,
    facts: Sequence[Fact],
    covariance: Covariance | Sequence[Covariance] | None,
    layers: Sequence[int] | None,
    token: str | None,
    *,
    progress: bool = True,
) -> Place:
    """Take what is given; else the token and layers where `locate` finds the facts, and keys of the model's own texts.

    Raises:
        InvalidArgument: another token; covariances of other layers or another model, or two of one layer.
        EditRefused: nothing to trace, as the model says none of the old objects.

    Cost: none where all is given; else that of `locate` over twenty facts at most, and once for a model, of sampling
    and reading four tokens for each of its keys.
    """
    if token is not None and token not in TOKENS:
        raise InvalidArgument(f"token={token!r}: choose {TOKENS[0]!r} or {TOKENS[1]!r}")
    given = None if covariance is None else sort_covariances(model, covariance, layers)
    if layers is None and given is not None:
        layers = [c.layer for c in given]
    if layers is None or token is None:
        found = locate_known_facts(model, facts, token, progress=progress)
        layers, token = found.layers if layers is None else layers, found.role
    return Place(token, given or measure_covariances(model, layers, progress=progress))


def locate_known_facts(
    model: Model, facts: Sequence[Fact], token: str | None = None, *, progress: bool = True
) -> Location:
    """Where `locate` finds those of the facts whose old objects the model says, the first twenty of them.

    Raises:
        EditRefused: it says none of them, so that nothing it knows can be traced.

    Cost: a forward pass over the prompts, and that of `locate`.
    """
    known = says(model, [fact.text for fact in facts], [fact.old for fact in facts])
    if not any(known):
        said = extract_answer(str(model.generate(facts[0].text, max_new_tokens=ANSWER)))
        which = "does not say the old object" if len(facts) == 1 else f"says none of the {len(facts)} old objects"
        raise EditRefused(
            f"{model.name} {which}: after {facts[0].text!r} it says {said!r}, not {facts[0].old!r}, so where it looks "
            "that up cannot be traced: correct the old object, or give the layer and token to write at"
        )
    return locate(model, [f for f, k in zip(facts, known, strict=True) if k][:TRACED], token=token, progress=progress)


def choose_placement_in_one_layer(
    model: Model,
    facts: Sequence[Fact],
    covariance: Covariance | None,
    layer: int | None,
    token: str | None,
    *,
    progress: bool = True,
) -> Place:
    """The same for an editor of one layer: the middle one of those located."""
    if layer is None and covariance is None:
        found = locate_known_facts(model, facts, token, progress=progress)
        layer, token = found.layer, found.role
    return choose_placement(model, facts, covariance, None if layer is None else [layer], token, progress=progress)


def measure_covariances(model: Model, layers: Sequence[int], *, progress: bool = True) -> tuple[Covariance, ...]:
    """The covariances of these layers' keys over texts it wrote, measured once, of the model by itself."""
    known = _MEASURED.of(model)
    missing = [layer for layer in layers if layer not in known]
    if missing:
        with by_itself(model):
            texts = generate_texts(model, PER_KEY * model.d_mlp)
            known.update(zip(missing, covariances(model, texts, missing, progress=progress), strict=True))
    return tuple(known[layer] for layer in sorted(layers))


def sort_covariances(
    model: Model, covariance: Covariance | Sequence[Covariance], layers: Sequence[int] | None = None
) -> tuple[Covariance, ...]:
    """One covariance or several, by layer.

    Raises:
        InvalidArgument: none at all, two of one layer, one of another model; other layers than those named.
    """
    several = (covariance,) if isinstance(covariance, Covariance) else tuple(covariance)
    held = [c.layer for c in several]
    if not several or len(set(held)) < len(held):
        raise InvalidArgument(f"covariances of layers {held} were given: give one for each layer to edit")
    for c in several:
        if not is_of(model, c.fingerprint):
            raise WrongModel(
                f"the covariance is of layer {c.layer} of model {c.fingerprint[:12]}, "
                f"the edit is of {model.fingerprint[:12]}: call covariance(model, data, {c.layer})"
            )
    if layers is not None and sorted(layers) != sorted(held):
        raise InvalidArgument(
            f"the covariances are of layers {sorted(held)}, the edit is at layers {sorted(layers)}: "
            f"call covariances(model, data, {sorted(layers)})"
        )
    return tuple(sorted(several, key=lambda c: c.layer))
