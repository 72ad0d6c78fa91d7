"""Every class of transformers that can be made tiny, served by `hooks` and judged by plain hooks on its own modules.

1. each class is made tiny with random weights, in a process of its own that may neither connect nor start another;
2. the model alone runs once, with plain hooks on all its modules (`Truth`, which knows nothing of `hooks`);
3. `hooks.load` and `capture` serve its sites, and each is judged: right, wrong, unproved, refused or absent;
4. counts and a table go to results/zoo.json, class by class, so that a run that was ended goes on where it was.

`python -m benchmarks.zoo` measures what is missing; `--again` everything; `--only llama,t5` some; `--page` writes
docs/families.md from the results.
"""

import argparse
import inspect
import json
import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tiny_models import MAPPINGS, VOCAB, classes, tiny_model

RESULTS = Path(__file__).parent / "results" / "zoo.json"
PAGE = Path(__file__).parents[1] / "docs" / "families.md"
SECONDS = 120
CLOSE = 1e-4
FENCED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec")
ROLES = {
    "q": r"(^|[._])(q|query|wq|qkv|q_lin|q_proj|c_attn|query_key_value|Wqkv|qkv_proj|W_pack|in_proj|q_attn|att_proj)",
    "k": r"(^|[._])(k|key|wk|qkv|k_lin|k_proj|c_attn|query_key_value|Wqkv|qkv_proj|W_pack|in_proj|kv|key_value)",
    "v": r"(^|[._])(v|value|wv|qkv|v_lin|v_proj|c_attn|query_key_value|Wqkv|qkv_proj|W_pack|in_proj|kv|key_value)",
    "z": r"(^|[._])(o|o_proj|out_proj|out_lin|c_proj|dense|wo|Wo|linear_out|attn_out|to_out)",
    "mlp_in": r"(mlp|ffn|feed|moe|ff|fc1|gate|w1|up|wi|intermediate|lin1|c_fc|h_to_4h|Dense|experts|norm)",
    "mlp_pre": r"(fc1|gate|w1|wi|intermediate|lin1|c_fc|h_to_4h|up_proj|fc_in|proj_1|wi_0|input_linear)",
    "mlp_act": r"(fc2|down|w2|wo|output|lin2|c_proj|4h_to_h|fc_out|proj_2|out_proj|output_linear|dense|wo)",
}
"""What modules are called that each site may sit on, and on no other."""


@contextmanager
def fenced() -> Iterator[None]:
    """Let no line of the process connect or start another program from here on; it cannot be undone."""

    def refuse(event: str, _: Any) -> None:
        if event in FENCED:
            raise PermissionError(f"fenced: {event}")

    sys.addaudithook(refuse)
    yield


@dataclass
class Truth:
    """What a model alone computes: every module's first tensor in, first tensor out, by name, and the logits.

    A call of a module after its first is under its name with `#1`, `#2`, … behind it.

    Attributes:
        logits: of the plain pass; None without a head.
        inputs, outputs: by module name.
        stacks: names of the lists of blocks, and their calls in order.
    """

    logits: Tensor | None
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    stacks: dict[str, list[str]] = field(default_factory=dict)


def _first(values: Any) -> Tensor | None:
    values = values.values() if isinstance(values, Mapping) else values
    values = [values] if isinstance(values, Tensor) else values
    found = [one for one in values if isinstance(one, Tensor)] if hasattr(values, "__iter__") else []
    return found[0] if found else None


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

        return hook

    def after(_m: Any, _a: Any, output: Any) -> None:
        path, made = going.pop(), _first(output)
        if made is not None:
            truth.outputs[path] = made.detach().clone()

    for name, module in hf.named_modules():
        if name:
            handles += [module.register_forward_pre_hook(before(name), with_kwargs=True)]
            handles += [module.register_forward_hook(after)]
    with torch.no_grad():
        output = hf(**call(hf, ids))
    for handle in handles:
        handle.remove()
    truth.logits = output.logits if hasattr(output, "logits") else getattr(output, "prediction_logits", None)
    _find_stacks(hf, truth)
    return truth


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
    inside = [n for n in {*truth.inputs, *truth.outputs} if n.startswith(f"{block}.")]
    flat = value.reshape(-1, value.shape[-1]).double()
    giving = [n for n in inside if n in truth.outputs and _is_scaled(truth.outputs[n], flat)]
    if not giving:
        return "wrong"
    mixing = [bool(re.search(MIXING, n.removeprefix(block))) for n in giving]
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
    ends = [shaped[0][0], *(end for end in shaped[0] if not any(same(end, one) for one in others[:1]))][:4]
    return "right" if any(_adds(end, a, flat, b) for a, b in pairs for end in ends) else "unproved"


