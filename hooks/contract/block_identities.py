"""The laws of a block: identities that tie each site to its neighbours.

The error of a law is max over tokens of ‖left - right‖ / Σ‖terms‖.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.contract.report import Check, measure_laws
from hooks.contract.rounding import SLACK, Values, miss, unit
from hooks.errors import InvalidArgument
from hooks.huggingface import HFConfig
from hooks.layout import find, gate_up_rows
from hooks.model import Model
from hooks.site import PATTERNS, Site
from hooks.structure import Block
from hooks.tracing.residual import Expr, evaluate, format_sum, from_stage, is_norm, is_plain, terms_of
from hooks.weights import bias_of, is_quantised, matrix_of

Factor: TypeAlias = float | Float[Tensor, "..."]


@final
@dataclass(frozen=True)
class CapturedBlock:
    """One block with what was captured around it.

    Attributes:
        model: the model.
        block: the block as it was traced.
        part: its modules by TransformerLens's names.
        acts: captured values.
        eager: captured values of the attention that computes its pattern.
    """

    model: Model
    block: Block
    part: Mapping[str, nn.Module]
    acts: Values
    eager: Values

    def has(self, *names: str) -> bool:
        """Return whether all these sites were captured."""
        return all(self.block.site(name) in self.acts for name in names)

    def __getitem__(self, name: str) -> Float[Tensor, "batch pos *d"]:
        return self.acts[self.block.site(name)]

    def check(self, law: str, states: str, error: float, n: int, *names: str | Site) -> Check:
        """Return the measured law."""
        sites = tuple(self.block.site(one) if isinstance(one, str) else one for one in names)
        return Check(law, states, error, SLACK * unit(self.model.dtype, n), sites)

    def reads(self, sublayer: str, ln: str) -> tuple[nn.Module | None, str]:
        """Return the norm through which a sublayer reads the stream, and what it is called."""
        norm = self.block.part.get(f"{sublayer}.norm")
        if norm is None:
            plain = self.model.paths.norms_after or self.model.paths.norms_last
            norm = None if plain else self.part.get(ln, self.part.get("ln1"))
            return norm, ln.upper() if ln in self.part else "LN1"
        if isinstance(norm, nn.Identity):
            return None, ""
        return norm, "LN1" if norm is self.part.get("ln1") else ln.upper()

    def _writes(self, site: str) -> tuple[Factor, Callable[[Tensor], Tensor]]:
        """Return the factor and the norm through which a sublayer's output goes before it is added."""
        kind = self.block.sublayer(site)
        norm = None if kind is None or kind.norm is None else kind.norm.module
        if kind is None:  # only an adapter says where it is
            ln = {"attn_out": "ln1", "mlp_out": "ln2"}[site]
            norm = self.part.get(ln if self.model.paths.norms_last else f"{ln}_post")
        return self.model.taps[self.block.site(site)].view.factor, (nn.Identity() if norm is None else norm)


def block_laws(model: Model, acts: Values, eager: Values) -> Iterator[Check]:
    """Yield the laws inside every block, each measured by itself.

    Examples:
        ```python
        [check.law for check in block_laws(model, acts.values, eager.values)]
        ```
    """
    for block in model.structure.blocks:
        captured = CapturedBlock(model, block, model.parts(block), acts, eager)
        for name, law in _LAWS:
            yield from measure_laws(name, partial(law, captured))


def _middle_adds(b: CapturedBlock) -> Iterator[Check]:
    """resid_mid, out of resid_pre and what mixes tokens."""
    middle = b.block.sums.middle
    if middle is not None and b.has("resid_mid", "resid_pre"):
        yield from _sum(b, "attention adds", "resid_mid", middle, "resid_pre")


def _end_adds(b: CapturedBlock) -> Iterator[Check]:
    """resid_post, out of resid_mid and what is added after it."""
    end, middle = b.block.sums.end, b.block.sums.middle
    if end is not None and middle is not None and b.has("resid_mid", "resid_post"):
        yield from _sum(b, "feed-forward adds", "resid_post", from_stage(end, middle), "resid_mid")


def _block_adds(b: CapturedBlock) -> Iterator[Check]:
    """resid_post, out of resid_pre and all that is added."""
    if b.block.sums.end is not None and b.has("resid_post", "resid_pre") and not b.model.paths.norms_after:
        yield from _sum(b, "block adds", "resid_post", b.block.sums.end, "resid_pre")


