"""Continuations sampled under one condition, and what they are like."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from hooks import Model
from hooks.border import Finite, Natural, NotNegative
from hooks.errors import InvalidArgument, NoFluentDose
from hooks.progress import progress_bar
from interp.common.at_once import means_at_once
from interp.common.statistics import Estimate, bootstrap, draw_groups, mean_share, percentile_ends
from interp.common.texts import list_texts
from interp.steering.conditional import Conditional
from interp.steering.fluency import measure_distinctness, measure_surprisal
from interp.steering.steer import steer
from interp.steering.steering import Steering


@dataclass(frozen=True)
class Sampling:
    """How continuations are drawn: how many of each prompt, how long, at what temperature, from which seed.

    At a temperature of 0 there is one of each prompt, since others would be its copies.

    Raises:
        InvalidArgument: fewer than one continuation of a prompt, new token or text of a batch.
    """

    per_prompt: int = 3
    max_new_tokens: int = 40
    temperature: NotNegative = 1.0
    seed: Natural = 0
    batch_size: int = 64

    def __post_init__(self) -> None:
        if min(self.per_prompt, self.max_new_tokens, self.batch_size) < 1:
            raise InvalidArgument(
                f"per_prompt={self.per_prompt}, max_new_tokens={self.max_new_tokens} and "
                f"batch_size={self.batch_size} were given: each must be at least 1"
            )

    def each(self, prompts: Sequence[str]) -> list[str]:
        """Every prompt as often as it is continued."""
        times = self.per_prompt if self.temperature > 0 else 1
        return [prompt for prompt in prompts for _ in range(times)]


@dataclass(frozen=True)
class Samples:
    """The continuations of one condition, and whether each names the concept, how surprising and repetitive it is.

    `surprisal` is in nats under the unsteered model, summed over the `lengths` tokens of each continuation;
    `distinct` is distinct-2. The cases of an interval, its `n`, are prompts with all their continuations, which are
    alike; of a single prompt its continuations, and then it speaks of that prompt alone.
    """

    dose: float
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    named: Bool[Tensor, "example"]
    surprisal: Float[Tensor, "example"]
    lengths: Int[Tensor, "example"]
    distinct: Float[Tensor, "example"]

    def __repr__(self) -> str:
        said, prompts = len(self.texts), len(set(self.prompts))
        return (
            f"Samples(dose {self.dose:g}: {said} continuations of {prompts} prompts, {int(self.named.sum())} name it)"
        )

    @property
    def naming(self) -> Estimate:
        """Share of continuations that name the concept, with Wilson's interval over prompts."""
        named, continuations = self._cases(self.named, torch.ones_like(self.lengths)).T
        return mean_share(named / continuations)

    def naming_beyond(self, other: "Samples") -> Estimate:
        """The share that names the concept less that of others of the same prompts, prompt by prompt.

        Raises:
            InvalidArgument: continuations of other prompts.
        """
        if self.prompts != other.prompts:
            raise InvalidArgument(
                f"{len(self.prompts)} and {len(other.prompts)} continuations are not of the same prompts: compare two "
                "conditions of one sampling"
            )
        ones = torch.ones_like(self.lengths)
        shares = [named / of for one in (self, other) for named, of in [one._cases(one.named, ones).T]]
        return means_at_once((shares[0] - shares[1])[:, None])[0]

    @property
    def perplexity(self) -> Estimate:
        """exp(total surprisal / total tokens) under the unsteered model, with a bootstrap interval over prompts."""
        return bootstrap(lambda drawn: _perplexity(drawn[0]), [self._pairs])

    @property
    def distinctness(self) -> Estimate:
        """Mean distinct-2 of the continuations, with a bootstrap interval over prompts."""
        cases = self._cases(self.distinct, torch.ones_like(self.lengths))
        return bootstrap(lambda drawn: float(drawn[0][:, 0].sum() / drawn[0][:, 1].sum()), [cases])

    def perplexity_over(self, other: "Samples") -> Estimate:
        """Perplexity of these continuations over that of others, with a bootstrap interval over prompts.

        Of the same prompts, each is drawn with its continuations of both: what is surprising in both is no difference.
        """
        prompts = [*dict.fromkeys(self.prompts)]
        if len(prompts) > 1 and prompts == [*dict.fromkeys(other.prompts)]:
            both = torch.cat([one._cases(one.surprisal, one.lengths) for one in (self, other)], 1)
            nats, tokens, of, per = (draw_groups(len(both), 500, 0) @ both).T
            low, high = percentile_ends((nats / tokens - of / per).exp()).tolist()
            return Estimate(_perplexity(both[:, :2]) / _perplexity(both[:, 2:]), low, high, len(both))
        return bootstrap(lambda drawn: _perplexity(drawn[0]) / _perplexity(drawn[1]), [self._pairs, other._pairs])

    @property
    def _pairs(self) -> Float[Tensor, "n 2"]:
        """Nats and tokens of every case that has any: draws of empty ones alone have no perplexity."""
        pairs = self._cases(self.surprisal, self.lengths)
        return pairs[pairs[:, 1] > 0]

    def _cases(self, *columns: Shaped[Tensor, "example"]) -> Float[Tensor, "n *d"]:
        """The sums of some columns over the continuations of each prompt."""
        x = torch.stack([column.double() for column in columns], -1)
        place = {prompt: i for i, prompt in enumerate(dict.fromkeys(self.prompts))}
        if len(place) == 1:
            return x
        of = torch.tensor([place[prompt] for prompt in self.prompts])
        return x.new_zeros(len(place), len(columns)).index_add_(0, of, x)