MIXING = r"(?i)att|mixer|lstm|mamba|ssm|conv|rwkv|recurrent|temporal|retention|fourier|delta|linear_attn|seq|rel_"
"""What modules that carry something from token to token are called."""


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
    side = truth.inputs if name in ("z", "mlp_act", "mlp_in") else truth.outputs
    odd = False
    for module, tensor in side.items():
        if not module.startswith(f"{block}.") or tensor.numel() % flat.shape[1]:
            continue
        there = tensor.reshape(flat.shape[1], -1).T.float()
        nearest = torch.cdist(flat, there, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
        if bool((nearest <= CLOSE * flat.norm(dim=1) + 1e-7).all()):
            if re.search(ROLES[name], _plain(module.removeprefix(block)), re.IGNORECASE):
                return "right"
            odd = True
    return "unproved" if odd else "wrong"


def judge_pattern(value: Tensor) -> str:
    """Rows of an attention pattern are chances."""
    total = value.float().sum(-1)
    return "right" if bool((value >= 0).all()) and bool((total <= 1 + 1e-3).all()) else "wrong"


def measured(mapping: str, kind: str, name: str) -> dict[str, Any]:
    """Build, load and judge one class; what is raised is told, not passed on."""
    told: dict[str, Any] = {"mapping": mapping, "kind": kind}
    try:
        hf = tiny_model(kind, name)
        ids = torch.randint(6, VOCAB, (1, 11), generator=torch.Generator().manual_seed(1))
        truth = truth_of(hf, ids)
    except Exception as error:
        return told | {"state": "not tiny", "why": f"{type(error).__name__}: {error}"[:200]}
    return told | served(hf, ids, truth)


def served(hf: Any, ids: Tensor, truth: Truth) -> dict[str, Any]:
    """What `hooks` makes of the model: its sites, each judged."""
    from hooks import capture, load
    from hooks.errors import InterpError

    began = time.perf_counter()
    try:
        model = load(hf)
    except InterpError as error:
        return {"state": "refused", "why": f"{type(error).__name__}: {error}"[:300]}
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"state": "crash", "why": f"{type(error).__name__}: {error} [{where.name}:{where.lineno}]"[:300]}
    told: dict[str, Any] = {"state": "loaded", "seconds": round(time.perf_counter() - began, 2)}
    try:
        acts = {site: capture(model, ids, [site])[site] for site in model.sites}
    except Exception as error:
        return told | {"state": "crash", "why": f"capture: {type(error).__name__}: {error}"[:300]}
    refused = {str(site): check.missed for site, check in (model.contract.refused if model.contract else {}).items()}
    verdicts = verdicts_of(hf, truth, acts)
    with torch.no_grad():
        ran = None if truth.logits is None else model.run(ids)
    if ran is not None and truth.logits is not None:
        told["logits"] = bool(same(ran, truth.logits, 1e-5)) if ran.shape == truth.logits.shape else False
    told["depth"] = model.n_layers
    told["stacks"] = {name: len(calls) for name, calls in truth.stacks.items()}
    by_name: dict[str, Counter[str]] = {}
    for site, verdict in verdicts.items():
        by_name.setdefault(_label(site), Counter())[verdict] += 1
    for site in refused:
        by_name.setdefault(re.sub(r"\.\d+$", "", site), Counter())["refused"] += 1
    told["sites"] = {site: dict(count) for site, count in by_name.items()}
    told["refused"] = {site: why[:160] for site, why in [*refused.items()][:6]}
    told["wrong"] = sorted(str(site) for site, verdict in verdicts.items() if verdict == "wrong")
    told["unproved"] = sorted(str(site) for site, verdict in verdicts.items() if verdict == "unproved")
    return told


