"""Every class of transformers that can be made tiny, served by `hooks` and judged by plain hooks on its own modules.

1. each class is made tiny with random weights, in a process of its own that may neither connect nor start another;
2. the model alone runs once, with plain hooks on all its modules (`Truth`, which knows nothing of `hooks`);
3. `hooks.load` and `capture` serve its sites, and each is judged: right, wrong, unproved, refused or absent;
4. counts and a table go to results/zoo.json, class by class, so that a run that was ended goes on where it was.

`python -m benchmarks.zoo` measures what is missing; `--again` everything; `--only llama,t5` some; `--page` writes
docs/families.md from the results.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.tiny_models import MAPPINGS, VOCAB, classes, tiny_model
from benchmarks.zoo_judge import ADDED, Truth, same, truth_of, verdicts_of

RESULTS = Path(__file__).parent / "results" / "zoo.json"
PAGE = Path(__file__).parents[1] / "docs" / "families.md"
SECONDS = 120
FENCED = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec")


@contextmanager
def fenced() -> Iterator[None]:
    """Let no line of the process connect or start another program from here on; it cannot be undone."""

    def refuse(event: str, _: Any) -> None:
        if event in FENCED:
            raise PermissionError(f"fenced: {event}")

    sys.addaudithook(refuse)
    yield


def measured(mapping: str, kind: str, name: str) -> dict[str, Any]:
    """Build, load and judge one class; what is raised is reported, not passed on."""
    said: dict[str, Any] = {"mapping": mapping, "kind": kind}
    try:
        hf = tiny_model(kind, name)
        ids = torch.randint(6, VOCAB, (1, 11), generator=torch.Generator().manual_seed(1))
        truth = truth_of(hf, ids)
    except Exception as error:
        return said | {"state": "not tiny", "why": f"{type(error).__name__}: {error}"[:200]}
    return said | served(hf, ids, truth)


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
    said: dict[str, Any] = {"state": "loaded", "seconds": round(time.perf_counter() - began, 2)}
    try:
        acts = {site: capture(model, ids, [site])[site] for site in model.sites}
    except Exception as error:
        return said | {"state": "crash", "why": f"capture: {type(error).__name__}: {error}"[:300]}
    refused = {str(site): check.missed for site, check in (model.contract.refused if model.contract else {}).items()}
    verdicts = verdicts_of(hf, truth, acts)
    with torch.no_grad():
        ran = None if truth.logits is None else model.run(ids)
    if ran is not None and truth.logits is not None:
        said["logits"] = bool(same(ran, truth.logits, 1e-5)) if ran.shape == truth.logits.shape else False
    said["depth"] = model.n_layers
    said["stacks"] = {name: len(calls) for name, calls in truth.stacks.items()}
    by_name: dict[str, Counter[str]] = {}
    for site, verdict in verdicts.items():
        by_name.setdefault(_label(site), Counter())[verdict] += 1
    for site in refused:
        by_name.setdefault(re.sub(r"\.\d+$", "", site), Counter())["refused"] += 1
    said["sites"] = {site: dict(count) for site, count in by_name.items()}
    said["refused"] = {site: why[:160] for site, why in [*refused.items()][:6]}
    said["wrong"] = sorted(str(site) for site, verdict in verdicts.items() if verdict == "wrong")
    said["unproved"] = sorted(str(site) for site, verdict in verdicts.items() if verdict == "unproved")
    return said


def _label(site: Any) -> str:
    return re.sub(r"\.\d+$", "", str(site))


def in_fence(mapping: str, kind: str, name: str, seconds: int = SECONDS) -> dict[str, Any]:
    """Measure one class in a process of its own."""
    ended = {"mapping": mapping, "kind": kind, "state": "crash", "why": f"ended, or took over {seconds} s"}
    return forked(lambda: measured(mapping, kind, name), ended, seconds)


def forked(measure: Callable[[], dict[str, Any]], ended: dict[str, Any], seconds: int = SECONDS) -> dict[str, Any]:
    """Measure in a fork of this process, inside the fence, for at most so many seconds; `ended` where nothing comes."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        said = ended
        try:
            signal.alarm(seconds)
            with fenced():
                said = measure()
        except BaseException as error:
            said = {**ended, "why": f"{type(error).__name__}: {error}"[:200]}
        with os.fdopen(write, "w") as out:
            json.dump(said, out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as back:
        text = back.read()
    os.waitpid(child, 0)
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
    "library. It is based on no table of families: sites are found by tracing a forward pass (`hooks/tracing`), and "
    "what is found is measured as a law on other text (`hooks/contract`). `hooks/layout.py` says what the names mean; "
    "on your own model, `print(load(...).contract)` shows every law with its error. A site that is not listed is "
    "absent, and asking for it says why. Classes are measured one by one, so a row can be older than the code.",
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
        prepare()
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


def prepare() -> None:
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
