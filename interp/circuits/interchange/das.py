"""Distributed alignment search: the subspace that holds a variable, with the controls it must be compared with."""

import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Position, Site, capture, load
from hooks.border import Count, Natural, Positive
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.circuits.interchange.causal_model import Values
from interp.circuits.interchange.interchange import Implementation, Place, interchange_accuracy, swap_place


@dataclass(frozen=True, eq=False)
class Alignment:
    """A subspace found for a variable, and how it compares.

    Attributes:
        variable: the variable.
        place: where, with the basis that was found.
        accuracy: its IIA on pairs whose inputs were not trained on.
        random_subspace: the IIA of a random subspace of the same dimension, on the same pairs.
        random_model: that of the same search in a model of the same shape with random weights.
        shuffled_labels: that of the same search for labels of other pairs.
        unchanged: how often the answer is right if nothing is interchanged.
        dormant: the share of the basis along directions in which the site never varies: no input puts there what it
            writes, so it may steer the answer by a path that the model does not use (Makelov et al. 2023).
        n_test: how many pairs were tested.
    """

    variable: str
    place: Place
    accuracy: float
    random_subspace: float
    random_model: float
    shuffled_labels: float
    unchanged: float
    dormant: float
    n_test: int

    __repr__ = summarise

    @property
    def dimension(self) -> int:
        """How many dimensions the subspace has; IIA rises with it even where nothing is there."""
        assert self.place.basis is not None
        return self.place.basis.shape[1]

    def __str__(self) -> str:
        return (
            f"'{self.variable}' in {self.dimension} dimensions of {self.place.site}: IIA {self.accuracy:.3f} on "
            f"{self.n_test} held-out pairs; random subspace {self.random_subspace:.3f}, random weights "
            f"{self.random_model:.3f}, shuffled labels {self.shuffled_labels:.3f}, nothing changed "
            f"{self.unchanged:.3f}; {self.dormant:.1%} of it along directions that no input moves"
        )


def align_subspace(
    implementation: Implementation,
    variable: str,
    site: Site,
    dimension: int,
    at: Position,
    *,
    steps: Count = 200,
    lr: Positive = 0.01,
    batch_size: Count = 128,
    n_test: Count = 512,
    seed: Natural = 0,
    progress: bool = True,
) -> Alignment:
    """Find R, orthonormal, with base + R Rᵀ (source - base) at a site giving what the causal model says.

    R is the orthogonal factor of a free matrix, trained by Adam on the cross-entropy of the causal model's answer
    under the interchange. Inputs are split by a hash of all their values: pairs of the test are of inputs that no
    step has seen, where there are enough. The same search is run in a model of random weights and on labels of other
    pairs: with enough dimensions either can be high, and only what exceeds them says something of this model.

    Args:
        implementation: the language model and the causal model.
        variable: of the causal model.
        site: where to look, a site without heads.
        dimension: of the subspace.
        at: at which tokens.
        steps: of Adam, for each of the three searches.
        lr: of the free matrix.
        batch_size: pairs per step.
        n_test: pairs of the test.
        seed: of everything that is drawn.
        progress: whether to show bars.

    Raises:
        InvalidArgument: a dimension that the site does not have, a site with heads, or no steps.

    Cost: two forward passes and a backward pass for each step of the three searches.

    Geiger et al. 2023, arXiv:2303.02536.

    Examples:
        ```python
        print(align_subspace(implementation, "same", resid_post[0], 1, last))
        ```
    """
    shape = implementation.model.tap(site).shape
    if len(shape) != 1 or not 1 <= dimension <= shape[0] or steps < 1:
        raise InvalidArgument(
            f"{dimension} dimensions of {site}, which has shape {shape}, in {steps} steps were asked for: give a site "
            "without heads, 1 dimension at least and no more than it has, and 1 step at least"
        )
    search = _Search(implementation, variable, Place(site, at), dimension, steps, lr, batch_size, seed, progress)
    basis = search.train(shuffled=False)
    other = replace(search, implementation=_random_weights(implementation, seed))
    random = torch.Generator().manual_seed(seed + 1)
    free = torch.linalg.qr(torch.randn(shape[0], dimension, generator=random))[0]
    base, source = search.test_pairs(n_test)
    places = {name: Place(site, at, b) for name, b in (("found", basis), ("free", free))}
    scores = {
        name: interchange_accuracy(implementation, variable, place, base, source) for name, place in places.items()
    }
    wrong = Place(site, at, search.train(shuffled=True))
    elsewhere = Place(site, at, other.train(shuffled=False))
    causal = implementation.causal
    stays = causal.run(base)[causal.output] == causal.interchange(variable, base, source)
    return Alignment(
        variable,
        places["found"],
        scores["found"],
        scores["free"],
        interchange_accuracy(other.implementation, variable, elsewhere, base, source),
        interchange_accuracy(implementation, variable, wrong, base, source),
        float(stays.double().mean()),
        1 - float(find_moved_part(implementation, places["found"], base).square().sum()) / dimension,
        n_test,
    )


