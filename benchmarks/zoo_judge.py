"""The judge of the zoo: plain hooks on a model's own modules, and a verdict on every site that is served.

It knows nothing of `hooks`: what a module is given and gives is copied once, and each value is compared with that.
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

CLOSE = 1e-4
ROLES = {
    "q": r"(^|[._])(q|query|wq|qkv|q_lin|q_proj|c_attn|query_key_value|Wqkv|qkv_proj|W_pack|in_proj|q_attn|att_proj)",
    "k": r"(^|[._])(k|key|wk|qkv|k_lin|k_proj|c_attn|query_key_value|Wqkv|qkv_proj|W_pack|in_proj|kv|key_value)",
    "v": r"(^|[._])(v|value|wv|qkv|v_lin|v_proj|c_attn|query_key_value|Wqkv|qkv_proj|W_pack|in_proj|kv|key_value)",
    "z": r"(^|[._])(post_proj|o|o_proj|out_proj|out_lin|c_proj|dense|wo|Wo|linear_out|attn_out|to_out)",
    "attn_gate": r"(^|[._])(gate|g_proj|gate_proj|q_proj|qkv|q)",
    "mixer_gate": r"(^|[._])(in_proj|gate|g_proj|z_proj|in_proj_z|in_proj_qkvz|g_a|g_b|output_gate|linear_y|ogate)",
    "mixer_in": r"(?i)att|mixer|lstm|mamba|ssm|conv|rwkv|recurrent|temporal|retention|fourier|delta|seq|norm",
    "mlp_in": r"(mlp|ffn|feed|moe|ff|fc1|gate|w1|up|wi|intermediate|lin1|c_fc|h_to_4h|Dense|experts|norm)",
    "mlp_pre": r"(fc1|ffn|layer_1|linear_1|gate|w1|wi|inter|lin1|c_fc|h_to_4h|up_proj|fc_in|proj_1|input_linear)",
    "mlp_act": r"(fc2|ffn|layer_2|linear_2|down|w2|wo|output|lin2|c_proj|4h_to_h|fc_out|proj_2|out_proj|dense)",
}
"""What modules are called that each site may sit on, and on no other."""


@dataclass
class Truth:
    """What a model alone computes: every module's first tensor in, first tensor out, by name, and the logits.

    A call of a module after its first is under its name with `#1`, `#2`, … after it.

    Attributes:
        logits: of the plain pass; None without a head.
        inputs, outputs: by module name.
        stacks: names of the lists of blocks, and their calls in order.
        others: by module name, every tensor that a router, module of experts or item of a list is given and gives.
        states: of each layer of the model's own cache the state after all tokens, and after the first six.
    """

    logits: Tensor | None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    stacks: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, list[Tensor]] = field(default_factory=dict)
    states: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def _first(values: Any) -> Tensor | None:
    values = values.values() if isinstance(values, Mapping) else values
    values = [values] if isinstance(values, Tensor) else values
    found = [one for one in values if isinstance(one, Tensor)] if hasattr(values, "__iter__") else []
    return found[0] if found else None


def _tensors(values: Sequence[Any], name: str) -> list[Tensor]:
    """Copies of the tensors of what a router or module of experts is given or gives."""
    kept = re.search(r"(?i)router|gate|expert|moe|mlp|feed|\.\d+$", name)
    return [one.detach().clone() for one in values if isinstance(one, Tensor)] if kept else []


def truth_of(hf: Any, ids: Tensor) -> Truth:
    """Run the model alone, once, with plain hooks that copy what each module is given and gives."""
    truth, handles, going, times = Truth(None), [], list[str](), Counter[str]()

    def before(name: str) -> Callable[..., None]:
        def hook(_: Any, args: Any, kwargs: Any) -> None:
            path = name if not times[name] else f"{name}#{times[name]}"
            outer = next((one for one in reversed(going) if "#" in one and name.startswith(one.split("#")[0])), "")
            path = f"{outer}{name.removeprefix(outer.split('#')[0])}" if outer else path
            times[name] += 1
            going.append(path)
            given = _first(args) if args else _first(kwargs)
            if given is not None:
                truth.inputs[path] = given.detach().clone()
            truth.others[path] = _tensors([*args, *kwargs.values()], name)

        return hook

    def after(_m: Any, _a: Any, output: Any) -> None:
        path, made = going.pop(), _first(output)
        if made is not None:
            truth.outputs[path] = made.detach().clone()
        truth.others[path] += _tensors(output if isinstance(output, tuple | list) else [output], path)

    for name, module in hf.named_modules():
        if name:
            handles += [module.register_forward_pre_hook(before(name), with_kwargs=True)]
            handles += [module.register_forward_hook(after)]
    with torch.no_grad():
        output = hf(**call(hf, ids))
    for handle in handles:
        handle.remove()
    truth.logits = output.logits if hasattr(output, "logits") else getattr(output, "prediction_logits", None)
    truth.states = [*_states_of(hf, ids)]
    _find_stacks(hf, truth)
    if len(truth.stacks) > 1:
        _join_lists(truth)
    return truth


EARLY = 6


def _states_of(hf: Any, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The recurrent states that the model leaves in its own cache, after all tokens and after the first few."""
    caches = []
    for part in (ids, ids[:, :EARLY]):
        with suppress(Exception), torch.no_grad():  # a class that keeps no cache, or none of this kind
            output = hf(**call(hf, part) | {"use_cache": True})
            caches.append((output.get("cache_params") or output.get("past_key_values")).layers)
    for late, early in zip(*caches, strict=True) if len(caches) == 2 else ():
        held: list[Any] = [getattr(one, "recurrent_states", None) for one in (late, early)]
        if all(isinstance(one, dict) and isinstance(one.get(0), Tensor) for one in held):
            yield held[0][0], held[1][0]


