"""Several ways of steering towards one concept next to the plain prompt, each at the dose that suits it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from hooks import Model
from hooks.errors import InvalidArgument, NoFluentDose
from interp.common.statistics import Estimate
from interp.common.texts import list_texts, unique_texts
from interp.steering.conditional import Conditional
from interp.steering.dose_choice import ChosenDose, choose_dose
from interp.steering.samples import Samples, Sampling, sample
from interp.steering.steering import Steering

if TYPE_CHECKING:
    from pandas import DataFrame

PROMPT = "prompt"


@final
@dataclass(frozen=True)
class MethodComparison:
    """What each way does on prompts its dose was not chosen on, and what asking for the concept in words does.

    A way without a fluent dose has None.
    """

    chosen: Mapping[str, ChosenDose | None]
    unsteered: Samples
    prompted: Samples

    def rows(self) -> tuple[tuple[str, float | None, Estimate, Estimate], ...]:
        """Per way its name, dose, share of continuations that express the concept, and perplexity ratio."""
        rows: list[tuple[str, float | None, Estimate, Estimate]] = []
        for name, one in self.chosen.items():
            if one is not None:
                rows.append((name, one.dose, one.steered.naming, one.steered.perplexity_over(one.unsteered)))
                control = one.control.perplexity_over(one.unsteered)
                rows.append((f"{name}: random direction", one.dose, one.control.naming, control))
        rows.append((PROMPT, None, self.prompted.naming, self.prompted.perplexity_over(self.unsteered)))
        rows.append(("unsteered", None, self.unsteered.naming, self.unsteered.perplexity_over(self.unsteered)))
        return tuple(rows)

    def __repr__(self) -> str:
        return f"MethodComparison({', '.join(self.chosen)}; on {len(set(self.unsteered.prompts))} prompts)"

    def to_pandas(self) -> "DataFrame":
        """The rows as a table, with the intervals' ends in columns of their own."""
        from pandas import DataFrame

        return DataFrame(
            {
                "way": name,
                "dose": dose,
                "named": naming.value,
                "named, low": naming.low,
                "named, high": naming.high,
                "perplexity ratio": ratio.value,
                "perplexity ratio, low": ratio.low,
                "perplexity ratio, high": ratio.high,
            }
            for name, dose, naming, ratio in self.rows()
        )

    def __str__(self) -> str:
        lines = [f"{'way':<34}{'dose':>6}  {'expresses it':<22}{'perplexity ratio'}"]
        for name, dose, naming, ratio in self.rows():
            at = "–" if dose is None else f"{dose:g}"
            lines.append(f"{name:<34}{at:>6}  {f'{naming:.2f}':<22}{ratio:.2f}")
        return "\n".join([*lines, *(f"{name}: no fluent dose" for name, one in self.chosen.items() if one is None)])


def compare_methods(
    model: Model,
    ways: Mapping[str, Steering | Conditional],
    prompts: Sequence[str],
    names: Callable[[str], bool],
    asking: str,
    *,
    doses: Sequence[float] | Mapping[str, Sequence[float]],
    sampling: Sampling | None = None,
    progress: bool = True,
) -> MethodComparison:
    """Choose each way's dose on every second prompt, and report on the others, next to the prompt in words.

    `asking`, such as "Talk about the Golden Gate Bridge. ", is put before the prompts; perplexity is measured without
    it. `doses` may differ by way. To set a direction against chance, give one from `pairs.shuffle(seed)` as a way.

    Raises:
        InvalidArgument: no ways, one called "prompt" or without doses, or as `choose_dose`.

    Cost: `choose_dose` for each way.

    Examples:
        ```python
        ways = {"SAE": clamp_latent(sae, 17), "CAA": add_direction(caa), "shuffled": add_direction(shuffled)}
        print(compare_methods(model, ways, prompts, names, "Talk about the bridge. ", doses=(1, 2, 4)))
        ```
    """
    if not ways or PROMPT in ways:
        raise InvalidArgument(f"the ways are {list(ways)}: give at least one, none of them called {PROMPT!r}")
    if isinstance(doses, Mapping) and set(doses) != set(ways):
        raise InvalidArgument(
            f"doses were given for {list(doses)}, and the ways are {list(ways)}: give doses for each way"
        )
    rest = unique_texts(list_texts(prompts, "prompts"))[1::2]
    per_way = doses if isinstance(doses, Mapping) else dict.fromkeys(ways, doses)
    chosen = {
        name: _choose(model, way, prompts, names, per_way[name], sampling, progress) for name, way in ways.items()
    }
    return MethodComparison(
        chosen,
        unsteered=sample(model, rest, names, sampling=sampling, progress=progress),
        prompted=sample(model, rest, names, sampling=sampling, preamble=asking, progress=progress),
    )


def _choose(
    model: Model,
    way: Steering | Conditional,
    prompts: Sequence[str],
    names: Callable[[str], bool],
    doses: Sequence[float],
    sampling: Sampling | None,
    progress: bool,
) -> ChosenDose | None:
    try:
        return choose_dose(model, way, prompts, names, doses=doses, sampling=sampling, progress=progress)
    except NoFluentDose:
        return None
