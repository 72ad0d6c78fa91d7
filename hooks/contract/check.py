"""Check: measure every law of a model on short texts, in seconds, and refuse what breaks one."""

import time
from math import inf

import torch
from torch import Tensor

from hooks.capture import capture
from hooks.contract.block_identities import block_laws
from hooks.contract.ends import cross_laws, end_laws
from hooks.contract.invariance import Runs, batch_laws, cache_laws, measure_rounding, plain_laws, repeat_laws
from hooks.contract.kernels import kernel_laws
from hooks.contract.mixtures import drop_ordered_sites, mixture_laws
from hooks.contract.propagation import reach_laws
from hooks.contract.report import Check, ContractReport, blame_sites, find_unmeasured, measure_laws
from hooks.contract.rounding import Values
from hooks.contract.states import layer_embed_laws, state_laws
from hooks.encoding import special_ids
from hooks.forward import context
from hooks.model import Model
from hooks.offload import refuse_meta
from hooks.site import PATTERNS, STATES, Site
from hooks.temporary import grad_mode
from hooks.tokens import Tokens

_LONG, _SHORT = 12, 7
_EAGER = ("pattern", "v", "z", "cross_pattern", "cross_v", "cross_z")
_KNOWN: dict[tuple[object, ...], ContractReport] = {}


def check(model: Model) -> ContractReport:
    """Measure every law of a model and keep the report on it: `model.contract`.

    The sites of a block are tied to each other, the streams and logits to Hugging Face's own, and a text to
    itself in a batch, under padding, with a KV cache and when run again. A site that breaks a law, and a use
    that rests on one, are refused from then on. Each file of laws says what rounding is allowed.

    Returns:
        The report, with the error of every law at every layer.

    Raises:
        WrongState: a block of interventions is open, which would be measured with the model.

    Cost: about fifteen forward passes over at most 12 tokens, and one more for every five layers.

    Examples:
        ```python
        report = check(model)
        assert report.holds, report
        ```
    """
    model.running.check_outside("check measures the model as it is: check it outside the block")
    model.contract = None
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    handle = model.hf.register_forward_pre_hook(count)
    began = time.perf_counter()
    try:
        with grad_mode(False), refuse_meta(model.hf), torch.random.fork_rng(devices=_devices(model)):
            checks = _laws(model)
    finally:
        handle.remove()
    name = f"{model.name} ({type(model.hf).__name__})"
    dtype = str(model.dtype).removeprefix("torch.")
    model.contract = ContractReport(name, dtype, model.fingerprint, checks, passes, time.perf_counter() - began)
    return model.contract


def contract_of(model: Model) -> ContractReport:
    """Return the report of a model equal to one that was checked before, or check it.

    Equal means: the same fingerprint, buffers, classes of all parts, type of weights, device, kind of attention and
    mode, the same operations with the same outcome on a short text, and neither hooks of others nor a part whose
    `forward` was replaced.

    Cost: none, or that of `check`.

    Examples:
        ```python
        contract_of(model) is contract_of(model)
        ```
    """
    hf = model.hf
    if any(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part) for part in hf.modules()):
        return check(model)
    training = any(part.training for part in hf.modules())
    implementation = getattr(hf.config, "_attn_implementation", None)
    kinds = tuple(type(part) for part in hf.modules())
    buffers = tuple((name, *_sum_buffer(buffer)) for name, buffer in hf.named_buffers())
    does = (model.structure.digest, implementation, training)
    key = (model.fingerprint, kinds, buffers, model.dtype, str(model.device), *does)
    if key not in _KNOWN:
        _KNOWN[key] = check(model)
    model.contract = _KNOWN[key]
    return model.contract


def _sum_buffer(buffer: Tensor) -> tuple[float, float]:
    """Two sums that change when a buffer, such as the frequencies of a rotation, does."""
    flat = buffer.detach().flatten().to("cpu", torch.float64)
    return float(flat.sum()), float(flat @ torch.arange(1.0, len(flat) + 1, dtype=torch.float64))