def _join_lists(truth: Truth) -> None:
    """Lists next to each other whose n-th items run in turn hold the parts of a block, which is no module (XLM)."""
    for whole in {name.rpartition(".")[0] for name in truth.stacks}:
        lists = [name for name in truth.stacks if name.rpartition(".")[0] == whole]
        order = [one for one in truth.inputs if one.rpartition(".")[0] in lists]
        turns = [order[at : at + len(lists)] for at in range(0, len(order), len(lists))]
        if len(lists) < 2 or any(len({one.rpartition(".")[2] for one in turn}) > 1 for turn in turns):
            continue
        for number, turn in enumerate(turns):
            block = f"{whole}@{number}"
            truth.inputs[block], truth.outputs[block] = truth.inputs[turn[0]], truth.outputs[turn[-1]]
            for side in (truth.inputs, truth.outputs):
                inside = {n: t for n, t in side.items() if any(n == one or n.startswith(f"{one}.") for one in turn)}
                side |= {n.replace(f"{whole}.", f"{block}.", 1): t for n, t in inside.items()}
        for name in lists:
            del truth.stacks[name]
        truth.stacks[whole] = [f"{whole}@{number}" for number in range(len(turns))]


def call(hf: Any, ids: Tensor) -> dict[str, Any]:
    """The arguments of one plain pass over token ids."""
    given: dict[str, Any] = {"input_ids": ids, "return_dict": True}
    if "use_cache" in inspect.signature(hf.forward).parameters:
        given["use_cache"] = False
    if getattr(hf.config, "is_encoder_decoder", False):
        held = (hf.generation_config, hf.config, hf.config.get_text_config(decoder=True))
        starts = [getattr(one, name, None) for name in ("decoder_start_token_id", "bos_token_id") for one in held]
        begin = torch.full_like(ids[:, :1], next((one for one in starts if one is not None), 0))
        given["decoder_input_ids"] = torch.cat([begin, ids[:, :-1]], dim=1)
    return given


def _find_stacks(hf: Any, truth: Truth) -> None:
    """Module lists whose every item gives something of the shape of what it was given."""
    order = [*truth.inputs]
    for name, module in hf.named_modules():
        if not isinstance(module, nn.ModuleList) or len(module) == 0:
            continue
        items = {f"{name}.{i}" for i in range(len(module))}
        calls = [one for one in order if _plain(one) in items and one in truth.outputs]
        inside = any(name.startswith(f"{other}.") for other in truth.stacks)
        whole = {_plain(one) for one in calls} == items
        if whole and not inside and all(truth.inputs[one].shape == truth.outputs[one].shape for one in calls):
            truth.stacks[name] = calls


def _plain(path: str) -> str:
    """A module's name without which of its calls is meant."""
    return re.sub(r"#\d+", "", path)


def same(a: Tensor, b: Tensor, close: float = CLOSE) -> bool:
    """Whether two tensors are equal up to rounding, whatever their shapes."""
    if a.numel() != b.numel():
        return False
    a, b = a.flatten().float(), b.flatten().float()
    return bool((a - b).norm() <= close * (b.norm() + 1e-9))


