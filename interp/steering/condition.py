"""Continuations sampled under one condition, and what they are like."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model
from interp.estimate import Estimate, bootstrap, share
from interp.steering.conditional import Conditional
from interp.steering.fluency import distinct, surprisal
from interp.steering.steer import steer
from interp.steering.steering import Steering


@dataclass(frozen=True)
class Sampling:
    """How continuations are drawn: how many of each prompt, how long, at what temperature, from which seed."""

    per_prompt: int = 3
    max_new_tokens: int = 40
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 64


@dataclass(frozen=True)
class Condition:
    """The continuations of one condition, and whether each names the concept, how surprising and repetitive it is.

    `surprisal` is in nats under the unsteered model, summed over the `lengths` tokens of each continuation;
    `distinct` is distinct-2.
    """

    dose: float
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    named: Bool[Tensor, "example"]
    surprisal: Float[Tensor, "example"]
    lengths: Int[Tensor, "example"]
    distinct: Float[Tensor, "example"]

    @property
    def naming(self) -> Estimate:
        """Share of continuations that name the concept, with Wilson's interval."""
        return share(self.named)

    @property
    def perplexity(self) -> Estimate:
        """exp(total surprisal / total tokens) under the unsteered model, with a bootstrap interval."""
        return bootstrap(lambda drawn: _perplexity(drawn[0]), [self._pairs])

    @property
    def distinctness(self) -> Estimate:
        """Mean distinct-2 of the continuations, with a bootstrap interval."""
        return bootstrap(lambda drawn: drawn[0].mean().item(), [self.distinct])

    def perplexity_over(self, other: "Condition") -> Estimate:
        """Perplexity of these continuations over that of others, with a bootstrap interval."""
        return bootstrap(lambda drawn: _perplexity(drawn[0]) / _perplexity(drawn[1]), [self._pairs, other._pairs])

    @property
    def _pairs(self) -> Float[Tensor, "example 2"]:
        return torch.stack([self.surprisal.double(), self.lengths.double()], -1)


def sample(
    model: Model,
    prompts: Sequence[str],
    names: Callable[[str], bool],
    ways: Sequence[Steering | Conditional] = (),
    dose: float = 0.0,
    sampling: Sampling | None = None,
    preamble: str = "",
) -> Condition:
    """Sample continuations of the prompts, steered with a dose of `ways` or not at all, and measure them unsteered.

    Several ways share the continuations evenly, each taking every prompt as often as `per_prompt` allows. `preamble`
    stands before the prompts while sampling, and not while measuring.

    Errors: `ValueError` for no prompts, or when every continuation is empty. Cost: `max_new_tokens` cached forward
    passes per batch, and one more for the surprisal.

    ```python
    sample(model, ["I walked"], Names(("Golden Gate Bridge",)), [clamping(sae, 17)], dose=4.0).naming
    ```
    """
    sampling = sampling or Sampling()
    if not prompts or isinstance(prompts, str):
        raise ValueError(f"the prompts are {prompts!r}: give a list of at least one prompt")
    repeated = [prompt for prompt in prompts for _ in range(sampling.per_prompt)]
    given, texts = [], []
    for i, way in enumerate(ways or [None]):
        mine = repeated[i :: max(len(ways), 1)]
        with steer(model, way, dose) if way else nullcontext():
            texts += continued(model, [preamble + prompt for prompt in mine], sampling)
        given += mine
    return measured(dose, given, texts, names, *surprisal(model, given, texts))


def measured(
    dose: float,
    prompts: Sequence[str],
    texts: Sequence[str],
    names: Callable[[str], bool],
    nats: Float[Tensor, "example"],
    lengths: Int[Tensor, "example"],
) -> Condition:
    """The condition of continuations whose `surprisal` is known.

    Errors: `ValueError` when every continuation is empty.

    ```python
    measured(1.0, prompts, texts, names, *surprisal(model, prompts, texts))
    ```
    """
    if not lengths.any():
        raise ValueError(f"every one of {len(texts)} continuations is empty: is the dose {dose:g} too large?")
    return Condition(
        dose=dose,
        prompts=tuple(prompts),
        texts=tuple(texts),
        named=torch.tensor([names(text) for text in texts]),
        surprisal=nats,
        lengths=lengths,
        distinct=torch.tensor([distinct(text) for text in texts]),
    )


def continued(model: Model, prompts: Sequence[str], sampling: Sampling) -> list[str]:
    """A continuation of each prompt, whatever `per_prompt` says, batch by batch.

    ```python
    continued(model, ["I walked"], Sampling(max_new_tokens=20))
    ```
    """
    texts: list[str] = []
    for start in range(0, len(prompts), sampling.batch_size):
        texts += model.generate(
            prompts[start : start + sampling.batch_size],
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            seed=sampling.seed + start,
        )
    return texts


def _perplexity(pairs: Float[Tensor, "example 2"]) -> float:
    nats, lengths = pairs.sum(0)
    return float((nats / lengths).exp())