def sample(
    model: Model,
    prompts: Sequence[str],
    names: Callable[[str], bool],
    ways: Sequence[Steering | Conditional] = (),
    dose: Finite = 0.0,
    sampling: Sampling | None = None,
    preamble: str = "",
    *,
    progress: bool = True,
) -> Samples:
    """Sample continuations of the prompts, steered with a dose of `ways` or not at all, and measure them unsteered.

    Several ways share the continuations evenly, each taking every prompt as often as `per_prompt` allows; a way for
    which none is left takes none. `preamble` is put before the prompts while sampling, and not while measuring.

    Raises:
        InvalidArgument: no prompts, or when every continuation is empty.

    Cost: `max_new_tokens` cached forward passes per batch, and one more for the surprisal.

    Examples:
        ```python
        sample(model, ["I walked"], Names(("Golden Gate Bridge",)), [clamp_latent(sae, 17)], dose=4.0).naming
        ```
    """
    sampling = sampling or Sampling()
    repeated = sampling.each(list_texts(prompts, "prompts"))
    given, texts = [], []
    for i, way in enumerate([*ways][: len(repeated)] or [None]):
        mine = repeated[i :: max(len(ways), 1)]
        with steer(model, way, dose) if way else nullcontext():
            texts += sample_continuations(model, [preamble + prompt for prompt in mine], sampling, progress=progress)
        given += mine
    return measure_samples(dose, given, texts, names, *measure_surprisal(model, given, texts))


def measure_samples(
    dose: float,
    prompts: Sequence[str],
    texts: Sequence[str],
    names: Callable[[str], bool],
    nats: Float[Tensor, "example"],
    lengths: Int[Tensor, "example"],
) -> Samples:
    """The samples of continuations whose `surprisal` is known.

    Raises:
        InvalidArgument: every continuation is empty.

    Examples:
        ```python
        measure_samples(1.0, prompts, texts, names, *measure_surprisal(model, prompts, texts))
        ```
    """
    if not lengths.any():
        raise NoFluentDose(f"every one of {len(texts)} continuations is empty: is the dose {dose:g} too large?")
    return Samples(
        dose=dose,
        prompts=tuple(prompts),
        texts=tuple(texts),
        named=torch.tensor([names(text) for text in texts]),
        surprisal=nats,
        lengths=lengths,
        distinct=torch.tensor([measure_distinctness(text) for text in texts]),
    )


def sample_continuations(
    model: Model, prompts: Sequence[str], sampling: Sampling, *, progress: bool = True
) -> list[str]:
    """A continuation of each prompt, whatever `per_prompt` says, batch by batch.

    Examples:
        ```python
        sample_continuations(model, ["I walked"], Sampling(max_new_tokens=20))
        ```
    """
    texts: list[str] = []
    for start in progress_bar(range(0, len(prompts), sampling.batch_size), desc="continuations", progress=progress):
        texts += model.generate(
            prompts[start : start + sampling.batch_size],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed + start,
        )
    return texts


def _perplexity(pairs: Float[Tensor, "n 2"]) -> float:
    nats, lengths = pairs.sum(0)
    return float((nats / lengths).exp())