def judge_stream(name: str, block: str, truth: Truth, value: Tensor) -> str:
    """The streams are what a block is given and gives."""
    wanted = truth.inputs[block] if name == "resid_pre" else truth.outputs[block]
    return "right" if same(value, wanted) else "wrong"


def judge_added(block: str, truth: Truth, name: str, value: Tensor) -> str:
    """What a sublayer adds: some module of the block gives it, and with it one stage of the stream makes a later one.

    The stages are what the block and its modules are given and give; both may be scaled, as numbers or feature by
    feature; between them other modules may add what they give.
    """
    inside = [n for n in dict.fromkeys([*truth.inputs, *truth.outputs]) if n.startswith(f"{block}.")]
    flat = value.reshape(-1, value.shape[-1]).double()
    giving = [n for n in inside if n in truth.outputs and _is_scaled(truth.outputs[n], flat)]
    if not giving:
        return "wrong"
    mixing = [bool(re.search(MIXING, n.removeprefix(block)) and not re.search(FEEDING, n.removeprefix(block)))
              for n in giving]  # fmt: skip
    if (name == "mlp_out" and all(mixing) and not _is_generic(giving, block)) or (
        name != "mlp_out" and not any(mixing) and not _is_nameless(giving)
    ):
        return "wrong"
    made = [truth.outputs[block], *(truth.inputs[n] for n in inside if n in truth.inputs)]
    stages = [truth.inputs[block], *(t for n in inside for t in (truth.inputs.get(n), truth.outputs.get(n))
                                     if t is not None)]  # fmt: skip
    shaped = [[t.reshape(flat.shape).double() for t in side if t.numel() == flat.numel()] for side in (made, stages)]
    others = [s for s in shaped[1] if not same(s, flat)]
    if any(_adds(end, start, flat) for end in shaped[0] for start in others if not same(end, start)):
        return "right"
    pairs = [(a, b) for i, a in enumerate(others) for b in others[:i]]
    ends = [shaped[0][0], *(end for end in shaped[0] if not any(same(end, one) for one in others[:1]))][:24]
    return "right" if any(_adds(end, a, flat, b) for a, b in pairs for end in ends) else "unproved"


MIXING = r"(?i)att|mixer|lstm|mamba|ssm|conv|rwkv|recurrent|temporal|retention|fourier|delta|linear_attn|seq|rel_"
"""What modules that carry something from token to token are called."""
FEEDING = r"(?i)mlp|ffn|feed_?forward"
"""What feed-forward modules are called, whatever else is in them (a short convolution)."""


def _is_nameless(names: Sequence[str]) -> bool:
    """Norms and drop-outs after a sublayer do not say which it is."""
    return all(re.search(r"(?i)norm|dropout|moe|mlp|feed|ln|down|proj|dense|ffn", name) is not None for name in names)


def _is_generic(names: Sequence[str], block: str) -> bool:
    """One part of every block is called `mixer`, whatever it does (Nemotron-H)."""
    return all(name.removeprefix(f"{block}.").startswith("mixer") for name in names)


def _is_scaled(made: Tensor, value: Tensor) -> bool:
    """Whether a value is, up to a factor for each feature, what a module gives."""
    if made.numel() != value.numel():
        return False
    made = made.reshape(value.shape).double()
    factor = (value * made).sum(0) / made.square().sum(0).clamp_min(1e-12)
    return same(value, factor * made)


def _adds(end: Tensor, start: Tensor, *terms: Tensor) -> bool:
    """Whether end = a start + Σ b term with numbers a and b, or with one of each for every feature."""
    if same(start + sum(terms), end, 1e-5):
        return True
    columns = torch.stack([one.flatten() for one in (start, *terms)], dim=1)
    weights = torch.linalg.lstsq(columns, end.flatten()[:, None]).solution
    if same(columns @ weights, end, 1e-5) and bool((weights.abs() > 1e-2).all()):
        return True
    ones = torch.ones_like(start)
    by_feature = torch.stack([start, *terms, ones], dim=-1).transpose(0, 1)  # [d pos term]
    if by_feature.shape[1] < 2 * by_feature.shape[2]:
        return False
    weights = torch.linalg.lstsq(by_feature, end.T[..., None]).solution
    return same(by_feature @ weights, end.T[..., None], 1e-5) and bool(
        (weights[:, :-1].abs() > 1e-2).float().mean() > 0.9
    )


