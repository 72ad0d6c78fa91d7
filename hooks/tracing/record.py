"""Step 1: one forward pass, recorded operation by operation and module by module."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, final

import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from xxhash import xxh3_128

from hooks.temporary import grad_mode

Slot = int | str
"""Which argument of a call, by place or by name; which part of an output, likewise."""
VIEWS = frozenset(["view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "alias", "detach", "slice", "expand"])
VIEWS |= {"transpose", "permute", "split", "select"}
"""Operations that give a part of what they read, or all of it in another shape."""
_SAME = VIEWS | {"clone", "contiguous", "_to_copy", "lift_fresh"}
"""Operations that may give the numbers they are given, in the same order."""
_ALIASES = VIEWS
_PLAIN = (bool, int, float, str)


@final
@dataclass(frozen=True, eq=False)
class Op:
    """One tensor operation.

    Attributes:
        name: of the operation, such as `add`; one that works in place ends in `_`.
        func: the operation.
        args: its arguments, tensors as the numbers of their values (`Ref`).
        reads: the values it reads.
        makes: the values it makes.
        kwargs: its arguments by name, but for tensors.
    """

    name: str
    func: Any
    args: tuple[Any, ...]
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Ref:
    """The number of a value, where an operation was given a tensor."""

    value: int


@final
@dataclass(eq=False)
class Call:
    """One call of one module.

    Attributes:
        path: the module's name in the model.
        module: the module.
        number: which call of this module in the pass, from 0.
        begin, end: the operations inside it.
        inputs: value by argument.
        outputs: value by part; None as the part where the output is one tensor.
        given: arguments and keyword arguments as they were.
    """

    path: str
    module: nn.Module
    number: int
    begin: int
    end: int
    inputs: dict[Slot, int] = field(default_factory=dict)
    outputs: dict[Slot | None, int] = field(default_factory=dict)
    given: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})


@final
class Trace(TorchDispatchMode):
    """What happened in one forward pass.

    Attributes:
        ops: every operation, in order.
        calls: every call of a module, in the order in which they began.
        maker: for each value, the number of the operation that made it.
        overwritten: values that were changed in place after they were made.
        n_pos: how many tokens the text has.
        kernels: for each kernel of attention that was called, its first operation and the one after its last.
    """

    def __init__(self, n_pos: int) -> None:
        super().__init__()
        self.n_pos = n_pos
        self.kernels: list[tuple[int, int]] = []
        self.ops: list[Op] = []
        self.calls: list[Call] = []
        self.maker: dict[int, int] = {}
        self.overwritten: set[int] = set()
        self._written: set[int] = set()
        self._tensors: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        self._roots: dict[int, int] = {}
        self._sums: dict[tuple[object, ...], int] = {}
        self._aliases: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:  # noqa: ANN401, ARG002
        kwargs = kwargs or {}
        given, _ = tree_flatten((args, kwargs))
        reads = tuple(self.number(one) for one in given if isinstance(one, Tensor))
        shown = tuple(Ref(self.number(one)) if isinstance(one, Tensor) else one for one in args)
        output = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        made = [one for one in tree_flatten(output)[0] if isinstance(one, Tensor)]
        in_place = any(one is other for one in made for other in given)
        makes = tuple(self._make(one) for one in made)
        self._note(name, in_place, reads, makes)
        if name == "add" and len(reads) == 2:  # a stage of the stream computed twice is one stage
            same = self._sums.setdefault((*map(self.root, reads), repr(kwargs)), makes[0])
            self._roots[makes[0]] = self.root(same)
        named = {key: one for key, one in kwargs.items() if not isinstance(one, Tensor)}
        self.ops.append(Op(name, func, shown, reads, makes, named))
        self.maker |= dict.fromkeys(makes, len(self.ops) - 1)
        return output

    def _note(self, name: str, in_place: bool, reads: tuple[int, ...], makes: tuple[int, ...]) -> None:
        if in_place and reads and name.endswith("_"):
            self.overwritten.add(self.alias(reads[0]))
            self._written.add(_memory(self.tensor(reads[0])))
        if name not in _SAME or not reads:
            return
        for make in makes:
            if self.tensor(make).numel() == self.tensor(reads[0]).numel() and self._in_order(name, reads[0], make):
                self._roots[make] = self.root(reads[0])
                if name in _ALIASES:
                    self._aliases[make] = self.alias(reads[0])

    def _in_order(self, name: str, before: int, after: int) -> bool:
        """A transposition keeps the order where only axes of length 1 move."""
        if name not in ("transpose", "permute"):
            return True
        wide = [[n for n in self.tensor(one).shape if n > 1] for one in (before, after)]
        return len(wide[0]) == len(set(wide[0])) and wide[0] == wide[1]

    def number(self, tensor: Shaped[Tensor, "..."]) -> int:
        """Return the number of a tensor's present value."""
        found = self._numbers.get(id(tensor))
        return self._make(tensor) if found is None else found

    def _make(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)  # held, so that no other tensor takes its identity
        self._numbers[id(tensor)] = len(self._tensors) - 1
        return len(self._tensors) - 1

    def tensor(self, value: int) -> Shaped[Tensor, "..."]:
        """Return the tensor of a value; its numbers are those of the end of the pass."""
        return self._tensors[value]

    def root(self, value: int) -> int:
        """Return the value that a value is a view, a copy or the same sum of, up to shape and precision."""
        return self._roots.get(value, value)

    def alias(self, value: int) -> int:
        """Return the value whose memory a value shares."""
        return self._aliases.get(value, value)

    def is_overwritten(self, value: int) -> bool:
        """Return whether the memory of a value, or of a view of it, was written in place after it was made."""
        return self.alias(value) in self.overwritten or _memory(self.tensor(value)) in self._written

    def is_same(self, value: int, other: int) -> bool:
        """Return whether two values are one, or the one after a change in place of the other."""
        return self.root(value) == self.root(other) or _memory(self.tensor(value)) == _memory(self.tensor(other))

    def digest(self) -> str:
        """Return what tells this pass from any that did something else: its operations, calls and outputs, hashed."""
        running = xxh3_128()
        for op in self.ops:
            plain = [one for one in tree_flatten((op.args, op.kwargs))[0] if isinstance(one, _PLAIN)]
            running.update(repr((op.name, plain, op.reads, op.makes)).encode())
        for call in self.calls:
            running.update(
                repr((call.path, type(call.module).__qualname__, call.begin, call.end, call.outputs)).encode()
            )
        for value in self.calls[0].outputs.values() if self.calls else ():
            running.update(self.tensor(value).detach().float().cpu().contiguous().numpy().data)
        return running.hexdigest()

    def release(self) -> None:
        """Let go of every tensor."""
        self._tensors.clear()
        self._numbers.clear()
        for call in self.calls:
            call.given = ((), {})

    def inside(self, call: Call) -> list[Call]:
        """Return the calls that a call makes."""
        return [one for one in self.calls if one is not call and call.begin <= one.begin and one.end <= call.end
                and (one.path.startswith(f"{call.path}.") or not call.path)]  # fmt: skip

    def after(self, values: set[int]) -> set[int]:
        """Return the values computed from some, those included."""
        reached = set(values)
        for op in self.ops:
            if not reached.isdisjoint(op.reads):
                reached.update(op.makes)
        return reached


