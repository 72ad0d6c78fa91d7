"""The laws of whole runs: one text gives the same whatever is in its batch, before it, or in a KV cache.

How much rounding explains is measured on the model itself: noise of one rounding unit is put on the stream at the
input of every block. Four times the change that this makes at a site is allowed there; a change of more than sixteen
units counts as sixteen.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from hooks.capture import capture
from hooks.contract.report import Check, measure_laws
from hooks.contract.rounding import SLACK, Values, change, unit
from hooks.encoding import pad
from hooks.forward import accepts, arguments, named_outputs
from hooks.huggingface import HFModel, HFOutput
from hooks.model import Model
from hooks.site import Site, logits
from hooks.tokens import Tokens

_LARGEST = 16.0
_INSTALLED = "_output_capturing_hooks_installed"


def rows(site: Site, value: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "n _"]:
    """Return a captured value token by token; logits less their mean over the vocabulary, which says nothing.

    Examples:
        ```python
        rows(logits, acts[logits]).shape
        ```
    """
    flat = value.float().flatten(2).flatten(0, 1)
    return flat - flat.mean(dim=1, keepdim=True) if site == logits else flat


@final
@dataclass(frozen=True)
class Runs:
    """Two texts of a model, and what each gives alone.

    Attributes:
        model: the model.
        sites: the sites compared.
        texts: the longer text and the shorter.
        alone: what each gives alone.
        floor: by how much rounding changes each site.
    """

    model: Model
    sites: tuple[Site, ...]
    texts: tuple[Tokens, Tokens]
    alone: tuple[Values, Values]
    floor: Mapping[Site, float]

    def tolerance(self, site: Site) -> float:
        """Return the change that rounding explains at a site."""
        u = unit(self.model.dtype, self.model.d_model)
        return SLACK * min(max(self.floor[site], u), _LARGEST * u)

    def worst(self, law: str, states: str, changes: Mapping[Site, float], use: str) -> Check:
        """Return the law, measured at the site that exceeds most what rounding explains."""
        at = max(changes, key=lambda site: changes[site] / self.tolerance(site))
        return Check(law, states, changes[at], self.tolerance(at), at=at, use=use)


def measure_rounding(model: Model, tokens: Tokens, sites: tuple[Site, ...], clean: Values) -> dict[Site, float]:
    """Return by how much rounding noise on the stream changes each site.

    Cost: one forward pass.

    Examples:
        ```python
        measure_rounding(model, tokens, sites, acts.values)[logits]
        ```
    """
    random = torch.Generator().manual_seed(0)
    size = unit(model.dtype, model.d_model) / 2

    def noisy(a: Tensor) -> Tensor:
        return a * (1 + size * torch.randn(a.shape, generator=random).to(a))

    with ExitStack() as stack:
        for site in model.taps:
            if site.name == "resid_pre":
                stack.callback(model.tap(site).attach(noisy).remove)
        acts = capture(model, tokens, sites)
    return {site: change(rows(site, clean[site]), rows(site, acts[site])) for site in sites}


def plain_laws(runs: Runs) -> Iterator[Check]:
    """Yield: hooks change nothing, and the streams are those Hugging Face reports.

    Cost: one forward pass.

    Examples:
        ```python
        list(plain_laws(runs))
        ```
    """
    model, (text, _), (alone, _) = runs.model, runs.texts, runs.alone
    with remove_new_hooks(model.hf), named_outputs(model.hf):
        output = model.hf(**_call_plainly(model, text))
    if logits in alone:
        changed = change(rows(logits, output.logits), rows(logits, alone[logits]))
        yield Check(
            "same as Hugging Face", "logits = Hugging Face's logits", changed, runs.tolerance(logits), (logits,)
        )
    yield from _same_streams(runs, _streams(output))


def _same_streams(runs: Runs, theirs: Mapping[str, tuple[Tensor, ...]]) -> Iterator[Check]:
    """The streams as the model reports them; nothing where it reports something else than what its blocks read."""
    model, alone, found = runs.model, runs.alone[0], list[Check]()
    for block in model.structure.blocks:
        site, states = block.site("resid_pre"), theirs.get(block.stack, ())
        depth = sum(other.stack == block.stack for other in model.structure.blocks)
        if site in alone and len(states) == 1 + depth:
            changed = change(rows(site, states[block.layer]), rows(site, alone[site]))
            says = "resid_pre = Hugging Face's hidden state"
            found.append(Check("same stream", says, changed, runs.tolerance(site), (site,)))
    yield from found if any(check.holds for check in found) else ()


def _call_plainly(model: Model, text: Tokens) -> dict[str, Any]:
    """A call as the user of the model would make it, for its streams too; without a cache, as every pass is here."""
    ids = text.ids.to(model.device)
    given = arguments(model.hf, text.to(model.device))
    asked = {name: given[name] for name in ("decoder_input_ids", "return_dict", "use_cache") if name in given}
    return {"input_ids": ids, "output_hidden_states": True, **asked}


def _streams(output: HFOutput) -> dict[str, tuple[Tensor, ...]]:
    """The streams that a model reports, by stack."""
    named = {"": "hidden_states", "encoder": "encoder_hidden_states", "decoder": "decoder_hidden_states"}
    found = {stack: getattr(output, name, None) for stack, name in named.items()}
    return {stack: states for stack, states in found.items() if isinstance(states, tuple) and states}


@contextmanager
def remove_new_hooks(hf: HFModel) -> Iterator[None]:
    """Remove the hooks that were added inside the block: transformers reports hidden states by hooks that it leaves.

    Examples:
        ```python
        with remove_new_hooks(model.hf):
            model.hf(ids, output_hidden_states=True)
        ```
    """
    modules = [*hf.modules()]
    before = [(set(part._forward_hooks), _INSTALLED in part.__dict__) for part in modules]
    try:
        yield
    finally:
        for part, (hooks, installed) in zip(modules, before, strict=True):
            for key in set(part._forward_hooks) - hooks:
                del part._forward_hooks[key]
            if not installed:
                part.__dict__.pop(_INSTALLED, None)


def repeat_laws(runs: Runs) -> Iterator[Check]:
    """Yield, for each site: two runs give the same, so nothing is dropped at random.

    Cost: one forward pass.

    Examples:
        ```python
        list(repeat_laws(runs))
        ```
    """
    again = capture(runs.model, runs.texts[0], runs.sites)
    for site in runs.sites:
        changed = change(rows(site, runs.alone[0][site]), rows(site, again[site]))
        yield Check("no dropout", "two runs give the same", changed, SLACK * unit(runs.model.dtype), (site,))


def batch_laws(runs: Runs) -> Iterator[Check]:
    """Yield: two texts in one batch give what each gives alone, with no padding, and with it on either side.

    Cost: three forward passes.

    Examples:
        ```python
        list(batch_laws(runs))
        ```
    """
    long, short = runs.texts
    cut = long.cut(short.ids.shape[1])
    clean = capture(runs.model, cut, runs.sites).values

    def laws(law: str, states: str, use: str, tokens: Tokens, alone: tuple[Values, Values]) -> Iterator[Check]:
        return measure_laws(law, lambda: [_check_batch(runs, law, states, use, tokens, alone)], use)

    states = "a batch gives what its texts give alone"
    yield from laws("batch = single", states, "batch", _both(runs, cut, "right"), (clean, runs.alone[1]))
    for side in ("right", "left"):
        law = f"{side} padding"
        yield from laws(law, f"{law} changes nothing", law, _both(runs, long, side), runs.alone)


def _both(runs: Runs, long: Tokens, side: str) -> Tokens:
    rows = [text.ids[0].tolist() for text in (long, runs.texts[1])]
    return pad(runs.model.tokenizer, rows, side).to(runs.model.device)


def _check_batch(runs: Runs, law: str, states: str, use: str, tokens: Tokens, alone: tuple[Values, Values]) -> Check:
    together = capture(runs.model, tokens, runs.sites)
    changes = {
        site: max(
            change(rows(site, alone[row][site]), rows(site, together[site][row][tokens.mask[row]][None]))
            for row in range(2)
        )
        for site in runs.sites
    }
    return runs.worst(law, states, changes, use)


def cache_laws(runs: Runs) -> Iterator[Check]:
    """Yield: decoding with a KV cache, two tokens one by one after a prompt, gives what one pass gives.

    Cost: one forward pass and two over a single token.

    Examples:
        ```python
        list(cache_laws(runs))
        ```
    """
    hf, text = runs.model.hf, runs.texts[0].to(runs.model.device)
    if getattr(hf.config, "is_encoder_decoder", False):
        states = "the model is a decoder alone, as decoding token by token here takes it to be"
        yield Check("cached = uncached", states, 1.0, 0.0, use="cache")
        return
    n_pos = text.ids.shape[1]
    if not (hf.can_generate() and accepts(hf, "past_key_values") and logits in runs.alone[0] and n_pos > 2):
        return
    cache, made = None, []
    for start, stop in ((0, n_pos - 2), (n_pos - 2, n_pos - 1), (n_pos - 1, n_pos)):
        mask = text.mask[:, :stop]
        with named_outputs(hf):
            output = hf(
                input_ids=text.ids[:, start:stop], attention_mask=mask.long(), past_key_values=cache, use_cache=True
            )
        cache = output.past_key_values
        made.append(output.logits)
    changed = change(rows(logits, runs.alone[0][logits]), rows(logits, torch.cat(made, dim=1)))
    states = "decoding with a cache gives what one pass gives"
    yield Check("cached = uncached", states, changed, runs.tolerance(logits), use="cache")
