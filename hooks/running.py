"""Following the forward passes of a model while somebody needs to know which tokens they compute."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from threading import get_ident, local
from time import monotonic, sleep
from typing import Any, final
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from hooks.errors import InvalidArgument, WrongState
from hooks.huggingface import HFModel, HFOutput
from hooks.interventions import Intervention
from hooks.passes import Pass, asked_mask, continue_tokens, fresh, spread
from hooks.site import Site, logits
from hooks.temporary import Temporary
from hooks.tokens import Tokens

InterventionPlan = Mapping[Site, tuple[Intervention, ...]]
Begins = Callable[[Pass], None]
Reads = Callable[[Mapping[int | str, Any]], Tokens]
"""From the arguments of a module that reads no text to what it reads."""


@final
@dataclass(eq=False)
class InterventionBlock:
    """A block of interventions: what it changes, what is called as each pass begins, its turn, and whether it ended."""

    plan: InterventionPlan
    begins: Begins
    turn: "Turn"
    ended: bool = False


class _Here(local):
    """What one thread knows of its own passes.

    Attributes:
        read: the prompt being read.
        resting: True while its open blocks change nothing.
        blocks: its open blocks, those opened first before the others.
        passes: the passes in flight, the innermost last, each with what it has taken; None for one that rests.
        cached: the tokens that are in a KV cache, and the prompt they were read under.
    """

    def __init__(self) -> None:
        self.read: Tokens | None = None
        self.resting = False
        self.blocks: tuple[ReferenceType[InterventionBlock], ...] = ()
        self.passes: list[tuple[Pass | None, Temporary]] = []
        self.cached: WeakKeyDictionary[Any, tuple[Tokens, Tokens | None]] = WeakKeyDictionary()


_ATTACHED: "WeakKeyDictionary[nn.Module, tuple[str, ...]]" = WeakKeyDictionary()


def note_attached(hf: HFModel, methods: Sequence[str]) -> None:
    """Note by which methods a model is edited by what is attached next to its weights; none ends the note.

    Examples:
        ```python
        note_attached(model.hf, ["grace"])
        ```
    """
    if methods:
        _ATTACHED[hf] = tuple(methods)
    else:
        _ATTACHED.pop(hf, None)


@final
class PassTracker:
    """Follows the forward passes of one Hugging Face model while somebody needs to know their tokens.

    Threads that share a model take turns, pass by pass. A block of interventions changes the passes of the thread that
    opened it, and no others.
    """

    def __init__(self, hf: HFModel, special: frozenset[int], reads: Reads | None = None) -> None:
        self._hf = hf
        self._special = special
        self._own = reads
        self._here = _Here()
        self._turn = _Turn()
        self._everywhere: dict[int, ReferenceType[InterventionBlock]] = {}

    def __reduce__(self) -> tuple[type, tuple[HFModel, frozenset[int], Reads | None]]:
        return PassTracker, (self._hf, self._special, self._own)

    @property
    def current(self) -> Pass | None:
        """This thread's pass in flight; None outside the model's forward."""
        return self._here.passes[-1][0] if self._here.passes else None

    @property
    def active(self) -> dict[Site, tuple[Intervention, ...]]:
        """The interventions of this thread's open blocks, those opened first before the others."""
        found: dict[Site, tuple[Intervention, ...]] = {}
        for block in self._blocks():
            found |= {site: (*found.get(site, ()), *chain) for site, chain in block.plan.items()}
        return found

    @property
    def changed_by(self) -> tuple[str, ...]:
        """What besides the weights makes this thread's passes what they are: interventions, edits next to weights."""
        held = {} if self.resting else self.active
        edits = (f"an edit by {method}" for method in _ATTACHED.get(self._hf, ()))
        return (*(f"{one} at {site}" for site, chain in held.items() for one in chain), *edits)

    @property
    def resting(self) -> bool:
        """Whether this thread's open blocks change nothing."""
        return self._here.resting

    def check_outside(self, why: str) -> None:
        """Refuse an open block; `why` ends in what to do instead.

        Raises:
            WrongState: a block of this thread changes the model's passes.

        Examples:
            ```python
            model.running.check_outside("check measures the model as it is: check it outside the block")
            ```
        """
        if self.active and not self.resting:
            raise WrongState(f"a block of interventions is open at {', '.join(map(str, self.active))}, and {why}")

    def check_unchanged(self, why: str) -> None:
        """Refuse to keep something as the model's own while a block, or an edit next to its weights, changes it.

        Raises:
            WrongState: a block of this thread changes the model's passes; or an edit is attached to the model.

        Examples:
            ```python
            model.running.check_unchanged("a store holds what the model computes: harvest outside the block")
            ```
        """
        self.check_outside(why)
        if (attached := _ATTACHED.get(self._hf)) is not None:
            raise WrongState(
                f"edits by {', '.join(attached)} work next to the model's weights, and what is kept is known by the "
                "weights alone: undo the edits first"
            )

    @contextmanager
    def reading(self, tokens: Tokens) -> Iterator[None]:
        """Say which prompt the passes inside the block read: it may have texts and offsets.

        Examples:
            ```python
            with model.running.reading(tokens):
                ...
            ```
        """
        here, depth = self._here, len(self._here.passes)
        with Temporary() as changes:
            self._turn.take(changes)
            changes.make(lambda: None, lambda: here.passes.__delitem__(slice(depth, None)))  # an interrupted pass
            # torch's own `no_grad`, of which models make use, leaves gradients off where an interrupt meets its end
            if torch.is_grad_enabled():
                changes.make(lambda: None, partial(torch.set_grad_enabled, True))
            _put(changes, here, "read", tokens)
            yield

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Let the model run as if no block of interventions were open.

        Examples:
            ```python
            with model.running.at_rest():
                clean = model.run("Fog")
            ```
        """
        with Temporary() as changes:
            self._turn.take(changes)
            _put(changes, self._here, "resting", True)
            yield

    def follow(self, changes: Temporary, plan: InterventionPlan, begins: Begins) -> InterventionBlock:
        """Open a block: until the changes are taken back `plan` is active, and `begins` is called as a pass begins.

        The hooks of its sites are made next, and then `follow_end` is called: until then no other thread runs the
        model, nor when they are taken back.

        Examples:
            ```python
            with Temporary() as changes:
                block = model.running.follow(changes, {}, print)
                model.running.follow_end(changes, block)
                model.run("Fog")
            ```
        """
        block = InterventionBlock(plan, begins, self._turn.mine())
        changes.make(partial(self._turn.wait, block.turn), partial(self._turn.give_back, block.turn))
        if not self._blocks():
            self._here.passes.clear()
            self._here.cached.clear()
        changes.make(partial(self._open, block), partial(setattr, block, "ended", True))
        if self._own is None and self._hf.can_generate():
            changes.make(partial(self._say_prompts, block), partial(self._stop_saying_prompts, block))
        changes.pre_hook(self._hf, partial(self._begin, ref(block)))
        return block

    def follow_end(self, changes: Temporary, block: InterventionBlock) -> None:
        """Have each pass end after every hook there is: those of sites may be on the whole model.

        Examples:
            ```python
            model.running.follow_end(changes, block)
            ```
        """
        changes.hook(self._hf, partial(self._end, ref(block)), always=True)
        changes.make(partial(self._turn.give_back, block.turn), partial(self._turn.wait, block.turn, patience=PATIENCE))

    def _blocks(self) -> list[InterventionBlock]:
        """This thread's blocks that are open."""
        held = (reference() for reference in self._here.blocks)
        return [block for block in held if block is not None and not block.ended]

    def _open(self, block: InterventionBlock) -> None:
        self._here.blocks = (*map(ref, self._blocks()), ref(block))

    def _say_prompts(self, block: InterventionBlock) -> None:
        self._everywhere[id(block)] = ref(block)
        if not isinstance(vars(self._hf).get("generate"), _SaysItsPrompt):
            self._hf.generate = _SaysItsPrompt(self._hf, self._reads)

    def _stop_saying_prompts(self, block: InterventionBlock) -> None:
        self._everywhere.pop(id(block), None)
        ours = vars(self._hf).get("generate")
        if not isinstance(ours, _SaysItsPrompt) or self._others():
            return
        if ours.own is None:
            vars(self._hf).pop("generate", None)
        else:
            self._hf.generate = ours.own
        if others := self._others():  # another thread opened a block meanwhile
            self._say_prompts(others[0])

    def _others(self) -> list[InterventionBlock]:
        """The open blocks of all threads."""
        held = [reference() for reference in [*self._everywhere.values()]]
        return [block for block in held if block is not None and not block.ended]

    @contextmanager
    def _reads(self, ids: Tensor, mask: Any) -> Iterator[None]:
        """Inside the block the prompt is `ids`, unless `reading` has said already which it is."""
        read = self._here.read
        if not self._blocks() or (read is not None and spread(read, ids) is not None):
            yield
            return
        with self.reading(fresh(ids, asked_mask(mask, *ids.shape), self._special)):
            yield

    def _begin(
        self, block: "ReferenceType[InterventionBlock]", _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note a pass that begins; the block opened first does so for all."""
        blocks = self._blocks()
        if not blocks or block() is not blocks[0]:
            return
        here = self._here
        taken = Temporary()
        self._turn.take(taken)
        here.passes.append((None, taken))
        if not here.resting:
            passing = self._next(args, kwargs)
            here.passes[-1] = (passing, taken)
            for one in blocks:
                one.begins(passing)

    def _end(self, block: "ReferenceType[InterventionBlock]", _m: nn.Module, _a: Any, output: HFOutput) -> None:
        """Note that a pass has ended; the block opened last does so for all."""
        blocks, here = self._blocks(), self._here
        if not blocks or block() is not blocks[-1] or not here.passes:
            return
        passing, taken = here.passes.pop()
        taken.end()
        cache = getattr(output, "past_key_values", None)
        if cache is not None and passing is not None:
            here.cached[cache] = (passing.tokens, here.read)

    def _next(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pass:
        if self._own is not None:
            read, given = self._here.read, self._own(dict([*enumerate(args), *kwargs.items()]))
            tokens = read if read is not None and read.images is not None and len(read) == len(given) else given
            return Pass(tokens, 0, tokens.ids.shape[1])
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
        known = self._recall_text(cache, start, ids)
        if known is not None:
            return Pass(continue_tokens(known, ids, start, mask, self._special), start, end)
        if mask is None and kwargs.get("attention_mask") is not None:
            raise InvalidArgument("the attention mask hides the padding: pass one of [batch pos]")
        return Pass(fresh(ids, mask, self._special), start, end)

    def _recall_text(self, cache: Any, start: int, ids: Tensor) -> Tokens | None:
        """What is known of the text that this pass continues."""
        here = self._here
        if start == 0:
            return None if here.read is None else spread(here.read, ids)
        tokens, read = here.cached.get(cache, (None, None))
        if tokens is None or tokens.ids.shape[1] < start:
            raise InvalidArgument("a KV cache was filled outside the block: start the generation inside it")
        if here.read is None or here.read is read or len(tokens) != len(ids):
            return tokens
        whole = torch.cat([tokens.ids[:, :start], ids], dim=1)
        return spread(here.read, whole) or tokens


@final
class _SaysItsPrompt:
    """A model's `generate`, which says where the prompt ends: a first pass may read less of it, or guesses beyond."""

    def __init__(self, hf: HFModel, reads: Callable[[Tensor, Any], Any]) -> None:
        self.own = vars(hf).get("generate")
        self._hf, self._reads = hf, reads

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._generate)

    @property
    def _generate(self) -> Callable[..., Any]:
        return partial(type(self._hf).generate, self._hf) if self.own is None else self.own

    def __call__(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        ids = kwargs.get("input_ids") if inputs is None else inputs
        if not isinstance(ids, Tensor):
            return self._generate(inputs, *args, **kwargs)
        with self._reads(ids, kwargs.get("attention_mask")):
            return self._generate(inputs, *args, **kwargs)


Turn = tuple[int, object]
PATIENCE = 10.0
"""Seconds that hooks to be taken back wait for the pass of another thread."""


@final
class _Turn:
    """Lets one thread run the model at a time; a thread that has the turn takes it again without waiting.

    Taking it and noting who has it are one step, so an interrupt cannot come between the two.
    """

    def __init__(self) -> None:
        self._of: dict[str, Turn] = {}

    def mine(self) -> Turn:
        """Return what names a turn of this thread."""
        return get_ident(), object()

    def take(self, changes: Temporary) -> None:
        """Wait for the turn, and keep it until the changes are taken back."""
        mine = self.mine()
        changes.make(partial(self.wait, mine), partial(self.give_back, mine))

    def is_held(self) -> bool:
        """Return whether a thread has it."""
        return bool(self._of)

    def wait(self, mine: Turn, patience: float = inf) -> None:
        """Wait until this thread has the turn, or the patience is at an end."""
        latest = monotonic() + patience
        while self._of.setdefault("turn", mine)[0] != mine[0] and monotonic() < latest:
            sleep(0.0005)

    def give_back(self, mine: Turn) -> None:
        """Give the turn back, where it was taken under this name."""
        if self._of.get("turn") is mine:
            self._of.pop("turn", None)


def _put(changes: Temporary, here: _Here, name: str, value: Any) -> None:
    """Set what a thread knows, until the changes are taken back."""
    was = getattr(here, name)

    def back() -> None:
        if getattr(here, name) is value:
            setattr(here, name, was)

    changes.make(partial(setattr, here, name, value), back)
