"""The outcome of a search as a table: the best latents beside the probes that were fitted to the same tokens."""

from interp.features import Score, SearchResult
from interp.show.html import Html, escape, table
from interp.show.page import Panel


def search_panel(found: SearchResult, top: int = 5) -> Panel:
    """Precision, recall, F1 and AUROC on the half that was not searched, for latents and probes.

    ```python
    search_panel(search(sae, model, concept)).body
    ```
    """
    scores = [*found.latents[:top], *found.baselines]
    forms = list(dict.fromkeys(form for score in scores for form in score.recall_by_form))
    head = ["detector", "F1", "precision", "recall", *(f"recall,<br>{escape(form)}" for form in forms), "AUROC"]
    rows = [_row(score, forms) for score in scores]
    return Panel(
        title=f"Which latent finds {found.concept}, one row per {found.unit}",
        body=Html(table(head, rows, emphasised=[score is found.best for score in scores])),
        caption=(
            "Read the first row against the last ones: a dictionary earns its keep when one latent does about as well "
            f"as a probe that was shown the labels. All figures are from the {found.reported[0]:,} rows (of which "
            f"{found.reported[1]:,} positive) that were not searched; thresholds come from the searched half; "
            "intervals are 95% bootstraps over groups of texts."
        ),
        control=(
            f"{len(found.null_f1)} searches of all latents with exchanged labels reach an F1 of at most "
            f"{float(found.null_f1.max()):.2f} on the searched half, where the best latent has "
            f"{found.best.searched_f1:.2f}: p = {found.p_value:.3f}."
        ),
    )


def _row(score: Score, forms: list[str]) -> list[str]:
    low, high = score.interval
    by_form = [f"{score.recall_by_form[form]:.2f}" if form in score.recall_by_form else "–" for form in forms]
    kept = score.held_out
    f1 = f"{kept.f1:.3f} <small>{low:.2f}–{high:.2f}</small>"
    return [escape(score.name), f1, f"{kept.precision:.2f}", f"{kept.recall:.2f}", *by_form, f"{kept.auroc:.3f}"]
