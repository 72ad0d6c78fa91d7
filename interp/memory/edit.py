"""An edit of facts: low-rank changes of feed-forward weights that apply, undo bit-exactly, stack, save and load."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
    """ΔW = key ⊗ value for one layer, in the orientation mlp_act @ W: ΔW[i, j] = Σ_r key[r, i] value[r, j]."""

    layer: int
    key: Float[Tensor, "n d_mlp"]
    value: Float[Tensor, "n d_model"]

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

    def apply(self, model: Model) -> None:
        """Add the edit to the model's weights.

        Raises:
            ValueError: another model, or an edit that is applied already.
        """
        if model.fingerprint != self.fingerprint:
            raise ValueError(
                f"this edit was made for model {self.fingerprint[:12]}, and {model.name} is {model.fingerprint[:12]}: "
                "make the edit again on this model"
            )
        stack = _stack(model)
        if any(edit is self for edit in stack.edits):
            raise ValueError(f"this {self.method} edit is already applied to {model.name}: undo it first")
        stack.edits.append(self)
        stack.write(model)

    def undo(self, model: Model) -> None:
        """Take the edit out again; with the last one gone the weights are bit for bit the original ones.

        Raises:
            ValueError: the edit is not applied to this model.
        """
        stack = _stack(model)
        if not any(edit is self for edit in stack.edits):
            raise ValueError(f"this {self.method} edit is not applied to {model.name}: nothing to undo")
        stack.edits = [edit for edit in stack.edits if edit is not self]
        stack.write(model)

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
    """The edits applied to one model, and the original weights they were added to."""

    original: dict[int, Tensor] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)

    @torch.no_grad()
    def write(self, model: Model) -> None:
        """Set each touched weight to its original plus what remains, summed in an order free of history."""
        updates = [update for edit in self.edits for update in edit.updates]
        for layer in {u.layer for u in updates} - set(self.original):
            self.original[layer] = model.w_out(layer).detach().clone()
        for layer, original in tuple(self.original.items()):
            here = sorted((u for u in updates if u.layer == layer), key=lambda u: u.value.flatten().tolist())
            weight = model.w_out(layer)
            if here:
                changed = original.double().cpu() + torch.stack([u.delta.cpu() for u in here]).sum(0)
                weight.copy_(changed.to(weight))
            else:
                weight.copy_(self.original.pop(layer))


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