@torch.no_grad()
def find_moved_part(implementation: Implementation, place: Place, inputs: Values) -> Float[Tensor, "d_model n"]:
    """Return the part of a place's basis that is in the span of what inputs do there; the rest is dormant.

    Examples:
        ```python
        find_moved_part(implementation, alignment.place, implementation.causal.draw(256, random))
        ```
    """
    tokens = implementation.tokens(inputs)
    x = capture(implementation.model, tokens, place.site)[place.site][place.at.mask(tokens)].double()
    _, sizes, directions = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    span = directions[sizes > 1e-6 * sizes.max()].T
    assert place.basis is not None
    basis = place.basis.to(span)
    return span @ (span.T @ basis)


@dataclass(frozen=True, eq=False)
class _Search:
    implementation: Implementation
    variable: str
    place: Place
    dimension: int
    steps: int
    lr: float
    batch_size: int
    seed: int
    progress: bool

    def train(self, *, shuffled: bool) -> Float[Tensor, "d_model n"]:
        """The basis that training ends with."""
        implementation, random = self.implementation, torch.Generator().manual_seed(self.seed)
        model, width = implementation.model, implementation.model.tap(self.place.site).shape[0]
        free = torch.randn(width, self.dimension, generator=random, dtype=torch.float32).to(model.device, model.dtype)
        free.requires_grad_()
        adam = torch.optim.Adam([free], lr=self.lr)
        for _ in progress_bar(range(self.steps), desc="alignment search", progress=self.progress):
            base, source = (self._draw(self.batch_size, random, test=False) for _ in range(2))
            wanted = implementation.causal.interchange(self.variable, base, source)
            wanted = wanted[torch.randperm(len(wanted), generator=random)] if shuffled else wanted
            with torch.no_grad():
                given = capture(model, implementation.tokens(source), self.place.site, batch_size=len(wanted))
            with torch.inference_mode(False), torch.enable_grad():
                place = replace(self.place, basis=torch.linalg.qr(free)[0])
                said = swap_place(implementation, place, implementation.tokens(base), given[self.place.site].clone())
                loss = torch.nn.functional.cross_entropy(said.float(), wanted.to(said.device))
                (free.grad,) = torch.autograd.grad(loss, [free])
            adam.step()
        return torch.linalg.qr(free.detach())[0]

    def test_pairs(self, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Pairs of inputs that no step has seen."""
        random = torch.Generator().manual_seed(self.seed + 2)
        return self._draw(count, random, test=True), self._draw(count, random, test=True)

    def _draw(self, count: int, random: torch.Generator, *, test: bool) -> dict[str, Int[Tensor, "example"]]:
        """Inputs of the training or of the test half, separated by a hash of all their values."""
        rows: list[dict[str, Tensor]] = []
        kept = 0
        while kept < count:
            drawn = self.implementation.causal.draw(4 * count, random)
            mixed = sum((i + 1) * 7919 * (v + 1) ** 2 for i, v in enumerate(drawn.values()))
            mine = (torch.as_tensor(mixed) // 3 % 4 == 0) == test
            rows.append({name: value[mine] for name, value in drawn.items()})
            kept += int(mine.sum())
        return {name: torch.cat([row[name] for row in rows])[:count] for name in rows[0]}


def _random_weights(implementation: Implementation, seed: int) -> Implementation:
    """The same model with every weight matrix drawn from a normal distribution of its own size, on the same device."""
    hf = copy.deepcopy(implementation.model.hf)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in hf.parameters():
            if parameter.ndim > 1:
                scale = parameter.float().std().clamp_min(0.02)
                parameter.copy_(torch.randn(parameter.shape, generator=random).to(parameter) * scale)
    return replace(implementation, model=load(hf, implementation.model.tokenizer, check=False))