def _label(site: Any) -> str:
    return re.sub(r"\.\d+$", "", str(site))


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
        elif site.name in ("resid_pre", "resid_post"):
            verdicts[site] = judge_stream(site.name, block, truth, value)
        elif site.name in ADDED:
            verdicts[site] = judge_added(block, truth, site.name, value)
        elif site.name == "pattern":
            verdicts[site] = judge_pattern(value)
        elif site.name in ROLES:
            verdicts[site] = judge_inner(site.name, block, truth, value)
        elif site.name == "resid_mid":
            verdicts[site] = _judge_mid(block, truth, value)
        else:
            verdicts[site] = "unproved"
    return verdicts


def _judge_mid(block: str, truth: Truth, value: Tensor) -> str:
    """The middle flows into or out of some module of the block."""
    inside = [t for side in (truth.inputs, truth.outputs) for n, t in side.items() if n.startswith(f"{block}.")]
    return "right" if any(same(value, one) for one in inside) else "unproved"


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


def in_fence(mapping: str, kind: str, name: str, seconds: int = SECONDS) -> dict[str, Any]:
    """Measure one class in a fork of this process, behind the fence, for at most so many seconds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        told: dict[str, Any] = {"mapping": mapping, "kind": kind, "state": "crash", "why": "nothing came back"}
        try:
            signal.alarm(seconds)
            with fenced():
                told = measured(mapping, kind, name)
        except BaseException as error:
            told["why"] = f"{type(error).__name__}: {error}"[:200]
        with os.fdopen(write, "w") as out:
            json.dump(told, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as back:
        text = back.read()
    os.waitpid(child, 0)
    ended = {"mapping": mapping, "kind": kind, "state": "crash", "why": f"ended, or took over {seconds} s"}
    return json.loads(text) if text else ended


def summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Counts, mapping by mapping."""
    lines = []
    for mapping in MAPPINGS:
        rows = [row for row in results.values() if row["mapping"] == mapping and row["state"] != "not tiny"]
        states = Counter(row["state"] for row in rows)
        core = sum(holds_core(row) for row in rows)
        wrong = sum(bool(row.get("wrong")) for row in rows)
        odd = sum(row.get("logits") is False for row in rows)
        unproved = sum(bool(row.get("unproved")) for row in rows)
        lines.append(
            f"{mapping}: {len(rows)} made tiny; {dict(states)}; streams and a sublayer right at every layer: {core} "
            f"({100 * core / max(1, len(rows)):.0f} %); a wrong value: {wrong}; wrong logits: {odd}; "
            f"with something unproved: {unproved}"
        )
    return "\n".join(lines)


