"""A causal model: variables, each a function of others, that can be run with some of them fixed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from jaxtyping import Int
from torch import Tensor

from hooks.border import Count
from hooks.errors import InvalidArgument, UnknownName, nearest
from hooks.summary import summarise

Values = Mapping[str, Int[Tensor, "example"]]
LARGEST = 10_000


@dataclass(frozen=True, eq=False)
class CausalModel:
    """A program as a directed acyclic graph over integers.

    Attributes:
        inputs: the input variables, and how many values each has, counted from 0.
        parents: of every other variable, in an order in which each comes after its parents; the last is the output.
        functions: from the parents' values, a tensor each, to the variable's.

    Raises:
        InvalidArgument: a variable without a function, or one that comes before its parents.

    Examples:
        >>> equal = CausalModel({"a": 3, "b": 3}, {"same": ("a", "b")}, {"same": lambda a, b: (a == b).long()})
        >>> equal.run({"a": torch.tensor([1, 2]), "b": torch.tensor([1, 1])})["same"]
        tensor([1, 0])
    """

    inputs: Mapping[str, int]
    parents: Mapping[str, tuple[str, ...]]
    functions: Mapping[str, Callable[..., Int[Tensor, "example"]]]

    __repr__ = summarise

    def __post_init__(self) -> None:
        known = set(self.inputs)
        if not self.parents:
            raise InvalidArgument("the model has no variable but its inputs: give an output at least")
        for name, of in self.parents.items():
            if name not in self.functions:
                raise InvalidArgument(f"'{name}' has no function: give one of {', '.join(of)}")
            if missing := set(of) - known:
                raise InvalidArgument(f"'{name}' comes before its parents {sorted(missing)}: list variables after them")
            known.add(name)

    @property
    def output(self) -> str:
        """The output variable."""
        return next(reversed(tuple(self.parents)))

    @property
    def n_inputs(self) -> int:
        """How many combinations of inputs there are."""
        return prod(self.inputs.values())

    @property
    def variables(self) -> tuple[str, ...]:
        """Every variable but the inputs, in order."""
        return tuple(self.parents)

    def run(self, inputs: Values, fixed: Values | None = None) -> dict[str, Int[Tensor, "example"]]:
        """Return the value of every variable; those that are fixed have the values given.

        Raises:
            UnknownName: a variable to fix that is not there.
            InvalidArgument: an input that is missing.

        Examples:
            ```python
            model.run(base, {"same": model.run(source)["same"]})
            ```
        """
        fixed = {} if fixed is None else fixed
        for name in fixed:
            if name not in self.inputs and name not in self.parents:
                names = (*self.inputs, *self.parents)
                raise UnknownName(f"no variable is called '{name}'; did you mean {nearest(name, names)}?")
        if missing := set(self.inputs) - set(inputs):
            raise InvalidArgument(f"the inputs {sorted(missing)} were not given: give every input")
        values = {name: fixed.get(name, inputs[name]) for name in self.inputs}
        for name, of in self.parents.items():
            values[name] = fixed[name] if name in fixed else self.functions[name](*(values[one] for one in of))
        return values

    def interchange(self, variable: str, base: Values, source: Values) -> Int[Tensor, "example"]:
        """Return the output of base with one variable as in source: what a faithful model must say.

        Examples:
            ```python
            model.interchange("same", base, source)
            ```
        """
        if variable not in self.inputs and variable not in self.parents:
            self.run(base, {variable: next(iter(base.values()))})
        return self.run(base, {variable: self.run(source)[variable]})[self.output]

    def every_input(self) -> dict[str, Int[Tensor, "example"]]:
        """Return all combinations of inputs.

        Raises:
            InvalidArgument: more than ten thousand.

        Examples:
            ```python
            model.every_input()["a"]
            ```
        """
        if self.n_inputs > LARGEST:
            raise InvalidArgument(
                f"there are {self.n_inputs} combinations of inputs, and {LARGEST} are listed at most: use draw"
            )
        rows = torch.tensor(list(product(*(range(count) for count in self.inputs.values()))))
        return dict(zip(self.inputs, rows.T, strict=True))

    def draw(self, count: Count, random: torch.Generator) -> dict[str, Int[Tensor, "example"]]:
        """Return some inputs, drawn uniformly.

        Examples:
            ```python
            model.draw(64, torch.Generator().manual_seed(0))
            ```
        """
        return {name: torch.randint(n, (count,), generator=random) for name, n in self.inputs.items()}
