"""An edit of facts: low-rank changes of feed-forward weights that apply, undo bit-exactly, stack, save and load."""

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks import Model
from interp.memory.fact import Fact

OVERLAP = 0.5


@dataclass(frozen=True, eq=False)
class LowRank:
    """ΔW = key ⊗ value for one layer, in the orientation mlp_act @ W: ΔW[i, j] = Σ_r key[r, i] value[r, j].

    Raises:
        ValueError: a factor that is not finite.
    """

    layer: int
    key: Float[Tensor, "n d_mlp"]
    value: Float[Tensor, "n d_model"]

    def __post_init__(self) -> None:
        if not bool(self.key.isfinite().all() and self.value.isfinite().all()):
            raise ValueError(f"the change of layer {self.layer} holds NaN or infinity, so it is no edit")

    @property
    def delta(self) -> Float[Tensor, "d_mlp d_model"]:
        """ΔW in float64."""
        return torch.einsum("ni,nj->ij", self.key.double(), self.value.double())


@dataclass(frozen=True, eq=False)
class Edit:
    """A reversible change of facts: what `rome` and its kin return.

    Attributes:
        facts: what was edited.
        method: how.
        updates: the change of each layer's output projection.
        fingerprint: of the model the edit was made for; any other model is refused.
        measured: what the method measured on the way (target probability, norms).
    """

    facts: tuple[Fact, ...]
    method: str
    updates: tuple[LowRank, ...]
    fingerprint: str
    measured: dict[str, float] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the changes: two edits of one digest are the same edit, read from disk or made anew."""
        hashed = hashlib.sha256(self.fingerprint.encode())
        for update in self.updates:
            for factor in (update.key, update.value):
                hashed.update(f"{update.layer}{tuple(factor.shape)}".encode())
                hashed.update(factor.detach().double().cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    def apply(self, model: Model) -> None:
        """Add the edit to the model's weights.

        Raises:
            ValueError: another model, or an edit that is applied already.
            RuntimeError: something else changed an edited weight meanwhile.

        Warns:
            UserWarning: it conflicts with an edit that is applied, as `conflicts` says.
        """
        if model.fingerprint != self.fingerprint:
            raise ValueError(
                f"this edit was made for model {self.fingerprint[:12]}, and {model.name} is {model.fingerprint[:12]}: "
                "make the edit again on this model"
            )
        stack = _stack(model)
        if self.digest in stack.edits:
            raise ValueError(f"this {self.method} edit is already applied to {model.name}: undo it first")
        for other in stack.edits.values():
            for conflict in conflicts([other, self]):
                warnings.warn(f"{conflict}; both are applied to {model.name} now", stacklevel=2)
        stack.write(model, {**stack.edits, self.digest: self})

    def undo(self, model: Model) -> None:
        """Take the edit out again; with the last one gone the weights are bit for bit the original ones.

        Raises:
            ValueError: the edit is not applied to this model.
            RuntimeError: something else changed an edited weight meanwhile.
        """
        stack = _stack(model)
        if self.digest not in stack.edits:
            raise ValueError(f"this {self.method} edit is not applied to {model.name}: nothing to undo")
        stack.write(model, {digest: edit for digest, edit in stack.edits.items() if digest != self.digest})

    @contextmanager
    def applied(self, model: Model) -> Iterator[None]:
        """The edit, inside a `with` block.

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

    def save(self, file: Path) -> None:
        """Write the edit to a safetensors file of some kilobytes."""
        from safetensors.torch import save_file

        tensors = {}
        for i, update in enumerate(self.updates):
            tensors |= {f"{i}.key": update.key.contiguous(), f"{i}.value": update.value.contiguous()}
        about = {
            "facts": [asdict(fact) for fact in self.facts], "method": self.method, "measured": self.measured,
            "fingerprint": self.fingerprint, "layers": [update.layer for update in self.updates],
        }  # fmt: skip
        save_file(tensors, file, {"edit": json.dumps(about)})

    @staticmethod
    def load(file: Path) -> "Edit":
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(file, "pt") as opened:
            about = json.loads(opened.metadata()["edit"])
            updates = tuple(
                LowRank(layer, opened.get_tensor(f"{i}.key"), opened.get_tensor(f"{i}.value"))
                for i, layer in enumerate(about["layers"])
            )
        facts = tuple(Fact(**fact) for fact in about["facts"])
        return Edit(facts, about["method"], updates, about["fingerprint"], about["measured"])


@dataclass
class _Stack:
    """The edits applied to one model, by digest, and the original weights they were added to."""

    original: dict[int, Tensor] = field(default_factory=dict)
    edits: dict[str, Edit] = field(default_factory=dict)

    @torch.no_grad()
    def write(self, model: Model, edits: dict[str, Edit]) -> None:
        """Set each touched weight to its original plus these edits, summed in an order free of history."""
        touched = {update.layer for edit in (*self.edits.values(), *edits.values()) for update in edit.updates}
        weights = {layer: model.w_out(layer) for layer in touched}
        original = {layer: self.original.get(layer, weights[layer].clone()) for layer in touched}
        for layer, weight in weights.items():
            if not torch.equal(weight, _sum(original[layer], layer, self.edits)):
                raise RuntimeError(
                    f"the weights of layer {layer} of {model.name} were changed by something else since an edit was "
                    "applied, and writing the edits anew would lose that: undo the other change first"
                )
        changed = {layer: _sum(original[layer], layer, edits) for layer in touched}
        for layer, weight in weights.items():
            weight.copy_(changed[layer])
        still = {update.layer for edit in edits.values() for update in edit.updates}
        self.original, self.edits = {layer: original[layer] for layer in still}, edits


def _sum(original: Tensor, layer: int, edits: dict[str, Edit]) -> Tensor:
    """The original plus what the edits add to a layer, in float64, by digest; as it is if they add nothing."""
    deltas = [u.delta for _, edit in sorted(edits.items()) for u in edit.updates if u.layer == layer]
    if not deltas:
        return original
    return torch.stack([original.cpu().double(), *(delta.cpu() for delta in deltas)]).sum(0).to(original)


_STACKS: "WeakKeyDictionary[nn.Module, _Stack]" = WeakKeyDictionary()


def _stack(model: Model) -> _Stack:
    return _STACKS.setdefault(model.hf, _Stack())


def conflicts(edits: Sequence[Edit]) -> tuple[str, ...]:
    """What speaks against applying these edits together, one sentence each.

    Two edits conflict when they say different things of one subject in one prompt, or when their keys at a layer point
    the same way (|cos| above 0.5), so that each changes what the other wrote.
    """
    found = []
    for one, other in combinations(edits, 2):
        for a in one.facts:
            for b in other.facts:
                if (a.subject, a.prompt) == (b.subject, b.prompt) and a.new != b.new:
                    found.append(f"{a.text!r} is edited to both {a.new!r} and {b.new!r}")
        for u in one.updates:
            for w in (w for w in other.updates if w.layer == u.layer):
                cosine = torch.nn.functional.cosine_similarity(u.key[:, None].double(), w.key[None].double(), dim=-1)
                if float(cosine.abs().max()) > OVERLAP:
                    found.append(
                        f"keys of {one.facts[0].subject!r} and {other.facts[0].subject!r} overlap at layer {u.layer} "
                        f"(cosine {float(cosine.abs().max()):.2f})"
                    )
    return tuple(found)
