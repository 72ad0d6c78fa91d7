"""Browsing latents: a search by words, and what is known of one of them."""

from hooks.errors import UnknownName
from interp.features import map_dictionary
from interp.workbench.arguments import LatentArguments, MapArguments, SearchArguments
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress
from interp.workbench.search import LabelTable, find_by_label
from interp.workbench.session import Session, name_of


def search_latents(session: Session, given: SearchArguments, progress: Progress) -> Document:
    """The latents whose labels and tokens hold the words."""
    labels = _labels(session, given.sae)
    value = find_by_label(labels, given.words, top=given.top)
    progress.check()
    name = name_of("indexes", given.sae)
    code = f"value = find_by_label(LabelTable.of({name}), {given.words!r}, top={given.top})"
    session.record(Entry("search", given.model_dump(), code, value))
    columns = ("latent", "label", "firing_rate", "largest")
    rows = list(zip(labels.latents, labels.labels, labels.firing_rates, labels.largest, strict=True))
    found = [rows[place] for latent in value if (place := labels.place(latent)) is not None]
    return {"latents": [dict(zip(columns, row, strict=True)) for row in found]}


def show_latent(session: Session, given: LatentArguments, progress: Progress) -> Document:
    """What the index knows of one latent: its highest texts, what it promotes, what fires with it."""
    labels = _labels(session, given.sae)
    place = labels.place(given.latent)
    progress.check()
    if place is None:
        return {"latent": given.latent, "label": "never fires", "examples": []}
    record, label = session.indexes[given.sae].record(given.latent), labels.labels[place]
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


def map_latents(session: Session, given: MapArguments, progress: Progress) -> Document:
    """The latents that ever fire, in the plane: similar decoder directions near each other."""
    labels, sae = _labels(session, given.sae), session.sae(given.sae)
    latents = sorted(labels.latents)
    progress.check()
    drawn = map_dictionary(sae, latents, neighbours=min(15, max(2, len(latents) // 2 - 1)))
    value = [drawn.kept.value, drawn.chance]
    code = (
        f"latents = sorted(LabelTable.of({name_of('indexes', given.sae)}).latents)\n"
        f"drawn = map_dictionary({name_of('saes', given.sae)}, latents, neighbours={drawn.neighbours})\n"
        "value = [drawn.kept.value, drawn.chance]"
    )
    session.record(Entry("map", given.model_dump(), code, value))
    lines = dict(zip(labels.latents, labels.labels, strict=True))
    return {
        "latents": latents,
        "x": [round(x, 4) for x in drawn.xy[:, 0].tolist()],
        "y": [round(y, 4) for y in drawn.xy[:, 1].tolist()],
        "labels": [lines[latent] for latent in latents],
        "about": str(drawn),
    }


def _labels(session: Session, sae: str) -> LabelTable:
    if sae not in session.labels:
        raise UnknownName(
            f"no index of {sae!r} was given, so its latents have no labels: make one with interp.features.index, or "
            "`interp discover`"
        )
    return session.labels[sae]
