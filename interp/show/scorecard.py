"""An edit's scorecard as a table: before, after, and with a random value of equal norm, with intervals."""

from interp.common.statistics import Estimate
from interp.memory import Edit, Scorecard
from interp.show.html import Html, part, table
from interp.show.page import Panel
from interp.show.theme import CONCEPT, CONTROL, rgba

ROWS = (
    ("efficacy_exact", "edited prompt says the new object", "rise"),
    ("efficacy_preferred", "edited prompt prefers it", "rise"),
    ("paraphrase_exact", "paraphrases say the new object", "rise"),
    ("paraphrase_preferred", "paraphrases prefer it", "rise"),
    ("neighbours_unchanged", "neighbours answered as before", "stay"),
    ("neighbours_forced_unchanged", "the same, teacher-forced", "stay"),
    ("neighbours_true", "neighbours answered with the truth", "stay"),
    ("neighbours_preferred", "neighbours prefer the truth", "stay"),
    ("others_unchanged", "subject's other facts as before", "stay"),
)


def scorecard_panel(card: Scorecard, edit: Edit) -> Panel:
    """Every measure of the scorecard before the edit, after it, and after its control.

    Examples:
        ```python
        scorecard_panel(scorecard(model, edit, paraphrases=..., neighbours=..., others=..., texts=...), edit).body
        ```
    """
    fact, columns = edit.facts[0], (card.before, card.after, card.control)
    head = ["", "should", "before", "after", "control"]
    rows = []
    for name, words, wish in ROWS:
        estimates = [getattr(column, name) for column in columns]
        rows.append([part("with_small", words, f"n = {estimates[0].n}"), wish, *map(_cell, estimates)])
    rows.append(["KL from before, nats per token", "stay", *(f"{column.kl:.2g}" for column in columns)])
    rows.append(["perplexity of other text, ratio", "stay", *(f"{column.perplexity_ratio:.3f}" for column in columns)])
    wanted = [wish == "rise" for _, _, wish in ROWS]
    return Panel(
        title=f"“{fact.text}” … {fact.old} → {fact.new}: the edit's scorecard",
        body=Html(table(head, rows, emphasised=wanted)),
        caption=(
            "The marked rows should rise, the others stay. Said means by greedy generation, as a whole word; preferred "
            "means likelier per token than the other object, which is easier. Below each share its 95% interval "
            "(Wilson)."
        ),
        control=(
            "The same key with a random value of equal norm: it shows what any change of that size at that place does."
        ),
    )


def _cell(e: Estimate) -> str:
    share = round(100 * e.value)
    ground = f"linear-gradient(90deg, {rgba(CONCEPT, 0.15)} {share}%, {rgba(CONTROL, 0.1)} {share}%)"
    return part("bar", ground, f"{e.value:.0%}", e.ends(".0%"))