def judge_inner(name: str, block: str, truth: Truth, value: Tensor) -> str:
    """Every column of the value is a column that flows in or out of a module with a name of that role."""
    flat = value.flatten(0, 1).flatten(1).T.float()
    side = truth.inputs if name in ("z", "mlp_act", "mlp_in", "mixer_in") else truth.outputs
    odd = False
    for module, tensor in side.items():
        if not module.startswith(f"{block}.") or tensor.numel() % flat.shape[1]:
            continue
        there = tensor.reshape(flat.shape[1], -1).T.float()
        if bool((_nearest(flat, there) <= CLOSE * flat.norm(dim=1) + 1e-7).all()):
            if re.search(ROLES[name], _plain(module.removeprefix(block)), re.IGNORECASE):
                return "right"
            odd = True
    return "unproved" if odd else "wrong"


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """How far each row is from the nearest of others."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)


OF_EXPERTS = ("router_logits", "expert_choice", "expert_weights", "expert_act", "expert_out", "shared_out")


def judge_experts(
    names: Mapping[str, nn.Module], block: str, truth: Truth, site: Any, acts: Mapping[Any, Tensor]
) -> str:
    """A router gives its logits, choice and weights; the experts' weighted sum, with the shared ones, is a module's.

    What an expert's output projection reads makes what the expert gives by the packed weights.
    """
    flowing = [t for n, each in truth.others.items() if n.startswith(f"{block}.") for t in each]
    value = acts[site][0]
    if site.name in OF_EXPERTS[:3]:
        scored = [one.reshape(len(value), -1).topk(value.shape[-1]) for one in flowing if one.is_floating_point()
                  and one.numel() % len(value) == 0 and one.numel() // len(value) >= value.shape[-1]]  # fmt: skip
        best = [top.indices if site.name == "expert_choice" else top.values for top in scored]  # of scores (Llama-4)
        return "right" if any(same(value, one.float(), 1e-5) for one in (*flowing, *best)) else "wrong"
    here = {
        other.name: acts[other][0]
        for other in acts
        if (other.layer, getattr(other, "stack", "")) == (site.layer, site.stack)
    }
    if site.name == "expert_act":
        return _judge_memories(names, block, truth, value, here)
    total = torch.einsum("pk,pkd->pd", here["expert_weights"].to(here["expert_out"]), here["expert_out"])
    if site.name == "expert_out":
        each = [one.reshape(-1, *total.shape).sum(0) for one in flowing if one.numel() % total.numel() == 0]
        return "right" if any(same(total, one) for one in (*flowing, *each)) else "wrong"
    sums = [one - value for one in flowing if one.numel() == value.numel() for one in [one.reshape(value.shape)]]
    return "right" if any(_is_scaled(total, one.double()) for one in sums) else "wrong"


def _judge_memories(
    names: Mapping[str, nn.Module], block: str, truth: Truth, value: Tensor, here: Mapping[str, Tensor]
) -> str:
    held: list[Any] = [m for n, m in names.items() if n.startswith(f"{block}.")]
    packed = [m for m in held if isinstance(m._parameters.get("down_proj"), Tensor) and m.down_proj.ndim == 3]
    if "expert_choice" in here and not packed:
        return _judge_looped(names, block, truth, value, here["expert_choice"].long())
    if len(packed) != 1 or "expert_choice" not in here:
        return "unproved"
    choice, W = here["expert_choice"].long(), packed[0].down_proj.detach()
    bias = getattr(packed[0], "down_proj_bias", None)
    for each in (W, W.transpose(1, 2)):
        if each.shape[1] == value.shape[-1]:
            made = torch.einsum("pkf,pkfd->pkd", value, each[choice])
            made = made if bias is None else made + bias.detach()[choice]
            weighed = here["expert_out"] * here["expert_weights"][..., None]  # as Llama-4 adds it
            if same(made, here["expert_out"]) or same(made, weighed):
                return "right"
    return "unproved"


def _judge_looped(names: Mapping[str, nn.Module], block: str, truth: Truth, value: Tensor, choice: Tensor) -> str:
    """Where each expert is a module: its last matrix reads the rows of the tokens that chose it."""
    seen = 0
    for name in names:
        number = re.search(r"experts\.(?:expert_)?(\d+)$", name)
        inside = [one for one in truth.inputs if one.startswith(f"{name}.")]
        last = [one for one in inside if isinstance(names.get(one), nn.Linear)][-1:]
        if number is None or not name.startswith(f"{block}.") or not last:
            continue
        read, rows = truth.inputs[last[0]], value[choice == int(number[1])]
        read = read.reshape(-1, read.shape[-1])
        if rows.shape[-1] != read.shape[-1] or (len(rows) and float(_nearest(rows, read).amax()) > CLOSE):
            return "wrong"
        seen += len(rows)
    return "right" if seen == choice.numel() else "unproved"


def judge_pattern(value: Tensor) -> str:
    """Rows of an attention pattern are chances."""
    total = value.float().sum(-1)
    return "right" if bool((value >= 0).all()) and bool((total <= 1 + 1e-3).all()) else "wrong"


ADDED = ("attn_out", "mixer_out", "cross_out", "mlp_out", "added_out")


def verdicts_of(hf: Any, truth: Truth, acts: Mapping[Any, Tensor]) -> dict[Any, str]:
    """The verdict on every site served."""
    names, verdicts = dict(hf.named_modules()), {}
    for site, value in acts.items():
        stack = getattr(site, "stack", "")
        block = _block_of(truth, stack, site.layer)
        if site.name == "module":
            verdicts[site] = "right" if same(value, truth.outputs[site.path]) else "wrong"
        elif site.layer is None:
            verdicts[site] = _judge_end(hf, names, truth, site, value)
        elif block is None:
            verdicts[site] = "unproved"
        else:
            verdicts[site] = _judge_in_block(names, block, truth, site, acts)
    return verdicts


def _judge_in_block(
    names: Mapping[str, nn.Module], block: str, truth: Truth, site: Any, acts: Mapping[Any, Tensor]
) -> str:
    value = acts[site]
    if site.name in ("resid_pre", "resid_post"):
        return judge_stream(site.name, block, truth, value)
    if site.name in ADDED:
        return judge_added(block, truth, site.name, value)
    if site.name in OF_EXPERTS:
        return judge_experts(names, block, truth, site, acts)
    if site.name == "mixer_state":
        pairs = ((same(value[:, -1], late) and same(value[:, EARLY - 1], early)) for late, early in truth.states)
        return "right" if any(pairs) else "wrong"
    if site.name == "layer_embed":
        given = truth.others.get(block, [])
        return "right" if any(same(value, one) for one in given) and not same(value, truth.inputs[block]) else "wrong"
    name = site.name.removeprefix("cross_")
    if name == "pattern":
        return judge_pattern(value)
    if name in ROLES:
        return judge_inner(name, block, truth, value)
    return _judge_mid(block, truth, value) if site.name == "resid_mid" else "unproved"


def _judge_mid(block: str, truth: Truth, value: Tensor) -> str:
    """The middle flows into or out of some module of the block, or is its input and what one of them gives."""
    inside = [t for side in (truth.inputs, truth.outputs) for n, t in side.items() if n.startswith(f"{block}.")]
    x = truth.inputs[block]
    summed = [x + one.reshape(x.shape) for one in inside if one.numel() == x.numel()]
    return "right" if any(same(value, one) for one in [*inside, *summed]) else "unproved"


def _block_of(truth: Truth, stack: str, layer: int | None) -> str | None:
    """The block that a stack and a layer mean: of several stacks, the one whose name says so, else the longest."""
    words = {name: [word for word in name.split(".") if word in ("encoder", "decoder")][:1] for name in truth.stacks}
    named = [name for name in truth.stacks if words[name] == [stack]] if stack else [*truth.stacks]
    named = named or [name for name in truth.stacks if stack in name.split(".")]
    deepest = max(named, key=lambda name: len(truth.stacks[name]), default=None)
    if deepest is None or layer is None or layer >= len(truth.stacks[deepest]):
        return None
    return truth.stacks[deepest][layer]


def _judge_end(hf: Any, names: Mapping[str, nn.Module], truth: Truth, site: Any, value: Tensor) -> str:
    if site.name == "logits":
        return "right" if truth.logits is not None and same(value, truth.logits, 1e-5) else "wrong"
    if site.name == "embed":
        held = [n for n, m in names.items() if m is hf.get_input_embeddings()] + [n for n in names if "emb" in n]
        return "right" if any(n in truth.outputs and same(value, truth.outputs[n]) for n in held) else "wrong"
    if site.name == "pos_embed":
        held = [n for n in names if re.search(r"pos|wpe", n)]
        return "right" if any(n in truth.outputs and same(value, truth.outputs[n]) for n in held) else "wrong"
    return "right" if site.name == "ln_final_scale" and bool((value > 0).all()) else "unproved"
