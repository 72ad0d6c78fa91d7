"""Tracing a behaviour: which places of one prompt bring it back in another."""

from hooks.pieces import piece
from hooks.site import LayerSites
from interp.circuits import denoising, each_position, logit_difference, patch_sweep
from interp.workbench.arguments import PatchArguments
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress, check_length
from interp.workbench.session import Session


def sweep_patches(session: Session, given: PatchArguments, progress: Progress) -> Document:
    """The share of the logit difference that each layer and token of the clean run brings back into the corrupt one."""
    for text in (given.clean, given.corrupt):
        check_length(session.model.tokens(text))
    metric = logit_difference(session.model, given.right, given.wrong)
    progress.check()
    over = each_position(LayerSites(given.site))
    found = patch_sweep(session.model, denoising(given.clean, given.corrupt), metric, over=over, progress=False)
    value = found.effect.tolist()
    code = (
        f"metric = logit_difference(model, {given.right!r}, {given.wrong!r})\n"
        f"found = patch_sweep(model, denoising({given.clean!r}, {given.corrupt!r}), metric, "
        f"over=each_position(LayerSites({given.site!r})), progress=False)\n"
        "value = found.effect.tolist()"
    )
    session.record(Entry("patch", given.model_dump(), code, value))
    return {
        "effect": value,
        "sites": [str(site) for site in found.sites],
        "tokens": [piece(session.model.tokenizer, i) for i in found.tokens.ids[0].tolist()],
        "unpatched": float(found.base[0]),
        "patched": float(found.donor[0]),
    }
