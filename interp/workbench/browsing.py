"""Browsing latents: a search by words, and what is known of one of them."""

from typing import Any

from hooks.errors import UnknownName
from interp.workbench.arguments import LatentGiven, SearchGiven
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress
from interp.workbench.search import find_by_label
from interp.workbench.session import Session, name_of


def search_latents(session: Session, given: SearchGiven, progress: Progress) -> Document:
    """The latents whose labels and tokens hold the words."""
    labelled = _labelled(session, given.sae)
    value = find_by_label(labelled, given.words, top=given.top)
    progress.check()
    name = name_of("indexes", given.sae)
    code = f"value = find_by_label(Labelled.of({name}), {given.words!r}, top={given.top})"
    session.record(Entry("search", given.model_dump(), code, value))
    found = [labelled.record(latent) for latent in value]
    return {
        "latents": [
            {"latent": r.latent, "label": label, "firing_rate": r.evidence.firing_rate, "largest": r.evidence.largest}
            for r, label in (one for one in found if one is not None)
        ]
    }


def show_latent(session: Session, given: LatentGiven, progress: Progress) -> Document:
    """What the index knows of one latent: its highest texts, what it promotes, what fires with it."""
    found = _labelled(session, given.sae).record(given.latent)
    progress.check()
    if found is None:
        return {"latent": given.latent, "label": "never fires", "examples": []}
    record, label = found
    evidence = record.evidence
    return {
        "latent": record.latent,
        "label": label,
        "firing_rate": evidence.firing_rate,
        "largest": evidence.largest,
        "tokens": evidence.tokens,
        "promoted": list(evidence.promoted),
        "suppressed": list(evidence.suppressed),
        "counts": evidence.counts.tolist(),
        "partners": [{"latent": other, "share": share} for other, share in record.partners[:8]],
        "examples": [
            {"tokens": list(one.tokens), "values": list(one.activations), "peak": one.peak}
            for one in evidence.examples[:12]
        ],
    }


def _labelled(session: Session, sae: str) -> Any:
    if sae not in session.labelled:
        raise UnknownName(
            f"no index of {sae!r} was given, so its latents have no labels: make one with interp.features.index, or "
            "`interp discover`"
        )
    return session.labelled[sae]
