"""How fast pictures are captured and made, next to a plain forward pass and to torch-lucent, in CPU time.

`python benchmarks/pictures_speed.py [--peer SITE]`. Capture of all convolutions of the bundled convnet is set against
the module's own forward pass without hooks, and bare hooks that keep the same tensors; steps of visualisation against
lucent's `render_vis` with its own default transforms and its own Fourier picture, on the same net, unit and batch. All
ways run in turn in one process, on one thread, and what is compared is CPU time, which other work on the machine
changes little; a ratio is the median over repeats. SITE is a folder in which lucent is installed (`pip install --target
SITE --no-deps torch-lucent kornia==0.4.1 torchvision decorator`); without it lucent's figures stay as they were.
What capture keeps, it cannot use again: its tensors are fresh pages, which the operating system fills as they are
first written. So the same is measured in a process whose allocator keeps freed pages (glibc's settings `MALLOC_`).
Writes benchmarks/results/pictures_speed.json.
"""

import argparse
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Network, capture  # noqa: E402
from hooks.errors import MissingExtra  # noqa: E402
from hooks.site import conv_pre  # noqa: E402
from interp.postcard import draw, load_net, scenes  # noqa: E402
from interp.visualisation import channel, measure_colours, visualise  # noqa: E402

STEPS = 32
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
"""What glibc reads as a process begins: freed memory is not given back to the operating system."""
RESULTS = Path(__file__).parent / "results" / "pictures_speed.json"


def in_turn(ways: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 2) -> dict[str, list[float]]:
    """CPU seconds of each way, once per repeat, one after another."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(warm_up + repeats):
        for name, way in ways.items():
            began = process_time()
            way()
            if repeat >= warm_up:
                found[name].append(process_time() - began)
    return found


def ratio(seconds: Mapping[str, list[float]], name: str, over: str) -> dict[str, float]:
    """The median over repeats of one way's CPU time over another's, and the quartiles."""
    each = sorted(a / b for a, b in zip(seconds[name], seconds[over], strict=True))
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return {"median": middle, "lower quartile": low, "upper quartile": high, "repeats": len(each)}


def capturing(net: Network, repeats: int) -> dict[str, Any]:
    """All convolutions captured, and the same net's forward pass over the same pictures alone."""
    found = {}
    sites = [site for site in net.sites if site.name in ("conv_pre", "conv_act")]
    for batch in (32, 128):
        tokens = net.tokens(draw(scenes("test", batch)).images())
        ((_, given),) = [*tokens.images.arguments.items()] if tokens.images is not None else []

        @torch.no_grad()
        def plain(given: torch.Tensor = given) -> None:
            net.hf(given)

        modules = [net.tap(site).module for site in sites]

        @torch.no_grad()
        def kept(given: torch.Tensor = given, modules: list[torch.nn.Module] = modules) -> None:
            held = list[Any]()
            handles = [module.register_forward_hook(lambda _m, _i, out: held.append(out)) for module in modules]
            net.hf(given)
            for handle in handles:
                handle.remove()

        ways = {
            "forward": plain,
            "bare hooks": kept,
            "convolutions": lambda tokens=tokens: capture(net, tokens, sites, batch_size=len(tokens)),
            "forward again": plain,
        }
        seconds = in_turn(ways, repeats)
        found[f"{batch} pictures"] = {
            "sites": len(sites),
            "capture over forward": ratio(seconds, "convolutions", "forward"),
            "bare hooks that keep the same tensors over forward": ratio(seconds, "bare hooks", "forward"),
            "forward over forward": ratio(seconds, "forward again", "forward"),
        }
        print(batch, found[f"{batch} pictures"], flush=True)
    return found


def keeping(repeats: int) -> dict[str, Any]:
    """The same, in a process whose allocator keeps freed memory."""
    asked = [sys.executable, __file__, "--capture", "--repeats", str(repeats)]
    ran = subprocess.run(asked, env={**os.environ, **KEEPING}, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def making(net: Network, peer: Path, repeats: int) -> dict[str, Any]:
    """Steps of visualisation of one channel, ours with all its moves and lucent's with all its transforms."""
    render, param = _import_peer(peer)
    found: dict[str, Any] = {}
    colours = measure_colours(draw(scenes("test", 200)).images())
    for batch in (1, 8):

        def theirs(batch: int = batch) -> None:
            render.render_vis(
                net.hf, "features_6:5", lambda: param.image(64, batch=batch), thresholds=(STEPS,), show_image=False,
                progress=False, fixed_image_size=64,
            )  # fmt: skip

        ways = {
            "ours": lambda batch=batch: visualise(net, channel(conv_pre[2], 5), n=batch, steps=STEPS, colours=colours),
            "lucent": theirs,
        }
        seconds = in_turn(ways, repeats, warm_up=1)
        found[f"batch of {batch}"] = {
            "lucent's CPU time over ours": ratio(seconds, "lucent", "ours"),
            "our steps per CPU second": STEPS / statistics.median(seconds["ours"]),
            "lucent's steps per CPU second": STEPS / statistics.median(seconds["lucent"]),
        }
        print(batch, found[f"batch of {batch}"], flush=True)
    return found


def _import_peer(peer: Path) -> tuple[Any, Any]:
    """What renders and what is rendered in lucent.

    Operators of torchvision, none of which lucent calls, are declared where its library does not fit this torch.
    """
    sys.path.append(str(peer))
    operators = torch.library.Library("torchvision", "FRAGMENT")
    said = ""
    for _ in range(30):
        try:
            return importlib.import_module("lucent.optvis.render"), importlib.import_module("lucent.optvis.param")
        except (ImportError, RuntimeError) as error:
            said = str(error)
            missing = re.search(r"operator torchvision::(\w+) does not exist", said)
            if missing is None:
                break
            operators.define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "lucent", "kornia")]:
                del sys.modules[name]
    raise MissingExtra(f"torch-lucent does not import from {peer} ({said}): install what it needs")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="a folder in which torch-lucent is installed")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--capture", action="store_true", help="print the figures of capture as JSON, and write none")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    net: Any = load_net("convnet")
    if asked.capture:
        print(json.dumps(capturing(net, asked.repeats)))
        return
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["figures"] if RESULTS.is_file() else {}
    found = kept | {"capture": capturing(net, asked.repeats)}
    found["capture, freed memory kept"] = keeping(asked.repeats)
    if asked.peer is not None:
        found["visualisation"] = making(net, asked.peer, max(5, asked.repeats // 3))
    print(write("pictures_speed", "python benchmarks/pictures_speed.py --peer SITE", found))


if __name__ == "__main__":
    main()
