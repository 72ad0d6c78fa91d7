"""Choose a dose: the one that names a concept most often or, with no concept given, the largest that reads well."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from hooks import Model
from hooks.border import Finite, Positive
from hooks.errors import InvalidArgument, NoFluentDose
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.common.statistics import Estimate
from interp.common.texts import list_texts, unique_texts
from interp.steering.conditional import Conditional
from interp.steering.dose_response import DoseResponse, measure_dose_response
from interp.steering.samples import Samples, Sampling, sample
from interp.steering.steering import Steering

if TYPE_CHECKING:
    from pandas import DataFrame

OPENINGS: Final = ("I", "The", "It was", "There is", "When")  # text of any kind goes on from these
TRIED: Final = (0.125, 0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
READABLE: Final = 2.0  # a perplexity ratio with room to the 3 from which text counts as broken
VARIED: Final = 0.6  # of the unsteered text's distinct-2: less, and the text repeats itself


@dataclass(frozen=True)
class ChosenDose:
    """A dose, the response it was chosen from, and its samples on prompts that had no part in the choice."""

    dose: float
    response: DoseResponse
    unsteered: Samples
    steered: Samples
    control: Samples

    def __repr__(self) -> str:
        naming, ratio = self.steered.naming, self.steered.perplexity_over(self.unsteered)
        return (
            f"ChosenDose(dose={self.dose:g}: names it {naming:.2f}, "
            f"control {self.control.naming.value:.2f}, perplexity ratio {ratio.value:.2f})"
        )


def choose_dose(
    model: Model,
    steering: Steering | Conditional,
    prompts: Sequence[str],
    names: Callable[[str], bool],
    *,
    doses: Sequence[Finite],
    sampling: Sampling | None = None,
    controls: Sequence[int] = (0, 1, 2),
    progress: bool = True,
) -> ChosenDose:
    """Take the best fluent dose on every second prompt, and measure it on the others, next to its controls.

    The dose is the one whose continuations name the concept most often at a perplexity ratio of at most 3. A prompt
    given twice counts once.

    Raises:
        InvalidArgument: fewer than two prompts.
        NoFluentDose: no dose is fluent.

    Cost: that of `measure_dose_response` on half of the prompts, and samples under three conditions on the other half.

    Examples:
        ```python
        names = Names(("Golden Gate Bridge",))
        chosen = choose_dose(model, clamp_latent(sae, 17), prompts, names, doses=(0.5, 1.0, 2.0))
        chosen          # ChosenDose(dose=0.5: names it 0.89 [0.68, 0.97], control 0.00, perplexity ratio 1.27)
        ```
    """
    prompts = unique_texts(list_texts(prompts, "prompts"))
    if len(prompts) < 2:
        raise InvalidArgument(
            f"the prompts are {prompts!r}: give at least two, one to choose a dose on and one to report"
        )
    response = measure_dose_response(
        model,
        steering,
        prompts[::2],
        names,
        doses=doses,
        sampling=sampling,
        controls=controls,
        progress=progress,
    )
    dose, others = response.best_dose, prompts[1::2]
    random = [steering.control(seed) for seed in controls]
    return ChosenDose(
        dose=dose,
        response=response,
        unsteered=sample(model, others, names, sampling=sampling, progress=progress),
        steered=sample(model, others, names, [steering], dose, sampling, progress=progress),
        control=sample(model, others, names, random, dose, sampling, progress=progress),
    )


@final
@dataclass(frozen=True)
class SuggestedDose:
    """The largest dose up to which every one tried reads fluently, and the perplexity ratio of each dose tried."""

    dose: float
    ratios: tuple[tuple[float, Estimate], ...]
    most: float

    __repr__ = summarise

    @property
    def ratio(self) -> Estimate:
        """The perplexity ratio at the dose."""
        return dict(self.ratios)[self.dose]

    def __str__(self) -> str:
        tried = ", ".join(f"{dose:g}: {ratio.value:.1f}" for dose, ratio in self.ratios)
        return (
            f"dose {self.dose:g}, measured: the text stays at {self.ratio:.2f} "
            f"times the perplexity of unsteered text, at most {self.most:g} (tried {tried})"
        )

    def to_pandas(self) -> "DataFrame":
        """A row for each dose tried: the perplexity ratio and the ends of its interval."""
        from pandas import DataFrame

        rows = [(dose, one.value, one.low, one.high) for dose, one in self.ratios]
        return DataFrame(rows, columns=["dose", "perplexity ratio", "low", "high"])


def suggest_dose(
    model: Model,
    steering: Steering | Conditional,
    prompts: Sequence[str] = OPENINGS,
    *,
    doses: Sequence[Finite] = TRIED,
    most: Positive = READABLE,
    sampling: Sampling | None = None,
    progress: bool = True,
) -> SuggestedDose:
    """The largest dose that reads fluently, for a steering of which no concept is known that the text could name.

    Doses are tried from the smallest amount up, until one is not fluent: the perplexity of its continuations under the
    unsteered model is more than `most` times that of unsteered ones, or they repeat themselves (distinct-2 under 0.6
    of the unsteered), which no perplexity shows. Whether a dose is large enough to be seen is for the reader to say.

    Raises:
        InvalidArgument: no prompts, no doses, or a dose of 0.
        NoFluentDose: the smallest dose is not fluent.

    Cost: 20 cached forward passes and one whole one, by default of 20 texts drawn at temperature 0.7, for each dose
    tried and once unsteered.

    Examples:
        ```python
        print(suggest_dose(model, clamp_latent(sae, 17)))
        # dose 0.5, measured: the text stays at 1.31 [1.10, 1.52] times the perplexity of unsteered text, at most 2 ...
        ```
    """
    if not doses or 0 in doses:
        raise InvalidArgument(f"the doses are {list(doses)}: give at least one, none of them 0")
    sampling = sampling or Sampling(per_prompt=4, max_new_tokens=20, temperature=0.7)
    plain, ratios = sample(model, prompts, _never, sampling=sampling, progress=progress), list[tuple[float, Estimate]]()
    reached = None
    for dose in progress_bar(sorted(doses, key=abs), desc="doses", progress=progress):
        try:
            said = sample(model, prompts, _never, [steering], dose, sampling, progress=False)
        except NoFluentDose:  # every continuation is empty
            break
        ratios.append((dose, said.perplexity_over(plain)))
        varied = said.distinctness.value >= VARIED * plain.distinctness.value
        if ratios[-1][1].value > most or not varied:
            break
        reached = dose
    if reached is None:
        raise NoFluentDose(_too_large(min(doses, key=abs), ratios, most))
    return SuggestedDose(reached, tuple(ratios), most)


def _never(text: str) -> bool:  # noqa: ARG001
    return False


def _too_large(dose: float, ratios: Sequence[tuple[float, Estimate]], most: float) -> str:
    costs = f"{ratios[0][1].value:.3g} times its perplexity" if ratios else "only empty continuations"
    return (
        f"dose {dose:g} is too large: against unsteered text it has {costs}, or repeats itself, where at most "
        f"{most:g} times reads fluently; try smaller doses"
    )