def _laws(model: Model) -> tuple[Check, ...]:
    texts = _texts(model)
    readable = tuple(site for site in model.taps if site.name not in (*PATTERNS, *STATES))
    first, unread = _read_sites(model, texts[0], readable)
    sites = tuple(first)
    if not sites:
        return (*unread, *find_unmeasured(unread, model.taps))
    alone = (first, capture(model, texts[1], sites).values)
    compared = drop_ordered_sites(sites)
    runs = Runs(model, compared, texts, alone, measure_rounding(model, texts[0], compared, first))
    patterns = tuple(site for site in model.taps if site.name in _EAGER)
    eager, unread_eager = _read_sites(model, texts[0], patterns) if patterns else ({}, [])
    checks = [
        *unread,
        *unread_eager,
        *repeat_laws(runs),
        *measure_laws("same as Hugging Face", lambda: plain_laws(runs)),
    ]
    checks += [*end_laws(model, first, texts[0]), *block_laws(model, first, eager)]
    checks += mixture_laws(model, first, texts[0])
    checks += measure_laws("cross keys and values", lambda: cross_laws(model, first, texts[0]))
    checks += measure_laws("pattern averages", lambda: kernel_laws(model, eager, texts[0]))
    checks += measure_laws("embedding of a layer", lambda: layer_embed_laws(model, first, texts[0]))
    checks += state_laws(model, texts[1])
    states = [site for site in model.taps if site.name in STATES]
    checks += find_unmeasured(checks, [*first.keys(), *eager.keys(), *states])
    blame = blame_sites(checks)
    sound = [site for site in model.taps if site in first.keys() | eager.keys() and site not in blame]
    reach = measure_laws("writing reaches", lambda: reach_laws(model, texts[1], sound))
    return (*checks, *reach, *batch_laws(runs), *measure_laws("cached = uncached", lambda: cache_laws(runs), "cache"))


def _read_sites(model: Model, tokens: Tokens, sites: tuple[Site, ...]) -> tuple[Values, list[Check]]:
    """What a pass gives at each site; a site that gives nothing, or another shape, breaks a law."""
    try:
        values = dict(capture(model, tokens, sites).values)
    except Exception:  # whatever a model built like no other raises
        values = {site: value for site in sites if (value := _alone(model, tokens, site)) is not None}
    states = "the site has a value of its shape at every token"
    broken = [site for site in sites if not _check_shape(model, tokens, site, values.get(site))]
    checks = [Check("every site fires", states, inf, 0.0, (site,)) for site in broken]
    return {site: value for site, value in values.items() if site not in broken}, checks


def _alone(model: Model, tokens: Tokens, site: Site) -> Tensor | None:
    try:
        return capture(model, tokens, site)[site]
    except Exception:  # whatever a model built like no other raises
        return None


def _check_shape(model: Model, tokens: Tokens, site: Site, value: Tensor | None) -> bool:
    n_pos, shape = tokens.ids.shape[1], model.taps[site].shape
    expected = (*shape, n_pos, n_pos) if site.name in PATTERNS else (n_pos, *shape)
    return value is not None and value.shape[1:] == expected


def _texts(model: Model) -> tuple[Tokens, Tokens]:
    """Two texts of random ordinary tokens; their lengths differ, so that a batch of them is padded."""
    config = model.hf.config.get_text_config()
    longest = min(_LONG, context(model.hf) or _LONG)
    usable = torch.ones(model.d_vocab)
    named = (getattr(config, name, None) for name in ("pad_token_id", "bos_token_id"))
    special = {*special_ids(model.tokenizer), *named} - {None}
    usable[[one for one in special if one < model.d_vocab]] = 0.0
    usable = usable if bool(usable.any()) else torch.ones(model.d_vocab)
    ids = usable.multinomial(_LONG + _SHORT, replacement=True, generator=torch.Generator().manual_seed(0))
    shorter = max(1, min(_SHORT, longest - 1))
    return _tokens(ids[None, :longest]), _tokens(ids[None, _LONG : _LONG + shorter])


def _tokens(ids: Tensor) -> Tokens:
    mask = torch.ones_like(ids, dtype=torch.bool)
    return Tokens(ids=ids, mask=mask, special=~mask)


def _devices(model: Model) -> list[torch.device]:
    return [] if model.device.type == "cpu" else [model.device]
