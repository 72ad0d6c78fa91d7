"""Agreement of keys and values: does a memory promote the token that follows where its key matches best?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from hooks import Model
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from interp.common.statistics import Estimate, share
from interp.lenses import Lens
from interp.memory.neurons.triggers import Triggers
from interp.memory.neurons.vocabulary import find_top_tokens

if TYPE_CHECKING:
    from pandas import DataFrame

NULL_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Agreement:
    """How often memories say what follows their best trigger, and how often permuted values do.

    Attributes:
        layer: whose memories.
        rate: the share of memories that agree, of those whose key matches anywhere, with its interval.
        chance: the mean share over all permutations of the values, Σ_t a(t) b(t) / n²: a(t) of the n values say t,
            b(t) of the n triggers are followed by it.
        null: the share that 95 % of random permutations do not exceed.
        p_value: how often a random permutation agrees as much.
        said: the token each memory's value promotes most.
        followed: the token after its best trigger; -1 where its key matches nowhere.
    """

    layer: int
    rate: Estimate
    chance: float
    null: float
    p_value: float
    said: Int[Tensor, "d_mlp"]
    followed: Int[Tensor, "d_mlp"]

    __repr__ = summarise

    @property
    def agreeing(self) -> tuple[int, ...]:
        """The memories that agree."""
        return tuple((self.said == self.followed).nonzero().flatten().tolist())

    def to_pandas(self) -> "DataFrame":
        """A row for each memory: the token its value promotes most, and the one after its best trigger."""
        from pandas import DataFrame

        frame = DataFrame({"said": self.said.tolist(), "followed": self.followed.tolist()}).rename_axis("memory")
        return frame.assign(agrees=frame["said"] == frame["followed"]).reset_index()


def agreement(model: Model, found: Triggers, *, lens: Lens | None = None, seed: Natural = 0) -> Agreement:
    """The share of memories i with argmax p_i = the token after key i's top trigger (Geva et al. 2021, section 4).

    Args:
        model: the model.
        found: its layer's trigger examples.
        lens: through which values are read; the final norm alone by default.
        seed: of the random permutations.

    Raises:
        InvalidArgument: triggers of another model; a layer whose keys match nowhere.

    Cost: one unembedding for each memory.

    Examples:
        ```python
        agreement(model, triggers(model, texts, layer=6)).rate
        ```
    """
    if found.fingerprint != model.fingerprint:
        raise InvalidArgument(
            f"these triggers are of model {found.fingerprint[:12]}, {model.name} is {model.fingerprint[:12]}: "
            f"call triggers(model, data, {found.layer})"
        )
    said, _ = find_top_tokens(model, found.layer, lens=lens, sign=found.sign)
    followed = torch.tensor([(*found.followed_by(i), -1)[0] for i in range(len(said))])
    matched = followed >= 0
    if not bool(matched.any()):
        raise InvalidArgument(f"no key of layer {found.layer} matches anywhere in these texts: give other texts")
    return Agreement(found.layer, *compare_with_permutations(said[matched], followed[matched], seed), said, followed)


def compare_with_permutations(
    said: Int[Tensor, "n"], followed: Int[Tensor, "n"], seed: int = 0
) -> tuple[Estimate, float, float, float]:
    """The share that is equal with its interval, its mean under permutation, 95 % quantile and p-value there."""
    n, size = len(said), int(torch.stack([said, followed]).max()) + 1
    counts = [torch.bincount(one, minlength=size).double() for one in (said, followed)]
    random = torch.Generator().manual_seed(seed)
    dealt = torch.stack(
        [(said[torch.randperm(n, generator=random)] == followed).double().mean() for _ in range(NULL_DRAWS)]
    )
    rate = share(said == followed)
    p_value = (1 + int((dealt >= rate.value).sum())) / (1 + NULL_DRAWS)
    return rate, float((counts[0] * counts[1]).sum() / n**2), float(dealt.quantile(0.95)), p_value