def _sum(b: CapturedBlock, law: str, made: str, expr: Expr, stream: str) -> Iterator[Check]:
    """left = the sum as it was traced, of what is captured now; relative to the terms where it is a plain sum."""
    names = [site.name if site.name != "module" else str(site) for site in b.block.terms]
    inside = [b.block.terms[i] for i in sorted(terms_of(expr))]
    if any(site not in b.acts for site in inside):
        return
    terms = {i: b.acts[b.block.terms[i]] for i in terms_of(expr)}
    right = [b[stream], *terms.values()] if is_plain(expr) else [evaluate(expr, b[stream], terms)]
    error = miss(b[made], *right)
    states = f"{made} = {format_sum(expr, names, stream)}"
    yield b.check(law, states, error, 1, made, *inside, stream)


def _projects(b: CapturedBlock, name: str) -> Iterator[Check]:
    """What attention reads, projected: q = W_Q LN1(resid_pre) + b, and k and v alike."""
    if not b.has("resid_pre", name):
        return
    norm, called = b.reads("attn", "ln1")
    rows = b.model.paths.qkv_rows
    x = b["resid_pre"] if norm is None else norm(b["resid_pre"])
    made = project(b.part[f"attn.{name}" if rows is None else "attn.qkv"], x)
    own = b.model.taps[b.block.site(name)].view.rows if rows is None else rows[name].to(made.device)
    made = made if own is None else made.index_select(-1, own)
    read = "resid_pre" if norm is None else f"{called}(resid_pre)"
    states = f"{name} = W_{name.upper()} {read} + b"
    error = miss(b[name].flatten(2), made)
    law = f"{name} projects"
    yield _or_traced(b.check(law, states, error, x.shape[-1], name, "resid_pre"), _reads_stage(b, name, f"attn.{name}"))


def _or_traced(said: Check, traced: Iterator[Check]) -> Check:
    """A law as an adapter says it, or, where that is missed and what tracing saw holds, that."""
    if said.holds:
        return said
    seen = next(traced, said)
    return replace(seen, law=said.law) if seen.holds else said


def _heads_write(b: CapturedBlock) -> Iterator[Check]:
    """z W_O summed over heads."""
    if b.has("z", "attn_out"):
        (factor, norm), joint = b._writes("attn_out"), b["z"].flatten(2)
        made = norm(project(b.part["attn.o"], joint)) * factor
        states = f"attn_out = {_show_sum(norm, factor, 'Σ_head z W_O + b')}"
        yield b.check("heads write", states, miss(b["attn_out"], made), joint.shape[-1], "z", "attn_out")


def _reads_stage(b: CapturedBlock, name: str, part: str | None) -> Iterator[Check]:
    """What a part reads, or what it makes of that: of a stage of the stream, through norms and other modules."""
    if name not in b.block.reads or not b.has(name, "resid_pre") or (part is not None and part not in b.part):
        return
    through, expr = b.block.reads[name]
    terms = {i: b.acts[b.block.terms[i]] for i in terms_of(expr) if b.block.terms[i] in b.acts}
    if terms.keys() != terms_of(expr):
        return
    made = nn.Sequential(*through)(evaluate(expr, b["resid_pre"], terms))
    names = [one.name if one.name != "module" else str(one) for one in b.block.terms]
    read = format_sum(expr, names)
    for module in through:
        read = f"{'LN' if is_norm(module) else type(module).__name__}({read})"
    n = 1
    if part is not None:
        n, rows = made.shape[-1], b.model.taps[b.block.site(name)].view.rows
        made = project(b.part[part], made)
        made, read = (made if rows is None else made.index_select(-1, rows)), f"W {read} + b"
    states = f"{name} = {read}"
    error = miss(b[name].flatten(2), made.flatten(2))
    yield b.check(f"{name} is read", states, error, n, name, "resid_pre")


def _cross_heads_write(b: CapturedBlock) -> Iterator[Check]:
    """cross_z W_O summed over heads."""
    if b.has("cross_z", "cross_out"):
        (factor, norm), joint = b._writes("cross_out"), b["cross_z"].flatten(2)
        made = norm(project(b.part["cross_attn.o"], joint)) * factor
        states = f"cross_out = {_show_sum(norm, factor, 'Σ_head cross_z W_O + b')}"
        error = miss(b["cross_out"], made)
        yield b.check("cross heads write", states, error, joint.shape[-1], "cross_z", "cross_out")


