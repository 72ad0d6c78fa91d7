"""Edits of a session: what undoing one leaves, by the weights as they are."""

from typing import Any

import torch

from hooks import Model
from hooks.fingerprint import fingerprint
from interp.memory import Edit, Fact
from interp.memory.editing.change import LowRank
from interp.workbench.arguments import NamedArguments
from interp.workbench.editing import apply_edit, undo_edit
from interp.workbench.session import Session


class Silent:
    """Progress that nobody follows."""

    def send(self, event: str, data: Any) -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""


def writing(model: Model, layer: int) -> Edit:
    random = torch.Generator().manual_seed(layer)
    key, value = (torch.randn(1, n, generator=random) for n in (model.d_mlp, model.d_model))
    fact = Fact(f"Rome {layer}", "{} is in", "a", "b")
    return Edit((fact,), "writing", (LowRank(layer, key, value),), model.fingerprint)


def test_undoing_one_of_two_edits_is_not_called_identical_and_the_recorded_line_says_the_same(gpt2: Model) -> None:
    session, before = (
        Session(gpt2, edits={"edit_1": writing(gpt2, 0), "edit_2": writing(gpt2, 1)}),
        fingerprint(gpt2.hf),
    )
    for name in session.edits:
        apply_edit(session, NamedArguments(name=name), Silent())
    for name, left in (("edit_1", False), ("edit_2", True)):
        held: dict[str, Any] = {"model": gpt2, **session.edits, "fingerprint": fingerprint}
        assert undo_edit(session, NamedArguments(name=name), Silent())["identical"] is left
        exec(session.entries[-1].code.splitlines()[-1], held)  # noqa: S102
        assert held["value"] is left is session.entries[-1].value
        assert (fingerprint(gpt2.hf) == before) is left
    assert "import fingerprint" in session.script()
