"""What is measured once for a model as it is by itself, and again once its weights are others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, final
from weakref import WeakKeyDictionary

from torch import nn

from hooks import Model
from hooks.fingerprint import fingerprint
from interp.memory.editing.edit import suspend_edits

K = TypeVar("K")
V = TypeVar("V")


@contextmanager
def by_itself(model: Model) -> Iterator[None]:
    """The model without its edits and without the interventions of open blocks, inside a `with` block."""
    with model.running.at_rest(), suspend_edits(model):
        yield


@final
class Remembered(Generic[K, V]):
    """Measurements by model."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[nn.Module, tuple[str, Any, dict[K, V]]] = WeakKeyDictionary()

    def of(self, model: Model) -> dict[K, V]:
        """Return what was measured of these weights and this tokenizer, to be added to.

        Cost: one reading of the weights.
        """
        with by_itself(model):
            now = fingerprint(model.hf)
        kept = self._kept.get(model.hf)
        if kept is None or kept[0] != now or kept[1] is not model.tokenizer:
            kept = self._kept[model.hf] = now, model.tokenizer, dict[K, V]()
        return kept[2]
