"""Changes to a model that are all taken back when their block ends, also where an interrupt ends it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any, final
from weakref import finalize

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

Hook = Callable[..., Any]


@final
class Temporary:
    """Hooks and other changes that are made inside a `with` block and all taken back at its end.

    What takes a change back is noted before the change is made, so that an interrupt between any two steps leaves
    nothing on the model. A hook acts on the passes of the thread that made it, and on no others.

    Examples:
        ```python
        with Temporary() as changes:
            changes.hook(model.blocks[0], lambda _module, _args, output: None)
            model.run("Fog")
        ```
    """

    def __init__(self) -> None:
        self._thread = get_ident()
        self._take_back: list[Callable[[], object]] = []
        # For an interrupt before `__exit__` could begin. No `__del__`: it would run after every block, and Python
        # loses an interrupt that comes inside one.
        self._lost = finalize(self, _take_all_back, self._take_back)
        self._lost.atexit = False

    def __enter__(self) -> "Temporary":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end()
        finally:
            self.end()

    def make(self, do: Callable[[], object], undo: Callable[[], object]) -> None:
        """Make a change now and take it back at the end; `undo` may be called twice, and without `do` before it.

        Examples:
            ```python
            changes.make(partial(setattr, config, "use_cache", False), partial(setattr, config, "use_cache", True))
            ```
        """
        self._take_back.append(undo)
        do()

    def hook(self, module: nn.Module, hook: Hook, *, always: bool = False, with_kwargs: bool = False) -> None:
        """Call `hook(module, args, output)` after each pass of a module.

        Args:
            module: the module.
            hook: what is called.
            always: also after a pass that raised.
            with_kwargs: call `hook(module, args, kwargs, output)`.

        Examples:
            ```python
            changes.hook(model.hf, lambda _module, _args, output: print(output.logits.shape))
            ```
        """
        called_always, wants_kwargs = module._forward_hooks_always_called, module._forward_hooks_with_kwargs
        handle = RemovableHandle(module._forward_hooks, extra_dict=[called_always, wants_kwargs])
        self._take_back.append(handle.remove)
        if always:
            called_always[handle.id] = True
        if with_kwargs:
            wants_kwargs[handle.id] = True
        module._forward_hooks[handle.id] = self._on_own_thread(hook)

    def pre_hook(self, module: nn.Module, hook: Hook) -> None:
        """Call `hook(module, args, kwargs)` before each pass of a module.

        Examples:
            ```python
            changes.pre_hook(model.hf, lambda _module, args, kwargs: None)
            ```
        """
        with_kwargs = module._forward_pre_hooks_with_kwargs
        handle = RemovableHandle(module._forward_pre_hooks, extra_dict=with_kwargs)
        self._take_back.append(handle.remove)
        with_kwargs[handle.id] = True
        module._forward_pre_hooks[handle.id] = self._on_own_thread(hook)

    def end(self) -> None:
        """Take everything back, the last change first; an interrupt meanwhile is raised after that.

        Examples:
            ```python
            changes.end()
            ```
        """
        _take_all_back(self._take_back)
        self._lost.detach()

    def _on_own_thread(self, hook: Hook) -> Hook:
        thread = self._thread

        def guarded(module: nn.Module, *given: Any) -> Any:
            return hook(module, *given) if get_ident() == thread else None

        return guarded


def _take_all_back(changes: list[Callable[[], object]]) -> None:
    late: BaseException | None = None
    while changes:
        undo = changes[-1]
        try:
            undo()
        except BaseException as error:
            late = error
            undo()
        changes.pop()
    if late is not None:
        raise late


@contextmanager
def grad_mode(on: bool) -> Iterator[None]:
    """Inside the block torch notes what gradients need, or does not.

    As `torch.set_grad_enabled`, but an interrupt as the block opens or ends never leaves the mode of the block.

    Examples:
        >>> with grad_mode(False):
        ...     torch.is_grad_enabled()
        False
    """
    with Temporary() as changes:
        changes.make(partial(torch.set_grad_enabled, on), partial(torch.set_grad_enabled, torch.is_grad_enabled()))
        yield