def _heads_average(b: CapturedBlock) -> Iterator[Check]:
    """What z averages; of a pattern that is read at a kernel see `kernels`."""
    for site in map(b.block.site, PATTERNS):
        if site in b.eager and b.model.taps[site].inside is None:
            yield from average_laws(b.model, b.eager, site)


def average_laws(model: Model, acts: Values, site: Site) -> Iterator[Check]:
    """Yield z = Σ_pos pattern v of one pattern, where values and what their averages are can be read.

    Examples:
        ```python
        [check.error for check in average_laws(model, acts.values, pattern[0])]
        ```
    """
    cross = site.name.removesuffix("pattern")
    sites = [replace(site, name=f"{cross}{name}") for name in ("z", "pattern", "v")]
    if all(one in acts for one in sites):
        z, pattern, v = (acts[one] for one in sites)
        v = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
        made = torch.einsum("bhqk,bkhd->bqhd", pattern.to(v.dtype), v)
        allowed = SLACK * unit(model.dtype, z.shape[1])
        yield Check(f"{cross}heads average", f"{cross}z = Σ_pos {cross}pattern {cross}v", miss(z, made), allowed,
                    tuple(sites))  # fmt: skip


def _pattern_weighs(b: CapturedBlock) -> Iterator[Check]:
    """Rows of a pattern are weights; what they lack of 1 a head spends on no token (attention sinks)."""
    for site in map(b.block.site, PATTERNS):
        if site in b.eager:
            pattern = b.eager[site].float()
            error = max(float((-pattern).amax()), float(pattern.sum(dim=-1).amax()) - 1.0, 0.0)
            error = error if bool(pattern.isfinite().all()) else inf
            yield b.check("rows weigh", "pattern >= 0, Σ_pos pattern <= 1", error, pattern.shape[-1], site)


def _memories_write(b: CapturedBlock) -> Iterator[Check]:
    """mlp_act W_out, or the whole feed-forward layer where it has no one output projection."""
    if not b.has("mlp_out"):
        return
    factor, norm = b._writes("mlp_out")
    if "mlp.out" in b.part and b.has("mlp_act"):
        made = norm(project(b.part["mlp.out"], b["mlp_act"])) * factor
        states = f"mlp_out = {_show_sum(norm, factor, 'W_out mlp_act + b')}"
        yield b.check("memories write", states, miss(b["mlp_out"], made), b["mlp_act"].shape[-1],
                      "mlp_act", "mlp_out")  # fmt: skip
    elif "mlp" in b.part and b.has("mlp_in"):
        kind, output = b.block.sublayer("mlp_out"), b.part["mlp"](b["mlp_in"])
        within = False
        if kind is not None and kind.norm is not None and kind.root is not None:
            within = kind.norm.path.startswith(f"{kind.root.path}.")
        output = output if isinstance(output, Tensor) else output[0]
        made = (output if within else norm(output)) * factor
        states = f"mlp_out = {_show_sum(norm, factor, 'MLP(mlp_in)')}"
        error = miss(b["mlp_out"], made.reshape(b["mlp_out"].shape))
        yield b.check("feed-forward writes", states, error, b.model.d_model, "mlp_in", "mlp_out")


def _feed_forward_reads(b: CapturedBlock) -> Iterator[Check]:
    before = "resid_mid" if b.has("resid_mid") else "resid_pre"
    if b.has("mlp_in", before):
        norm, called = b.reads("mlp", "ln2")
        made = b[before] if norm is None else norm(b[before])
        states = f"mlp_in = {before if norm is None else f'{called}({before})'}"
        said = b.check("feed-forward reads", states, miss(b["mlp_in"], made), 1, "mlp_in", before)
        yield _or_traced(said, _reads_stage(b, "mlp_in", None))


def _keys_match(b: CapturedBlock) -> Iterator[Check]:
    if b.has("mlp_in", "mlp_pre"):
        joint = b.part.get("mlp.gate_up")
        first = joint or b.part["mlp.gate" if "mlp.gate" in b.part else "mlp.in"]
        made = project(first, b["mlp_in"])
        made = made if joint is None else made.index_select(-1, gate_up_rows(joint)[0])
        error = miss(b["mlp_pre"], made)
        yield b.check("keys match", "mlp_pre = W_in mlp_in + b", error, b.model.d_model, "mlp_pre", "mlp_in")