def holds_core(row: Mapping[str, Any]) -> bool:
    """Whether both streams, and what a sublayer adds, are served and right, with no wrong value and right logits."""
    sites, bad = row.get("sites", {}), ("wrong", "refused", "unproved")

    def good(name: str) -> bool:
        counts = [count for site, count in sites.items() if site.split(".")[-1] == name]
        return bool(counts) and not any(count.get(one) for count in counts for one in bad)

    return (
        row["state"] == "loaded"
        and row.get("logits") is not False
        and not row.get("wrong")
        and good("resid_pre")
        and good("resid_post")
        and any(good(name) for name in ADDED)
    )


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of families: what was served of each class that can be made tiny, and what was not."""
    lines = [*HEADING]
    for mapping, title in TITLES.items():
        rows = {key.split(":")[1]: row for key, row in sorted(results.items()) if row["mapping"] == mapping}
        tiny = {name: row for name, row in rows.items() if row["state"] != "not tiny"}
        good = sum(holds_core(row) for row in tiny.values())
        loaded = sum(row["state"] == "loaded" for row in tiny.values())
        wrong = sum(bool(row.get("wrong")) or row.get("logits") is False for row in tiny.values())
        lines += ["", f"## {title}", ""]
        lines += [
            f"{len(tiny)} of {len(rows)} classes can be made tiny; {loaded} of them load. In {good} "
            f"({100 * good / max(1, len(tiny)):.0f} %) the streams and what a sublayer adds are served and right at "
            f"every layer; in {wrong} the judge found a value that is not right.",
            "",
            "| class | served and right at every layer | at some layers | refused, with its reason on the model |",
            "| --- | --- | --- | --- |",
        ]
        lines += [f"| `{name}` | {' | '.join(_cells(row))} |" for name, row in tiny.items()]
    return "\n".join([*lines, ""])


def _cells(row: Mapping[str, Any]) -> tuple[str, str, str]:
    if row["state"] != "loaded":
        return "–", "–", row.get("why", "").split(": ", 1)[-1].replace("|", "/")
    sites = {name: count for name, count in row["sites"].items() if not name.startswith("module")}
    deep = max((sum(count.values()) for count in sites.values()), default=1)
    whole = [n for n, count in sites.items() if set(count) == {"right"} and count["right"] in (1, deep)]
    some = [n for n, count in sites.items() if "right" in count and n not in whole]
    refused = [n for n, count in sites.items() if "right" not in count and "refused" in count]
    return tuple(", ".join(f"`{name}`" for name in names) or "–" for names in (whole, some, refused))  # pyright: ignore


TITLES = {
    "causal": "Causal language models",
    "masked": "Masked encoders",
    "seq2seq": "Encoder-decoders, and what else turns a sequence into text",
}
HEADING = (
    "# Families",
    "",
    "Written by `python -m benchmarks.zoo --page` from `benchmarks/results/zoo.json`. Every class of transformers' "
    "mappings that can be made tiny is given random weights, each loaded in a process that may neither connect nor "
    "start another, and every site is judged by plain hooks on the model's own modules, which know nothing of this "
    "library. No table of families stands behind it: sites are found by tracing a forward pass (`hooks/tracing`), and "
    "what is found is measured as a law on other text (`hooks/contract`). `hooks/layout.py` says what the names mean; "
    "on your own model, `print(load(...).contract)` shows every law with its error. A site that is not listed is "
    "absent, and asking for it says why.",
)


def main() -> None:
    """Measure, or write the page."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--again", action="store_true", help="measure all of them from scratch")
    asked.add_argument("--only", default="", help="kinds or classes, with commas between")
    asked.add_argument("--mapping", default=",".join(MAPPINGS))
    asked.add_argument("--out", type=Path, default=RESULTS)
    asked.add_argument("--page", action="store_true", help="write docs/families.md from the results")
    asked.add_argument("--summary", action="store_true", help="only print the counts")
    options = asked.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    wanted = {one for one in options.only.split(",") if one}
    if options.page:
        PAGE.write_text(page(results), encoding="utf-8")
        return
    if not options.summary:
        _prepare()
        for mapping in options.mapping.split(","):
            for kind, name in classes(mapping):
                key = f"{mapping}:{name}"
                if wanted and not wanted & {kind, name} or (key in results and not options.again and not wanted):
                    continue
                results[key] = in_fence(mapping, kind, name)
                print(key, results[key]["state"], results[key].get("why", "")[:140], _short(results[key]), flush=True)
                options.out.write_text(json.dumps(results, indent=1, sort_keys=True))
    print(summary(results))


def _short(row: Mapping[str, Any]) -> str:
    bad = {name: row[name] for name in ("wrong", "unproved") if row.get(name)}
    return " ".join([*(f"{name} {sites[:4]}" for name, sites in bad.items()), str(row.get("sites", ""))])[:400]


def _prepare() -> None:
    """Import once what every fork needs."""
    import warnings

    import transformers

    from hooks import load

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    try:
        load(tiny_model("llama", "LlamaForCausalLM"))
    except Exception:
        traceback.print_exc()


if __name__ == "__main__":
    main()
