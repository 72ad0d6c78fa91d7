"""The outcome of a search as a table: the best latents next to baselines on the same rows."""

from markupsafe import Markup

from hooks.border import Count
from interp.features import Score, SearchResult
from interp.show.html import Html, part, table
from interp.show.page import Panel


def search_panel(found: SearchResult, top: Count = 5) -> Panel:
    """Precision, recall, F1 and AUROC on the half that was not searched, for latents and baselines.

    Examples:
        ```python
        search_panel(search(sae, model, concept)).body
        ```
    """
    return Panel(
        title=f"Which latent finds {found.concept}, one row per {found.unit}",
        body=Html(rank_table(found, top)),
        caption=(
            "Read the first row against the last ones: a dictionary earns its keep when one latent does about as well "
            "as a probe that was shown the labels. Always yes is what F1 gives to a detector that knows nothing. "
            "Latents are in the order of F1 on the searched half, which also "
            f"gave the thresholds; all figures are from the {found.reported[0]:,} rows (of which "
            f"{found.reported[1]:,} positive) that were not searched; "
            f"intervals are 95% bootstraps over groups of texts.{_note(found)}"
        ),
        control=(
            f"{len(found.null_f1)} searches of all latents with exchanged labels reach an F1 of at most "
            f"{float(found.null_f1.max()):.2f} on the searched half, where the best latent has "
            f"{found.best.searched_f1:.2f}: p = {found.p_value:.3f}.{_stability(found)}"
        ),
    )


def rank_table(found: SearchResult, top: int, *, linked: bool = False) -> Markup:
    """The table of a search: latents, their group if there is one, then the baselines.

    Latents link to their folds where the page has them (`linked`).
    """
    group = [found.group.score] if found.group else []
    scores = [*found.latents[:top], *group, *found.baselines]
    forms = list(dict.fromkeys(form for score in scores for form in score.recall_by_form))
    head = ["detector", "F1", "precision", "recall", *(part("form", form) for form in forms), "AUROC"]
    rows = [_row(score, forms, linked) for score in scores]
    return table(head, rows, emphasised=[score is found.finding for score in scores])


def _row(score: Score, forms: list[str], linked: bool) -> list[str]:
    low, high = score.interval
    by_form = [f"{score.recall_by_form[form]:.2f}" if form in score.recall_by_form else "–" for form in forms]
    kept = score.held_out
    f1 = part("with_small", f"{kept.f1:.3f}", f"{low:.3f} to {high:.3f}")
    name = score.name
    if linked and score.latent is not None:
        name = part("link", f"latent-{score.latent}", name)
    return [name, f1, f"{kept.precision:.2f}", f"{kept.recall:.2f}", *by_form, f"{kept.auroc:.3f}"]


def _note(found: SearchResult) -> str:
    return f" On the groups: {found.group.note}." if found.group and found.group.note else ""


def _stability(found: SearchResult) -> str:
    if found.stability is None:
        return ""
    return (
        f" On the other half of the texts the best latent ranks {found.stability.rank}; the latents' F1 on the "
        f"two halves have a rank correlation of {found.stability.correlation:.2f}."
    )
