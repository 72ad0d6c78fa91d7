"""The laws of a block: identities that tie each site to its neighbours.

The error of a law is max over tokens of ‖left - right‖ / Σ‖terms‖.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.contract.report import Check
from hooks.contract.rounding import SLACK, Values, miss, unit
from hooks.errors import InvalidArgument
from hooks.huggingface import HFConfig
from hooks.layout import find, gate_up_rows, parts
from hooks.model import Model
from hooks.site import Site


@final
@dataclass(frozen=True)
class Block:
    """One block with what was captured around it.

    Attributes:
        model: the model.
        layer: which block.
        part: its modules by TransformerLens's names.
        acts: captured values.
        eager: captured values of the attention that computes its pattern.
    """

    model: Model
    layer: int
    part: Mapping[str, nn.Module]
    acts: Values
    eager: Values

    def has(self, *names: str) -> bool:
        """Return whether all these sites were captured."""
        return all(Site(name, self.layer) in self.acts for name in names)

    def __getitem__(self, name: str) -> Float[Tensor, "batch pos *d"]:
        return self.acts[Site(name, self.layer)]

    def check(self, law: str, states: str, error: float, n: int, *names: str) -> Check:
        """Return the measured law."""
        sites = tuple(Site(name, self.layer) for name in names)
        return Check(law, states, error, SLACK * unit(self.model.dtype, n), sites)


def block_laws(model: Model, acts: Values, eager: Values) -> Iterator[Check]:
    """Yield the laws inside every block.

    Example:
        ```python
        [check.law for check in block_laws(model, acts.values, eager.values)]
        ```
    """
    for layer in range(model.n_layers):
        block = Block(model, layer, parts(model.blocks[layer], model.paths), acts, eager)
        yield from _stream(block)
        yield from _projections(block)
        yield from _attention(block)
        yield from _feed_forward(block)


def _stream(b: Block) -> Iterator[Check]:
    ends = b.has("resid_post", "attn_out", "mlp_out", "resid_pre")
    if b.model.paths.norms_after:
        if ends and b.has("resid_mid"):
            left, right = b.part["ln1"](b["resid_pre"] + b["attn_out"]), b["resid_mid"]
            yield b.check("attention adds", "resid_mid = LN1(resid_pre + attn_out)", miss(left, right), 1,
                          "resid_mid", "attn_out", "resid_pre")  # fmt: skip
            left, right = b.part["ln2"](b["resid_mid"] + b["mlp_out"]), b["resid_post"]
            yield b.check("feed-forward adds", "resid_post = LN2(resid_mid + mlp_out)", miss(left, right), 1,
                          "mlp_out", "resid_mid", "resid_post")  # fmt: skip
        return
    if ends and b.has("resid_mid"):
        error = miss(b["resid_mid"], b["resid_pre"], b["attn_out"])
        yield b.check("attention adds", "resid_mid = resid_pre + attn_out", error, 1,
                      "resid_mid", "attn_out", "resid_pre")  # fmt: skip
        error = miss(b["resid_post"], b["resid_mid"], b["mlp_out"])
        yield b.check("feed-forward adds", "resid_post = resid_mid + mlp_out", error, 1,
                      "mlp_out", "resid_mid", "resid_post")  # fmt: skip
    if ends:
        error = miss(b["resid_post"], b["resid_pre"], b["attn_out"], b["mlp_out"])
        yield b.check("block adds", "resid_post = resid_pre + attn_out + mlp_out", error, 1,
                      "resid_post", "attn_out", "mlp_out", "resid_pre")  # fmt: skip


def _projections(b: Block) -> Iterator[Check]:
    """What attention reads, projected: q = W_Q LN1(resid_pre) + b, and k and v alike."""
    read_raw = b.model.paths.norms_after or b.model.paths.norms_last or "ln1" not in b.part
    read = "resid_pre" if read_raw else "LN1(resid_pre)"
    rows = b.model.paths.qkv_rows
    for name in ("q", "k", "v"):
        if not b.has("resid_pre", name):
            continue
        x = b["resid_pre"] if read_raw else b.part["ln1"](b["resid_pre"])
        made = project(b.part[f"attn.{name}" if rows is None else "attn.qkv"], x)
        made = made if rows is None else made.index_select(-1, rows[name].to(made.device))
        states = f"{name} = W_{name.upper()} {read} + b"
        error = miss(b[name].flatten(2), made)
        yield b.check(f"{name} projects", states, error, x.shape[-1], name, "resid_pre")


def _attention(b: Block) -> Iterator[Check]:
    """z W_O summed over heads, and what z averages."""
    factor, norm = _behind(b, "ln1", "attn_out")
    if b.has("z", "attn_out"):
        out = b.part["attn.o"]
        made = norm(project(out, b["z"].flatten(2))) * factor
        states = f"attn_out = {_shown(norm, factor, 'Σ_head z W_O + b')}"
        yield b.check("heads write", states, miss(b["attn_out"], made), b["z"][0, 0].numel(), "z", "attn_out")
    sites = [Site(name, b.layer) for name in ("pattern", "v", "z")]
    if all(site in b.eager for site in sites):
        pattern, v, z = (b.eager[site] for site in sites)
        v = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
        made = torch.einsum("bhqk,bkhd->bqhd", pattern.to(v.dtype), v)
        yield b.check("heads average", "z = Σ_pos pattern v", miss(z, made), z.shape[1], "z", "pattern", "v")


def _feed_forward(b: Block) -> Iterator[Check]:
    factor, norm = _behind(b, "ln2", "mlp_out")
    if b.has("mlp_act", "mlp_out"):
        made = norm(project(b.part["mlp.out"], b["mlp_act"])) * factor
        states = f"mlp_out = {_shown(norm, factor, 'W_out mlp_act + b')}"
        yield b.check("memories write", states, miss(b["mlp_out"], made), b["mlp_act"].shape[-1],
                      "mlp_act", "mlp_out")  # fmt: skip
    if "mlp.out" not in b.part and "mlp" in b.part and b.has("mlp_in", "mlp_out"):
        made = norm(b.part["mlp"](b["mlp_in"])) * factor
        states = f"mlp_out = {_shown(norm, factor, 'MLP(mlp_in)')}"
        yield b.check("feed-forward writes", states, miss(b["mlp_out"], made), b.model.d_model, "mlp_in", "mlp_out")
    before = "resid_mid" if b.has("resid_mid") else "resid_pre"
    if b.has("mlp_in", before):
        plain = b.model.paths.norms_after or b.model.paths.norms_last
        ln = None if plain else "ln2" if "ln2" in b.part else "ln1"
        made = b[before] if ln is None else b.part[ln](b[before])
        states = f"mlp_in = {before if ln is None else f'{ln.upper()}({before})'}"
        yield b.check("feed-forward reads", states, miss(b["mlp_in"], made), 1, "mlp_in", before)
    if b.has("mlp_in", "mlp_pre"):
        joint = b.part.get("mlp.gate_up")
        first = joint or b.part["mlp.gate" if "mlp.gate" in b.part else "mlp.in"]
        made = project(first, b["mlp_in"])
        made = made if joint is None else made.index_select(-1, gate_up_rows(joint)[0])
        error = miss(b["mlp_pre"], made)
        yield b.check("keys match", "mlp_pre = W_in mlp_in + b", error, b.model.d_model, "mlp_pre", "mlp_in")
    if b.has("mlp_in", "mlp_pre", "mlp_act"):
        yield _nonlinearity(b)


def _nonlinearity(b: Block) -> Check:
    act = activation(b.model.blocks[b.layer], b.part, b.model.hf.config.get_text_config())
    made, states = act(b["mlp_pre"]), "mlp_act = act(mlp_pre)"
    if "mlp.gate_up" in b.part:
        joint = b.part["mlp.gate_up"]
        up = project(joint, b["mlp_in"]).index_select(-1, gate_up_rows(joint)[1])
        made, states = made * up, f"{states} (W_up mlp_in + b)"
    elif "mlp.gate" in b.part:
        made, states = made * project(b.part["mlp.in"], b["mlp_in"]), f"{states} (W_up mlp_in + b)"
    return b.check("memories fire", states, miss(b["mlp_act"], made), b["mlp_in"].shape[-1], "mlp_act", "mlp_pre")


def _behind(b: Block, name: str, site: str) -> tuple[float, Callable[[Tensor], Tensor]]:
    """The factor and the extra norm through which a sublayer's output goes before it is added."""
    norm = b.part.get(name if b.model.paths.norms_last else f"{name}_post")
    tap = b.model.taps.get(Site(site, b.layer))
    return (1.0 if tap is None else tap.factor), (nn.Identity() if norm is None else norm)


def _shown(norm: Callable[[Tensor], Tensor], factor: float, inner: str) -> str:
    shown = inner if isinstance(norm, nn.Identity) else f"LN_post({inner})"
    return shown if factor == 1.0 else f"{factor:g} ({shown})"


def project(projection: nn.Module, x: Float[Tensor, "*n _"]) -> Float[Tensor, "*n _"]:
    """Return x W + b with the weights as they lie there, for `nn.Linear` and GPT-2's `Conv1D` alike.

    Example:
        >>> project(nn.Linear(3, 5), torch.ones(2, 3)).shape
        torch.Size([2, 5])
    """
    weight = projection.get_parameter("weight")
    if not weight.is_floating_point():  # quantised: only the module itself knows
        return projection(x)
    made = x @ (weight.T if isinstance(projection, nn.Linear) else weight)
    bias = getattr(projection, "bias", None)
    return made if bias is None else made + bias


def activation(block: nn.Module, part: Mapping[str, nn.Module], config: HFConfig) -> nn.Module:
    """Return the nonlinearity of a feed-forward layer: its module without weights, or the one the configuration names.

    Raises:
        ValueError: neither is found.

    Example:
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
