"""What a steering does as its dose grows: how often the text names the concept, and what that costs in fluency."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hooks import Model
from hooks.border import Finite, Positive
from hooks.errors import InvalidArgument, NoFluentDose
from hooks.progress import progress_bar
from interp.steering.conditional import Conditional
from interp.steering.damage import Damage, measure_damage
from interp.steering.samples import Samples, Sampling, sample
from interp.steering.steering import Steering

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class DoseResponse:
    """The unsteered condition, the steered one at every dose, and random directions of equal norm at the same doses.

    `source` and `unit` say what was steered with and what a dose of one is. `rivals` are other ways at the same doses,
    `prompted` is the unsteered model asked in words. `damage` is what each dose does to held-out texts,
    `control_damage` the same for the first random direction. These are empty where none was asked for.
    """

    source: str
    unit: str
    unsteered: Samples
    steered: tuple[Samples, ...]
    control: tuple[Samples, ...]
    rivals: Mapping[str, tuple[Samples, ...]] = field(default_factory=dict)
    prompted: Samples | None = None
    damage: tuple[Damage, ...] = ()
    control_damage: tuple[Damage, ...] = ()

    def __repr__(self) -> str:
        doses = ", ".join(f"{one.dose:g}" for one in self.steered)
        return f"DoseResponse({self.source!r} at doses {doses})"

    def to_pandas(self) -> "DataFrame":
        """A row for each dose of the steering, of its control and of each rival, and one unsteered."""
        from pandas import DataFrame

        ways = {"steered": self.steered, "random direction": self.control, **self.rivals}
        given = [("unsteered", self.unsteered), *((name, one) for name, some in ways.items() for one in some)]
        return DataFrame(
            {
                "way": name,
                "dose": one.dose,
                "named": one.naming.value,
                "perplexity ratio": one.perplexity_over(self.unsteered).value,
                "distinct-2": one.distinctness.value,
            }
            for name, one in given
        )

    def fluent(self, most: Positive = 3.0) -> tuple[Samples, ...]:
        """The steered conditions whose perplexity is at most `most` times that of the unsteered one."""
        return tuple(c for c in self.steered if c.perplexity_over(self.unsteered).value <= most)

    def best(self, most: Positive = 3.0) -> Samples:
        """The fluent condition that names the concept most often, and of equals the most fluent.

        Choosing a dose on these prompts flatters it: measure the chosen one on others.

        Raises:
            NoFluentDose: no dose is that fluent.
        """
        fluent = self.fluent(most)
        if not fluent:
            least = min(self.steered, key=lambda c: c.perplexity.value)
            ratio = least.perplexity_over(self.unsteered).value
            raise NoFluentDose(
                f"no dose has a perplexity ratio of at most {most:g}: the lowest is {ratio:.3g}, at dose "
                f"{least.dose:g}; try other doses"
            )
        return max(fluent, key=lambda c: (c.naming.value, -c.perplexity.value))

    @property
    def best_dose(self) -> float:
        """The dose of `best()`, at a perplexity ratio of at most 3."""
        return self.best().dose


def measure_dose_response(
    model: Model,
    steering: Steering | Conditional,
    prompts: Sequence[str],
    names: Callable[[str], bool],
    *,
    doses: Sequence[Finite],
    sampling: Sampling | None = None,
    controls: Sequence[int] = (0, 1, 2),
    rivals: Mapping[str, Steering | Conditional] | None = None,
    asking: str = "",
    held_out: Sequence[str] = (),
    progress: bool = True,
) -> DoseResponse:
    """Sample continuations unsteered, at every dose, and at every dose of random directions of equal norm.

    Per condition: the share of continuations that name the concept (Wilson's interval), their perplexity under the
    unsteered model, and distinct-2. `controls` are the seeds of the random directions; they share the continuations
    of a condition, so that it rests on as many as the steered one. `rivals` are other ways to compare it with, such as
    the direction of `pairs.shuffle(seed)`; `asking`, such as "Talk about the bridge. ", is put before the prompts of
    one more unsteered condition; on `held_out` texts KL, loss and how far the states leave the usual are measured.

    Raises:
        InvalidArgument: no prompts, no doses or no controls.

    Cost: 1 + (2 + rivals) · doses conditions of `max_new_tokens` cached forward passes per batch, and one more for the
    perplexity; 8 · doses forward passes per held-out text.

    Examples:
        ```python
        names = Names(("Golden Gate Bridge",))
        response = measure_dose_response(model, clamp_latent(sae, 17), prompts, names, doses=(1, 2, 4))
        response.best().naming
        ```
    """
    if not doses or not controls:
        raise InvalidArgument(f"doses {doses!r} and control seeds {controls!r} were given: give at least one of each")
    random, others = [steering.control(seed) for seed in controls], dict(rivals or {})
    conditions = 1 + (2 + len(others)) * len(doses) + bool(asking)
    bar = progress_bar(total=conditions, desc="dose-response", unit="condition", progress=progress)

    def at(dose: float, ways: Sequence[Steering | Conditional], preamble: str = "") -> Samples:
        condition = sample(model, prompts, names, ways, dose, sampling, preamble, progress=False)
        bar.update()
        return condition

    with bar:
        return DoseResponse(
            source=steering.source,
            unit=steering.unit,
            unsteered=at(0.0, []),
            steered=tuple(at(dose, [steering]) for dose in doses),
            control=tuple(at(dose, random) for dose in doses),
            rivals={name: tuple(at(dose, [way]) for dose in doses) for name, way in others.items()},
            prompted=at(0.0, [], asking) if asking else None,
            damage=tuple(measure_damage(model, steering, dose, held_out, progress=False) for dose in doses if held_out),
            control_damage=tuple(
                measure_damage(model, random[0], dose, held_out, progress=False) for dose in doses if held_out
            ),
        )
