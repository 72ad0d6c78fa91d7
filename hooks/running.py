"""Following the forward passes of a model while somebody needs to know which tokens they compute."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import RLock
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hooks.errors import InvalidArgument
from hooks.huggingface import HFModel, HFOutput
from hooks.interventions import Intervention
from hooks.passes import Pass, asked_mask, continued, fresh, spread
from hooks.site import Site, logits
from hooks.tokens import Tokens

Plan = Mapping[Site, tuple[Intervention, ...]]
Begins = Callable[[Pass], None]


@final
class Running:
    """Follows the forward passes of one Hugging Face model while somebody needs to know their tokens.

    Threads that share a model take turns, pass by pass; a block of interventions changes the passes of all of them.

    Attributes:
        current: the pass in flight; None outside the model's forward.
        active: the interventions of all open blocks, those opened first before the others.
        resting: True while the open blocks change nothing.
    """

    def __init__(self, hf: HFModel, special: frozenset[int]) -> None:
        self._hf = hf
        self._special = special
        self._read: Tokens | None = None
        self._turn = _Turn()
        self._open: tuple[tuple[Plan, Begins], ...] = ()
        self._watch = ExitStack()
        self._around: list[Pass | None] = []
        self._cached: WeakKeyDictionary[Any, tuple[Tokens, Tokens | None]] = WeakKeyDictionary()
        self._last: RemovableHandle | None = None
        self.current: Pass | None = None
        self.active: dict[Site, tuple[Intervention, ...]] = {}
        self.resting = False

    @contextmanager
    def reading(self, tokens: Tokens) -> Iterator[None]:
        """Say which prompt the passes inside the block read: it may carry texts and offsets.

        Example:
            ```python
            with model.running.reading(tokens):
                ...
            ```
        """
        with self._turn:
            was, self._read = self._read, tokens
            try:
                yield
            finally:
                self._read = was

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Let the model run as if no block of interventions were open.

        Example:
            ```python
            with model.running.at_rest():
                clean = model.run("Fog")
            ```
        """
        with self._turn:
            was, self.resting = self.resting, True
            try:
                yield
            finally:
                self.resting = was

    @contextmanager
    def following(self, plan: Plan, begins: Begins) -> Iterator[None]:
        """Inside the block, `plan` is active, and `begins` is called before the first layer of each pass.

        Example:
            ```python
            with model.running.following({}, print):
                model.run("Fog")
            ```
        """
        block = (plan, begins)
        with self._turn:
            if not self._open:
                self._watch.enter_context(self._watching())
            self._come_last()
            self._hold_open((*self._open, block))
        try:
            yield
        finally:
            with self._turn:
                self._hold_open(tuple(one for one in self._open if one is not block))
                if not self._open:
                    self._watch.close()

    def _hold_open(self, blocks: tuple[tuple[Plan, Begins], ...]) -> None:
        self._open, self.active = blocks, {}
        for plan, _ in blocks:
            self.active |= {site: (*self.active.get(site, ()), *chain) for site, chain in plan.items()}

    @contextmanager
    def _watching(self) -> Iterator[None]:
        first = self._hf.register_forward_pre_hook(self._begin, with_kwargs=True)
        try:
            with _generate_says_its_prompt(self._hf, self._generating):
                yield
        finally:
            first.remove()
            if self._last is not None:
                self._last.remove()
            self._last, self.current = None, None
            self._around.clear()
            self._cached.clear()

    def _come_last(self) -> None:
        """Have the pass end behind every hook there is: those of sites may sit on the whole model."""
        if self._last is not None:
            self._last.remove()
        self._last = self._hf.register_forward_hook(self._end, always_call=True)

    @contextmanager
    def _generating(self, ids: Tensor, mask: Any) -> Iterator[None]:
        if self._read is not None and spread(self._read, ids) is not None:
            yield
            return
        with self.reading(fresh(ids, asked_mask(mask, *ids.shape), self._special)):
            yield

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._around.append(self.current)
        self.current = None
        if not self.resting:
            self.current = self._next(args, kwargs)
            for _plan, begins in self._open:
                begins(self.current)

    def _end(self, _m: nn.Module, _a: Any, output: HFOutput) -> None:
        passing, self.current = self.current, self._around.pop() if self._around else None
        cache = getattr(output, "past_key_values", None)
        if cache is not None and passing is not None:
            self._cached[cache] = (passing.tokens, self._read)

    def _next(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pass:
        ids = args[0] if args else kwargs.get("input_ids")
        if ids is None:
            raise InvalidArgument("the forward pass got no input_ids, so positions mean nothing: pass token ids")
        if isinstance(kwargs.get("logits_to_keep"), Tensor) and logits in self.active:
            raise InvalidArgument(
                "logits_to_keep picks columns one by one, so those of an intervention at logits are unknown: pass how "
                "many of the last to keep, or none"
            )
        cache = kwargs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())
        end = start + ids.shape[1]
        mask = asked_mask(kwargs.get("attention_mask"), ids.shape[0], end)
        known = self._known(cache, start, ids)
        if known is not None:
            return Pass(continued(known, ids, start, mask, self._special), start, end)
        if mask is None and kwargs.get("attention_mask") is not None:
            raise InvalidArgument("the attention mask hides the padding: pass one of [batch pos]")
        return Pass(fresh(ids, mask, self._special), start, end)

    def _known(self, cache: Any, start: int, ids: Tensor) -> Tokens | None:
        """What was said or seen of the text this pass goes on with."""
        if start == 0:
            return None if self._read is None else spread(self._read, ids)
        tokens, read = self._cached.get(cache, (None, None))
        if tokens is None or tokens.ids.shape[1] < start:
            raise InvalidArgument("a KV cache was filled outside the block: start the generation inside it")
        if self._read is None or self._read is read or len(tokens) != len(ids):
            return tokens
        whole = torch.cat([tokens.ids[:, :start], ids], dim=1)
        return spread(self._read, whole) or tokens


@final
class _Turn:
    """A lock that its holder may take again; a copy is a lock of its own."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Turn, ()


@contextmanager
def _generate_says_its_prompt(hf: HFModel, generating: Callable[[Tensor, Any], Any]) -> Iterator[None]:
    """Tell where the prompt ends: its first pass may hold a part of it, or guesses at what follows."""
    if not hf.can_generate():
        yield
        return
    generate, before = hf.generate, vars(hf).get("generate")

    @wraps(generate)
    def told(inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        ids = kwargs.get("input_ids") if inputs is None else inputs
        if not isinstance(ids, Tensor):
            return generate(inputs, *args, **kwargs)
        with generating(ids, kwargs.get("attention_mask")):
            return generate(inputs, *args, **kwargs)

    hf.generate = told
    try:
        yield
    finally:
        if before is None:
            del hf.generate
        else:
            hf.generate = before