def _memory(tensor: Tensor) -> int:
    """What names the memory that a tensor is a view of; while the trace holds it no other has that name."""
    return tensor.untyped_storage()._cdata


@grad_mode(False)
def record(model: nn.Module, run: Callable[[], object], n_pos: int = 0) -> Trace:
    """Run a model once and return what happened.

    Cost: one forward pass, and the memory of all it computes.

    Examples:
        ```python
        record(hf, lambda: hf(input_ids=ids)).ops
        ```
    """
    trace, counts, going = Trace(n_pos), dict[int, int](), list[Call]()

    def begin(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            now = len(trace.ops)
            call = Call(path, module, counts.get(id(module), 0), now, now, given=(args, kwargs))
            counts[id(module)] = call.number + 1
            call.inputs = {slot: trace.number(one) for slot, one in _tensors((*enumerate(args), *kwargs.items()))}
            trace.calls.append(call)
            going.append(call)

        return hook

    def end(_m: nn.Module, _a: Any, output: Any) -> None:
        call = going.pop()
        call.end = len(trace.ops)
        call.outputs = {part: trace.number(one) for part, one in _tensors(_parts(output))}

    with ExitStack() as stack:
        for path, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(begin(path), with_kwargs=True, prepend=True).remove)
            stack.callback(module.register_forward_hook(end).remove)
        with trace, _Kernels(trace):
            run()
    return trace


@final
class _Kernels(TorchFunctionMode):
    """Notes where kernels of attention are called, whatever operations they are made of on this device."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        begin, output = len(self._trace.ops), func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention and output.ndim == 4:
            self._trace.kernels.append((begin, len(self._trace.ops)))
        return output


def _tensors(items: Any) -> Iterator[tuple[Any, Tensor]]:
    return ((key, one) for key, one in items if isinstance(one, Tensor))


def _parts(output: Any) -> list[tuple[Slot | None, Any]]:
    if isinstance(output, Tensor):
        return [(None, output)]
    if isinstance(output, Mapping):
        return [*output.items()]
    return [*enumerate(output)] if isinstance(output, tuple | list) else []
