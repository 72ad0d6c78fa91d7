"""The demonstration's figures, each next to the bar it has to reach: `python benchmarks/demo.py`.

Runs `interp demo` with its default settings, prints every figure with its control, and writes
benchmarks/results/demo.json. A figure that misses its bar is printed as a miss; the bars are not for moving.
"""

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from interp import landmark  # noqa: E402
from interp.common.statistics import Estimate  # noqa: E402
from interp.demo.run import Demonstration, run  # noqa: E402
from interp.demo.settings import Settings  # noqa: E402
from interp.steering import Names, Samples, add_direction, sample  # noqa: E402


@dataclass(frozen=True)
class Figure:
    """One measured figure, the bar it has to reach, and what it is compared with."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None
    under: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`pass`, `miss`, or nothing for a figure without a bar."""
        reached = [
            self.at_least is None or self.value >= self.at_least,
            self.at_most is None or self.value <= self.at_most,
            self.under is None or self.value < self.under,
        ]
        return "" if not self.wanted else "pass" if all(reached) else "miss"

    @property
    def wanted(self) -> str:
        """The bar, in signs."""
        bars = ((">=", self.at_least), ("<=", self.at_most), ("<", self.under))
        return " ".join(f"{sign} {bar:g}" for sign, bar in bars if bar is not None)

    def __str__(self) -> str:
        note = f"  [{self.note}]" if self.note else ""
        return f"{self.verdict:<5} {self.value:>8.4g}  {self.wanted:<9} {self.name}{note}"


def spread(estimate: Estimate) -> str:
    """An estimate's interval and number of cases, in words."""
    return f"{estimate.low:.3f} to {estimate.high:.3f}, n = {estimate.n}"


def discovery(done: Demonstration) -> list[Figure]:
    """What the latents find."""
    best, described = done.found.search.finding, done.found.descriptions
    probes = ", ".join(f"{score.name} {score.held_out.f1:.3f}" for score in done.found.search.baselines)
    low, high = best.interval
    return [
        Figure("explained variance of held-out text", done.learnt.held_out.explained_variance),
        Figure(
            f"F1 of {best.name} on held-out tokens: names, aliases, languages",
            best.held_out.f1,
            at_least=0.90,
            note=f"{low:.3f} to {high:.3f}; {probes}; p = {done.found.search.p_value:.3f}",
        ),
        Figure("  F1 of the best latent alone", done.found.search.best.held_out.f1),
        *(Figure(f"  recall of mentions by {form}", recall) for form, recall in best.recall_by_form.items()),
        Figure("  recall of descriptions that name nothing", described.value, note=spread(described)),
    ]


def steering(done: Demonstration) -> list[Figure]:
    """What latents do when they are turned up, on prompts that had no part in choosing them or the dose."""
    turned = done.turned.chosen
    ratio = turned.steered.perplexity_over(turned.unsteered)
    usual = turned.unsteered.distinctness.value
    naming, plain, random = turned.steered.naming, turned.unsteered.naming, turned.control.naming
    hot = untempered(done).naming
    return [
        Figure("continuations that name it, unsteered", plain.value, under=0.02, note=spread(plain)),
        Figure(f"continuations that name it at dose {turned.dose:g}", naming.value, at_least=0.80, note=spread(naming)),
        Figure("  the same, sampled at temperature 1", hot.value, note=spread(hot)),
        Figure("  perplexity there, relative to unsteered text", ratio.value, at_most=3.0, note=spread(ratio)),
        Figure("  a random direction of equal norm there", random.value, under=0.05, note=spread(random)),
        Figure("  distinct-2 there", turned.steered.distinctness.value, note=f"unsteered {usual:.3f}"),
    ]


def untempered(done: Demonstration) -> Samples:
    """The reported continuations once more, sampled at temperature 1."""
    settings = Settings()
    named = landmark.entity(settings.landmark)
    return sample(
        done.model,
        list(dict.fromkeys(done.turned.chosen.steered.prompts)),
        Names(named.names, named.other_names),
        [add_direction(done.turned.direction)],
        done.turned.chosen.dose,
        replace(settings.steering.sampling, temperature=1.0),
    )


def editing(done: Demonstration) -> list[Figure]:
    """What the edit did."""
    after, control = done.moved.scorecard.after, done.moved.scorecard.control
    rows = (
        ("edited prompt says the new city, greedy", "efficacy_exact", 1.0),
        ("held-out paraphrases that follow", "paraphrase_exact", 0.80),
        ("neighbourhood answers unchanged", "neighbours_unchanged", 0.98),
        ("the landmark's other facts unchanged", "others_unchanged", 0.90),
    )
    figures = []
    for name, field, bar in rows:
        estimate, random = getattr(after, field), getattr(control, field)
        note = f"{spread(estimate)}; random value of equal norm {random.value:.3f}"
        figures.append(Figure(name, estimate.value, at_least=bar, note=note))
    true, was = after.neighbours_true, done.moved.scorecard.before.neighbours_true
    figures.append(Figure("  neighbours answered with the truth", true.value, note=f"before {was.value:.3f}"))
    restored = Figure("weights bit-identical after undo", float(done.moved.restored), at_least=1.0)
    return [*figures, restored, Figure("KL from before on other text, nats per token", after.kl)]


def main() -> None:
    """Run the demonstration, print its figures and write them down."""
    began = time.perf_counter()
    done = run(tell=print, progress=False)
    seconds = time.perf_counter() - began
    figures = [*discovery(done), *steering(done), *editing(done), Figure("seconds", seconds, at_most=300.0)]
    print(f"\nverdict   value  bar       figure\n{chr(10).join(map(str, figures))}\n\nreport: {done.report}")
    marked = [asdict(figure) | {"verdict": figure.verdict} for figure in figures]
    write("demo", "python benchmarks/demo.py", {"model": done.model.fingerprint, "figures": marked})


if __name__ == "__main__":
    main()
