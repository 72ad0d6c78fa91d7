"""Interchange interventions: a place of one run put into another, compared with what a causal model then says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Activations, Model, Position, Site, Tokens, capture
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.position import last
from hooks.resume import HeldPass
from hooks.summary import summarise
from interp.circuits.interchange.causal_model import CausalModel, Values
from interp.circuits.patching import select_one_token


@dataclass(frozen=True, eq=False)
class Implementation:
    """A language model that may implement a causal model: how inputs are written, and answers read.

    Attributes:
        model: the language model.
        causal: the causal model.
        ids: from inputs to token ids, a text of equal length for each.
        answers: the token that says each value of the output.
        at: where the answer is read.
    """

    model: Model
    causal: CausalModel
    ids: Callable[[Values], Int[Tensor, "batch pos"]]
    answers: Int[Tensor, "n"]
    at: Position = last

    __repr__ = summarise

    def tokens(self, inputs: Values) -> Tokens:
        """Return the texts of some inputs.

        Examples:
            ```python
            implementation.tokens(causal.every_input())
            ```
        """
        return self.model.tokens(self.ids(inputs))

    def logits(self, final: Float[Tensor, "batch pos d_model"], tokens: Tokens) -> Float[Tensor, "batch n"]:
        """Return the logits of the answers, from the last stream.

        Examples:
            ```python
            implementation.logits(stream, tokens)
            ```
        """
        return self.model.unembed(final[select_one_token(tokens, self.at)])[:, self.answers.to(final.device)]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a variable is supposed to be.

    Attributes:
        site: of the model.
        at: at which tokens.
        basis: orthonormal columns that span the subspace it is in, of the site's flattened values; None for all.
        head: which head of a site that has them, or None for all.
    """

    site: Site
    at: Position
    basis: Float[Tensor, "d_model n"] | None = None
    head: int | None = None

    def put(
        self, base: Float[Tensor, "batch pos *d"], source: Float[Tensor, "batch pos *d"], tokens: Tokens
    ) -> Float[Tensor, "batch pos *d"]:
        """Return base + R Rᵀ (source - base) at the place, base elsewhere.

        Examples:
            ```python
            Place(resid_post[0], last).put(a, b, tokens)
            ```
        """
        where = self.at.mask(tokens)
        if self.head is None and self.basis is None:
            return torch.where(where.view(*where.shape, *(1 for _ in base.shape[2:])), source, base)
        if self.head is not None:
            mine = torch.zeros(base.shape[2], dtype=torch.bool, device=base.device)
            mine[self.head] = True
            return torch.where(where[:, :, None, None] & mine[:, None], source, base)
        move = (source - base).flatten(2)
        basis = self.basis
        assert basis is not None
        move = (move @ basis.to(move)) @ basis.to(move).T
        return base + (move * where[..., None]).view(base.shape)


def swap_place(
    implementation: Implementation, place: Place, base: Tokens, source: Float[Tensor, "batch pos *d"]
) -> Float[Tensor, "batch n"]:
    """Return the answers' logits of base with a place as in another run; gradients flow.

    Examples:
        ```python
        swap_place(implementation, place, base, acts[place.site])
        ```
    """
    model = implementation.model
    held = HeldPass(model, Activations({}, base, model.fingerprint), lambda x: x)
    final = held.resume(0, {place.site: lambda a: place.put(a, source.to(a), base)})
    return implementation.logits(final, base)


@torch.no_grad()
def interchange_accuracy(
    implementation: Implementation,
    variable: str,
    place: Place,
    base: Values,
    source: Values,
    *,
    batch_size: Count = 256,
) -> float:
    """IIA: how often the model, with a place as in source, answers as the causal model with the variable as in source.

    Raises:
        InvalidArgument: no inputs, or not as many of one as of the other.
        UnknownName: no such variable.

    Cost: two forward passes.

    Geiger et al. 2021, arXiv:2106.02997.

    Examples:
        ```python
        interchange_accuracy(implementation, "same", Place(resid_post[0], last), base, source)
        ```
    """
    count = count_pairs(implementation.causal, base, source)
    wanted = implementation.causal.interchange(variable, base, source)
    right = 0
    for i in range(0, count, batch_size):
        one, other = ({k: v[i : i + batch_size] for k, v in each.items()} for each in (base, source))
        given = capture(implementation.model, implementation.tokens(other), place.site, batch_size=batch_size)
        said = swap_place(implementation, place, implementation.tokens(one), given[place.site]).argmax(-1)
        right += int((said.cpu() == wanted[i : i + batch_size]).sum())
    return right / count


def interchange_table(
    implementation: Implementation, places: Mapping[str, Place], *, most: Count = 10_000, seed: Natural = 0
) -> dict[str, float]:
    """IIA of each variable at its place, over every pair of inputs where there are at most `most`, else over draws.

    A high number says that the place holds the variable. To show that other places do not, measure those too.

    Examples:
        ```python
        interchange_table(implementation, {"same": Place(resid_post[0], last)})
        ```
    """
    causal = implementation.causal
    size = causal.n_inputs
    if size * size <= most:
        inputs = causal.every_input()
        base = {name: value.repeat_interleave(size) for name, value in inputs.items()}
        source = {name: value.repeat(size) for name, value in inputs.items()}
    else:
        random = torch.Generator().manual_seed(seed)
        base, source = causal.draw(most, random), causal.draw(most, random)
    return {
        variable: interchange_accuracy(implementation, variable, place, base, source)
        for variable, place in places.items()
    }


def count_pairs(causal: CausalModel, base: Values, source: Values) -> int:
    """How many pairs of inputs base and source give, as many of every input.

    Raises:
        InvalidArgument: none, or different numbers.

    Examples:
        ```python
        count_pairs(causal, base, source)
        ```
    """
    counts = {len(each[name]) for each in (base, source) for name in causal.inputs if name in each}
    if len(counts) != 1 or counts == {0}:
        raise InvalidArgument(f"base and source have {sorted(counts)} inputs: give as many of each, and one at least")
    return counts.pop()
