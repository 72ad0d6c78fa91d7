"""Taps: reading and changing the tensor of one site as it flows through a Hugging Face module."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import local
from typing import Any, Literal, Protocol, final, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hooks.errors import WrongState
from hooks.huggingface import HFOutput
from hooks.shards import TensorShard
from hooks.site import PATTERNS, STATES, Site
from hooks.summary import summarise
from hooks.temporary import Temporary
from hooks.view import View

Changed = tuple[tuple[Any, ...], dict[str, Any]]
Edit = Callable[[Float[Tensor, "..."]], Float[Tensor, "..."] | None]
Hook = tuple[bool, nn.Module, Callable[..., Any]]
"""Whether a hook comes before its module's pass, the module, and the hook."""
Aliases = frozenset[Literal["shared", "overwritten"]]


@final
@dataclass(frozen=True)
class MergedAxes:
    """A block that merges batch and pos around a module (OPT), and which of its arguments is its stream."""

    block: nn.Module
    slot: int | str = 0


@final
@dataclass(frozen=True)
class OneCall:
    """One call of a module that runs more than once in a pass: its number, and the model whose calls begin a pass."""

    number: int
    root: nn.Module


@final
@dataclass(frozen=True)
class Tap:
    """Where a site sits and how its tensor is taken out and put back.

    Attributes:
        site: the site.
        module: the Hugging Face module it sits on.
        side: what is read: the first input of the module, or its output.
        shape: the shape of one token's value.
        part: which argument is read, by its place or its name; or which part of the output, when it is a tuple or a
            mapping.
        view: what of that tensor is the site.
        alias: what else the tensor is. `shared`: also the residual stream that bypasses the module, so it is changed in
            place. `overwritten`: the model adds to it in place later (Falcon), so what is read is a copy.
        axes: how the tensor is where it is not [batch pos *d], as which it is given all the same: the axes that
            count places ((0,) where the model has [pos batch d], as XLNet does), of a tensor without any () and a row
            of the batch is one place; or where batch and pos are merged.
        call: which call of the module in a pass, where it runs more than once; None for the only one.
        inside: for sites inside a module that does not call a part of its own there (experts, patterns).
        shard: how the processes of a tensor-parallel model share the tensor; None in a model of one process.
    """

    site: Site
    module: nn.Module
    side: Literal["input", "output"]
    shape: tuple[int, ...]
    part: int | str = 0
    view: View = View()
    alias: Aliases = frozenset()
    axes: tuple[int, ...] | MergedAxes | None = None
    call: OneCall | None = None
    inside: "Accessor | None" = None
    shard: TensorShard | None = None

    __repr__ = summarise

    @property
    def read_only(self) -> bool:
        """True when the site can be captured but not changed."""
        return self.view.derive is not None or self.site.name in (*PATTERNS, *STATES)

    def attach(self, edit: Edit) -> "Handle":
        """Call `edit` with the site's tensor at each pass of any thread; what it returns, if anything, flows on.

        Examples:
            ```python
            handle = tap.attach(lambda a: 2 * a)
            ```
        """
        hooked = _Handles(
            tuple(
                module.register_forward_pre_hook(hook, with_kwargs=True)
                if before
                else module.register_forward_hook(hook, with_kwargs=True)
                for before, module, hook in self._hooks(edit)
            ),
            self._asked,
        )
        self._asked[hooked] = str(self.site)
        return hooked

    def attach_during(self, changes: Temporary, edit: Edit) -> None:
        """Do the same at each pass of this thread, until the changes are taken back.

        Examples:
            ```python
            with Temporary() as changes:
                tap.attach_during(changes, lambda a: 2 * a)
            ```
        """
        if self.inside is not None:
            changes.make(lambda: None, self.inside.end)
        asked, key = self._asked, object()
        changes.make(lambda: asked.update({key: str(self.site)}), lambda: asked.pop(key, None))
        for before, module, hook in self._hooks(edit):
            if before:
                changes.pre_hook(module, hook)
            else:
                changes.hook(module, hook, always=self.inside is not None, with_kwargs=True)

    @property
    def _asked(self) -> dict[object, str]:
        """What is noted of the hooks that are on a model of several processes."""
        return {} if self.shard is None else self.shard.ranks.asked

    def _hooks(self, edit: Edit) -> list["Hook"]:
        """The hooks that call an edit."""
        hooks: list[Hook] = []
        if self.shard is not None:
            edit = _gathering(edit, self.shard) if self.inside is not None else edit
        if self.call is not None:
            edit = _at_one_call(edit, self.call, hooks)
        if self.inside is not None:
            return [*hooks, *self.inside.hooks(edit)]
        if isinstance(self.axes, MergedAxes):
            edit = _unflatten(edit, self.axes, hooks)
        elif self.axes is not None:
            edit = _by_place(edit, self.axes)
        return [*hooks, self._hook(edit)]

    def _hook(self, edit: Edit) -> "Hook":
        if self.side == "input":
            return True, self.module, lambda _, args, kwargs: self._edit_input(edit, args, kwargs)
        return False, self.module, lambda _m, _a, _k, output: self._edit_output(edit, output)

    def _edit_input(self, edit: Edit, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed | None:
        raw = _argument(args, kwargs, self.part)
        changed = self._edit(edit, raw)
        if changed is None:
            return None
        if "shared" in self.alias:
            raw.copy_(changed)
            return None
        at = _place(args, kwargs, self.part)
        if isinstance(at, str):
            return args, {**kwargs, at: changed}
        return (*args[:at], changed, *args[at + 1 :]), kwargs

    def _edit_output(self, edit: Edit, output: HFOutput) -> HFOutput:
        if isinstance(output, Tensor):
            return self._edit(edit, output)
        part: Any = 0 if isinstance(output, tuple) and isinstance(self.part, str) else self.part
        if output[part] is None:
            raise WrongState(
                f"{type(self.module).__name__} does not return its {self.site.name}, so {self.site} is unknown"
            )
        changed = self._edit(edit, output[part])
        if changed is None:
            return None
        if isinstance(output, tuple):
            each = [changed if i == part else item for i, item in enumerate(output)]
            return type(output)(*each) if hasattr(output, "_fields") else tuple(each)
        output[part] = changed
        return output

    def _edit(self, edit: Edit, held: Tensor) -> Tensor | None:
        """What flows on in place of a tensor, if anything: of a part, the part of what the whole becomes."""
        raw = held if self.shard is None else self.shard.gather(held)
        changed = edit(self._read(raw))
        if changed is None:
            return None
        changed = self.view.write(raw, changed)
        return changed if self.shard is None else self.shard.scatter(changed)

    def _read(self, raw: Tensor) -> Tensor:
        return self.view.read(raw.clone() if "overwritten" in self.alias else raw)


@runtime_checkable
class Accessor(Protocol):
    """How a tensor inside a module is read and put back."""

    def hooks(self, edit: Edit) -> list[Hook]:
        """Return the hooks that call an edit with it, [batch pos *d]; the later also if it raised."""
        ...

    def end(self) -> None:
        """Take back what an interrupted pass has begun in this thread."""
        ...


@runtime_checkable
class Handle(Protocol):
    """What is attached, and can be removed."""

    def remove(self) -> None:
        """Take the hooks off.

        Examples:
            ```python
            tap.attach(print).remove()
            ```
        """
        ...


@final
@dataclass(frozen=True, eq=False)
class _Handles:
    """Hooks that go together, and where they are noted."""

    each: tuple[RemovableHandle, ...]
    asked: dict[object, str]

    def remove(self) -> None:
        for handle in self.each:
            handle.remove()
        self.asked.pop(self, None)


def _gathering(edit: Edit, shard: TensorShard) -> Edit:
    """Give `edit` the whole of a tensor inside a module, and its part of what that becomes back to the module."""

    def gathered(a: Tensor) -> Tensor | None:
        changed = edit(shard.gather(a))
        return None if changed is None else shard.scatter(changed)

    return gathered


def _at_one_call(edit: Edit, call: OneCall, hooks: list[Hook]) -> Edit:
    """Call `edit` at one call of the module in each pass, counted from the beginning of the pass."""
    seen = local()  # each thread's passes have calls of their own
    hooks.append((True, call.root, lambda *_: setattr(seen, "calls", 0)))

    def counted(a: Tensor) -> Tensor | None:
        number = seen.calls
        seen.calls += 1
        return edit(a) if number == call.number else None

    return counted


def _unflatten(edit: Edit, merged: MergedAxes, hooks: list[Hook]) -> Edit:
    """Give `edit` [batch pos d], of the shape that the block around the module was given."""
    here = local()

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        here.shape = _argument(args, kwargs, merged.slot).shape

    def unflattened(a: Tensor) -> Tensor | None:
        if a.ndim == len(here.shape):
            return edit(a)
        changed = edit(a.unflatten(0, here.shape[:2]))
        return None if changed is None else changed.flatten(0, 1)

    hooks.append((True, merged.block, note))
    return unflattened


def _by_place(edit: Edit, axes: tuple[int, ...]) -> Edit:
    """Give `edit` [batch pos *d] of a tensor whose places these axes count."""
    front = tuple(range(1, 1 + len(axes)))

    def placed(a: Tensor) -> Tensor | None:
        moved = a.movedim(axes, front)
        changed = edit(moved.flatten(1, len(axes)) if axes else a.unsqueeze(1))
        if changed is None:
            return None
        return changed.reshape(len(changed), *moved.shape[1:]).movedim(front, axes)

    return placed


def _place(args: tuple[Any, ...], kwargs: dict[str, Any], slot: int | str) -> int | str:
    """Where an argument is: its place, or its name where it was passed by name; else the first there is."""
    if slot in kwargs or (isinstance(slot, int) and slot < len(args)):
        return slot
    return 0 if args else next(iter(kwargs))


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], slot: int | str) -> Tensor:
    at = _place(args, kwargs, slot)
    return kwargs[at] if isinstance(at, str) else args[at]
