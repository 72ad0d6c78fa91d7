"""An edit of facts: low-rank changes of weights, or hooks next to them, that apply, undo bit-exactly, and travel."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from typing_extensions import TypedDict

from hooks import Model
from hooks.errors import EditRefused, InvalidArgument, WrongModel, WrongState
from hooks.json_file import Kind, parse_contents
from hooks.running import note_attached
from hooks.site import mlp_act
from hooks.tensor_file import read_tensors, write_tensors
from hooks.weights import own_matrix, write_matrix
from interp.memory.editing.change import LowRank, join_changes
from interp.memory.editing.codebook import Codebook
from interp.memory.editing.datastore import Datastore
from interp.memory.editing.prompt_cache import Preamble
from interp.memory.facts.fact import Fact

OVERLAP = 0.5


Update = LowRank | Codebook | Datastore | Preamble


class EditHeader(TypedDict):
    """What a file says of an edit."""

    facts: list[dict[str, str]]
    method: str
    measured: dict[str, float]
    fingerprint: str
    updates: list[dict[str, Any]]


KIND: Final = Kind("edit", "edit", "Edit.save", EditHeader)
KINDS: dict[str, type[Update]] = {kind.__name__: kind for kind in (LowRank, Codebook, Datastore, Preamble)}


@dataclass(frozen=True, eq=False, repr=False)
class Edit:
    """A reversible change of facts: what every editor returns.

    Attributes:
        facts: what was edited.
        method: how.
        updates: changes of output projections, or of what flows past them.
        fingerprint: of the model the edit was made for; any other model is refused.
        measured: what the method measured on the way (target probability, norms).
    """

    facts: tuple[Fact, ...]
    method: str
    updates: tuple[Update, ...]
    fingerprint: str
    measured: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        first, more = self.facts[0], len(self.facts) - 1
        what = f"{first.text!r}: {first.old!r} -> {first.new!r}" + (f" and {more} more" if more else "")
        layers = sorted({update.layer for update in self.updates if isinstance(update, LowRank | Codebook)})
        where = f", layers {layers}" if layers else ""
        measured = "".join(f", {name} {value:.3g}" for name, value in self.measured.items())
        return f"Edit({self.method}, {what}{where}{measured})"

    @property
    def weights(self) -> tuple[LowRank, ...]:
        """The changes of weights."""
        return tuple(update for update in self.updates if isinstance(update, LowRank))

    @property
    def reads_before(self) -> bool:
        """Whether the edit is a text that is read before every other."""
        return any(isinstance(update, Preamble) for update in self.updates)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the changes: two edits of one digest are the same edit, read from disk or made again."""
        hashed = hashlib.sha256(self.fingerprint.encode())
        for update in self.updates:
            tensors, rest = _split_update(update)
            hashed.update(json.dumps([type(update).__name__, rest], sort_keys=True).encode())
            for name, tensor in tensors.items():
                hashed.update(f"{name}{tuple(tensor.shape)}".encode())
                hashed.update(tensor.detach().double().cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    def apply(self, model: Model) -> None:
        """Add the edit to the model's weights.

        Raises:
            WrongModel: the edit was made for another model.
            InvalidArgument: the edit is applied already.
            EditRefused: a second text to read before every other.
            WrongState: something else changed an edited weight meanwhile.

        Warns:
            UserWarning: it conflicts with an edit that is applied, as `conflicts` says.
        """
        if model.fingerprint != self.fingerprint:
            raise WrongModel(
                f"this edit was made for model {self.fingerprint[:12]}, and {model.name} is {model.fingerprint[:12]}: "
                "make the edit again on this model"
            )
        stack = _stack(model)
        if self.digest in stack.edits:
            raise InvalidArgument(f"this {self.method} edit is already applied to {model.name}: undo it first")
        for other in stack.edits.values():
            if self.reads_before and other.reads_before:
                raise EditRefused(
                    f"{model.name} reads {other.facts[0].text!r} and so on before every text already, and one preamble "
                    f"at a time is all it can read: undo that {other.method} edit first, or give all facts to one"
                )
            for conflict in conflicts([other, self]):
                warnings.warn(f"{conflict}; both are applied to {model.name} now", stacklevel=2)
        stack.write(model, {**stack.edits, self.digest: self})

    def undo(self, model: Model) -> None:
        """Take the edit out again; with the last one gone the weights are bit for bit the original ones.

        Raises:
            InvalidArgument: the edit is not applied to this model.
            WrongState: something else changed an edited weight meanwhile.
        """
        stack = _stack(model)
        if self.digest not in stack.edits:
            raise InvalidArgument(f"this {self.method} edit is not applied to {model.name}: nothing to undo")
        stack.write(model, {digest: edit for digest, edit in stack.edits.items() if digest != self.digest})

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """The edit, inside a `with` block.

        Examples:
            ```python
            with edit.applied(model):
                model.generate("The Golden Gate Bridge is located in")
            ```
        """
        self.apply(model)
        try:
            yield
        finally:
            self.undo(model)

    def save(self, file: str | Path) -> None:
        """Write the edit to a safetensors file of some kilobytes."""
        split = [_split_update(update) for update in self.updates]
        tensors = {f"{i}.{name}": t for i, (held, _) in enumerate(split) for name, t in held.items()}
        about = {
            "facts": [asdict(fact) for fact in self.facts], "method": self.method, "measured": self.measured,
            "fingerprint": self.fingerprint,
            "updates": [{"kind": type(u).__name__, **rest} for u, (_, rest) in zip(self.updates, split, strict=True)],
        }  # fmt: skip
        write_tensors(file, KIND, tensors, about)

    @staticmethod
    def load(file: str | Path) -> "Edit":
        """Read what `save` wrote.

        Raises:
            MissingFile: there is no such file.
            DamagedFile: it is torn, changed, or holds something else.
        """
        tensors, about = read_tensors(file, KIND)
        return parse_contents(file, KIND, lambda: Edit._of(tensors, about))

    @staticmethod
    def _of(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> "Edit":
        updates = []
        for i, rest in enumerate(about["updates"]):
            held: dict[str, Any] = {n.removeprefix(f"{i}."): t for n, t in tensors.items() if n.startswith(f"{i}.")}
            updates.append(KINDS[rest.pop("kind")](**rest, **held))
        facts = tuple(Fact(**fact) for fact in about["facts"])
        return Edit(facts, about["method"], tuple(updates), about["fingerprint"], about["measured"])


def _split_update(update: Update) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an update, and what else it holds."""
    held = {field.name: getattr(update, field.name) for field in fields(update)}
    held = {name: value for name, value in held.items() if value is not None}
    return (
        {name: value for name, value in held.items() if isinstance(value, Tensor)},
        {name: value for name, value in held.items() if not isinstance(value, Tensor)},
    )


@dataclass
class _Stack:
    """The edits applied to one model, by digest, the original weights they were added to, and what ends their hooks."""

    original: dict[int, Tensor] = field(default_factory=dict)
    edits: dict[str, Edit] = field(default_factory=dict)
    hooks: dict[str, list[Callable[[], None]]] = field(default_factory=dict)
    preamble: Callable[[], None] | None = None

    @torch.no_grad()
    def write(self, model: Model, edits: dict[str, Edit]) -> None:
        """Set each touched weight to its original plus these edits, summed in the order of their digests."""
        touched = {update.layer for edit in (*self.edits.values(), *edits.values()) for update in edit.weights}
        weights = {layer: own_matrix(model.module(mlp_act[layer])) for layer in touched}
        original = {layer: self.original.get(layer, weights[layer].clone()) for layer in touched}
        for layer, weight in weights.items():
            if not torch.equal(weight, _sum(original[layer], layer, self.edits)):
                raise WrongState(
                    f"the weights of layer {layer} of {model.name} were changed by something else since an edit was "
                    "applied, and writing the edits again would lose that: undo the other change first"
                )
        changed = {layer: _sum(original[layer], layer, edits) for layer in touched}
        for layer, W in changed.items():
            write_matrix(model.module(mlp_act[layer]), W)
        for digest in self.edits.keys() - edits.keys():
            for detach in self.hooks.pop(digest):
                detach()
        for digest in [digest for digest in edits if digest not in self.edits]:
            hooked = (update for update in edits[digest].updates if not isinstance(update, LowRank | Preamble))
            self.hooks[digest] = [update.attach(model) for update in hooked]
        self._read_again(model, edits.values())
        attached = [edit for edit in edits.values() if len(edit.weights) < len(edit.updates)]
        _warn_when_saved(model, attached)
        note_attached(model.hf, sorted({edit.method for edit in attached}))
        still = {update.layer for edit in edits.values() for update in edit.weights}
        self.original, self.edits = {layer: original[layer] for layer in still}, edits

    def _read_again(self, model: Model, edits: Iterable[Edit]) -> None:
        """Let the model read what comes before every text with all edits in place, whichever came first."""
        if self.preamble is not None:
            self.preamble()
        held = [update for edit in edits for update in edit.updates if isinstance(update, Preamble)]
        self.preamble = held[0].attach(model) if held else None


class _Saving:
    """A model's `save_pretrained`, which warns of edits that are not in the weights it writes."""

    def __init__(self, model: Model, edits: Sequence[Edit]) -> None:
        self._hf, self._edits, self._name = model.hf, edits, model.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"{len(self._edits)} edits of {self._name} by {', '.join(sorted({e.method for e in self._edits}))} work "
            "next to its weights, and what is saved does not hold them: keep them with Edit.save and apply them again",
            stacklevel=2,
        )
        return type(self._hf).save_pretrained(self._hf, *args, **kwargs)


def _warn_when_saved(model: Model, edits: Sequence[Edit]) -> None:
    if edits:
        model.hf.save_pretrained = _Saving(model, edits)
    elif isinstance(vars(model.hf).get("save_pretrained"), _Saving):
        del model.hf.save_pretrained


def _sum(original: Tensor, layer: int, edits: dict[str, Edit]) -> Tensor:
    """The original plus what the edits add to a layer, in float64, by digest; as it is if they add nothing."""
    held = [u for _, edit in sorted(edits.items()) for u in edit.weights if u.layer == layer]
    if not held:
        return original
    return (original.cpu().double() + join_changes(held).delta.cpu()).to(original)


_STACKS: "WeakKeyDictionary[nn.Module, _Stack]" = WeakKeyDictionary()


def _stack(model: Model) -> _Stack:
    return _STACKS.setdefault(model.hf, _Stack())


def list_applied(model: Model) -> tuple[str, ...]:
    """The digests of the edits that are applied to a model, sorted."""
    return tuple(sorted(_stack(model).edits))


@contextmanager
def suspend_edits(model: Model) -> Iterator[None]:
    """The model as it is without its edits, inside a `with` block, for what is measured once for a model."""
    stack = _stack(model)
    edits = stack.edits
    if edits:
        stack.write(model, {})
    try:
        yield
    finally:
        if edits:
            stack.write(model, edits)


def conflicts(edits: Sequence[Edit]) -> tuple[str, ...]:
    """The reasons against applying these edits together, one sentence each.

    Two edits conflict when they say different things of one subject in one prompt, or in place of one old object, when
    one writes more than half of its value at a key of the other (|kᵀ u| above 0.5, where ΔW = u ⊗ r; |cos| of the
    factors where keys are not known), or when their codebooks answer to overlapping keys.
    """
    found = []
    for one, other in combinations(edits, 2):
        for a in one.facts:
            for b in other.facts:
                if (a.subject, a.prompt) == (b.subject, b.prompt) and a.new != b.new:
                    found.append(f"{a.text!r} is edited to both {a.new!r} and {b.new!r}")
                elif (a.subject, a.old) == (b.subject, b.old) and a.new != b.new:
                    found.append(f"{a.old!r} of {a.subject!r} is edited to both {a.new!r} and {b.new!r} in two prompts")
        for u, w in ((u, w) for u in one.updates for w in other.updates):
            if isinstance(u, LowRank) and isinstance(w, LowRank) and u.layer == w.layer:
                crossing = max(_largest_crossing(u, w), _largest_crossing(w, u))
                if crossing > OVERLAP:
                    found.append(
                        f"keys of {one.facts[0].subject!r} and {other.facts[0].subject!r} overlap at layer {u.layer} "
                        f"({crossing:.2f} of what one writes appears at the other)"
                    )
            if isinstance(u, Codebook) and isinstance(w, Codebook) and u.overlaps(w):
                found.append(
                    f"the codebooks of {one.facts[0].subject!r} and {other.facts[0].subject!r} answer to the same keys "
                    f"at layer {u.layer}; the one applied last answers"
                )
    return tuple(found)


def _largest_crossing(u: LowRank, w: LowRank) -> float:
    """The largest share of a value of `u` that appears at a key of `w`."""
    if u.at is None or w.at is None:
        unit_u, unit_w = (torch.nn.functional.normalize(one.key.double(), dim=1) for one in (u, w))
        return float(torch.einsum("ei,ni->en", unit_u, unit_w).abs().max())
    return float(torch.einsum("ei,ni->en", w.at.double(), u.key.double()).abs().max())