def _memories_fire(b: CapturedBlock) -> Iterator[Check]:
    if b.has("mlp_in", "mlp_pre", "mlp_act"):
        yield _nonlinearity(b)


_LAWS: tuple[tuple[str, Callable[[CapturedBlock], Iterator[Check]]], ...] = (
    ("attention adds", _middle_adds),
    ("feed-forward adds", _end_adds),
    ("block adds", _block_adds),
    ("q projects", partial(_projects, name="q")),
    ("k projects", partial(_projects, name="k")),
    ("v projects", partial(_projects, name="v")),
    ("attention gate", partial(_reads_stage, name="attn_gate", part="attn_gate")),
    ("cross q projects", partial(_reads_stage, name="cross_q", part="cross_attn.q")),
    ("cross heads write", _cross_heads_write),
    ("mixer reads", partial(_reads_stage, name="mixer_in", part=None)),
    ("mixer gate", partial(_reads_stage, name="mixer_gate", part="mixer_gate")),
    ("heads write", _heads_write),
    ("heads average", _heads_average),
    ("rows weigh", _pattern_weighs),
    ("memories write", _memories_write),
    ("feed-forward reads", _feed_forward_reads),
    ("keys match", _keys_match),
    ("memories fire", _memories_fire),
)


def _nonlinearity(b: CapturedBlock) -> Check:
    act = b.part.get("mlp.act") or activation(b.block.module, b.part, b.model.hf.config.get_text_config())
    made, states = act(b["mlp_pre"]), "mlp_act = act(mlp_pre)"
    if "mlp.gate_up" in b.part:
        joint = b.part["mlp.gate_up"]
        up = project(joint, b["mlp_in"]).index_select(-1, gate_up_rows(joint)[1])
        made, states = made * up, f"{states} (W_up mlp_in + b)"
    elif "mlp.gate" in b.part:
        made, states = made * project(b.part["mlp.in"], b["mlp_in"]), f"{states} (W_up mlp_in + b)"
    if "mlp.act_norm" in b.part:
        made, states = b.part["mlp.act_norm"](made), states.replace("= ", "= LN(") + ")"
    return b.check("memories fire", states, miss(b["mlp_act"], made), b["mlp_in"].shape[-1], "mlp_act", "mlp_pre")


def _show_sum(norm: Callable[[Tensor], Tensor], factor: float | Tensor, inner: str) -> str:
    read = inner if isinstance(norm, nn.Identity) else f"LN_post({inner})"
    if isinstance(factor, Tensor):
        return f"weight ({read})"
    return read if factor == 1.0 else f"{factor:g} ({read})"


def project(projection: nn.Module, x: Float[Tensor, "*n _"]) -> Float[Tensor, "*n _"]:
    """Return x W + b with the weights of a projection, for `nn.Linear` and GPT-2's `Conv1D` alike.

    Examples:
        >>> project(nn.Linear(3, 5), torch.ones(2, 3)).shape
        torch.Size([2, 5])
    """
    if is_quantised(projection):  # it may round what it is given too, so only the module itself knows
        return projection(x)
    made, bias = x @ matrix_of(projection), bias_of(projection)
    return made if bias is None else made + bias


def activation(block: nn.Module, part: Mapping[str, nn.Module], config: HFConfig) -> nn.Module:
    """Return the nonlinearity of a feed-forward layer: its module without weights, or the one the configuration names.

    Raises:
        InvalidArgument: neither is found.

    Examples:
        ```python
        activation(block, parts(block, paths), model.hf.config)
        ```
    """
    inside = part.get("mlp", find(block, "intermediate") or block)
    plain = [one for one in inside.children() if not [*one.parameters()] and not isinstance(one, nn.Dropout)]
    if len(plain) == 1:
        return plain[0]
    from transformers.activations import ACT2FN

    for name in ("hidden_act", "hidden_activation", "activation_function", "activation"):
        if isinstance(getattr(config, name, None), str):
            return ACT2FN[getattr(config, name)]
    raise InvalidArgument(f"{type(inside).__name__} does not say which nonlinearity it has")
