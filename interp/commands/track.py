"""The command `interp track`: metrics over the checkpoints of a run, and which of them break."""

from pathlib import Path
from typing import Annotated

import typer

from hooks import Model
from hooks.errors import InvalidArgument
from interp.commands.arguments import Device, Quiet, check_device, hide_bars, read_columns
from interp.commands.verb import Document, verb
from interp.common.statistics import Estimate
from interp.emergence import (
    Verdict,
    find_changes,
    judge,
    measure_answers,
    measure_clock_world,
    measure_induction_world,
    measure_segments_world,
    track,
)
from interp.emergence.track import Metric
from interp.show import Section, report, track_panel
from interp.show.frame import page_at
from interp.worlds.clock import HOURS
from interp.worlds.induction import LABELS
from interp.worlds.ladder import list_questions
from interp.worlds.segments import WORDS
from interp.worlds.train import checkpoints

EXPLAINED = {
    "the metric's": "The jump is the metric's: the share of right answers jumps, and the probability of the right "
    "answer changes smoothly through it.",
    "the model's": "The jump is the model's: not only the share of right answers, the probability of the right answer "
    "breaks, too.",
    "no jump": "Nothing jumps: the share of right answers changes over many checkpoints.",
    "unknown": "Nothing can be said: so few answers are right that these questions cannot show a jump.",
}


@verb
def track_command(
    run: Annotated[Path, typer.Argument(help="A folder with step_N folders, as interp worlds train writes.")],
    questions: Annotated[Path | None, typer.Option(help="A file with a prompt, a tab and its answer a line.")] = None,
    world: Annotated[
        str, typer.Option(help="Whose metrics, without --questions: 'ladder', 'induction', 'segments' or 'clock'.")
    ] = "ladder",
    file: Annotated[Path | None, typer.Option(help="Keep what was measured here; run again to go on.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page to write.")] = None,
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Measure a run's checkpoints by discontinuous and continuous metrics, and say whose a jump is."""
    if out is not None:
        page_at(out)
    place = check_device(device)
    metric, pair, chance = _metric(questions, world)
    hide_bars()
    found = track(checkpoints(run), {"": metric}, file=file, device=place, progress=not quiet)
    changes, verdict = find_changes(found), judge(found, *pair, chance=chance)
    typer.echo(f"{'metric':<30}{'first':>9}{'last':>9}{'break at':>10}{'p':>8}")
    for name, of in found.metrics.items():
        one = changes[name]
        typer.echo(f"{name:<30}{of[0].value:>9.3f}{of[-1].value:>9.3f}{one.step:>10}{one.p:>8.3f}")
    typer.echo(f"whose jump: {verdict}")
    if out is not None:
        report(
            out,
            f"{run.name} over its steps",
            EXPLAINED[verdict.said],
            [Section("Metrics, one below the other", _say(verdict, *pair), (track_panel(found, changes),))],
        )
        typer.echo(f"page: {out.resolve()}")
    return {"steps": found.steps, "metrics": found.metrics, "changes": changes, "verdict": verdict, "page": out}


def _say(verdict: Verdict, hard: str, soft: str) -> str:
    smooth = "as smooth curves do" if verdict.continuous.p > 0.05 else "as no smooth curve does"
    return (
        f"“{hard}” and “{soft}” are of the same answers. {verdict.steepest:.0%} of the rise of the first falls within "
        f"two checkpoints; the second changes {smooth} (p = {verdict.continuous.p:.2f})."
    )


def _metric(questions: Path | None, world: str) -> tuple[Metric, tuple[str, str], float]:
    """What is measured, which two metrics are judged, and the share that guessing gets right."""
    if questions is None and world == "induction":
        return measure_induction_world, ("in context: right", "in context: log p"), 1 / LABELS
    if questions is None and world == "segments":
        return measure_segments_world, ("copied: right", "copied: log p"), 1 / WORDS
    if questions is None and world == "clock":
        return measure_clock_world, ("unseen both ways: right", "unseen both ways: log p"), 1 / HOURS
    if questions is None and world != "ladder":
        raise InvalidArgument(f"--world {world}: take 'ladder', 'induction', 'segments', 'clock', or give --questions")
    if questions is None:
        rows = [(q.prompt, q.answer) for q in list_questions()[::4]]
    else:
        rows = [tuple(line) for line in read_columns(questions)]
    if odd := [row for row in rows if len(row) != 2]:
        raise InvalidArgument(f"{questions} has the line {odd[0][0]!r}: write a prompt, a tab and its answer")
    prompts, answers = [row[0] for row in rows], [row[1] for row in rows]

    def metric(model: Model) -> dict[str, Estimate]:
        return measure_answers(model, prompts, answers, progress=False).estimates()

    return metric, ("exact match", "log p of a token"), 0.0
