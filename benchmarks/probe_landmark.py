"""What the bundled model lets be read, and where its direction of truth applies too.

`python benchmarks/probe_landmark.py`. Entity types, relations asked for, language and sentiment are probed at every
layer with every control of a sweep, and tested on other texts. Truth: a probe of true and false claims of one relation
is tested on every other, on subjects never learnt from, next to shuffled labels, an untrained model, and the model's
own verdict. Writes benchmarks/results/probe_landmark.json. `--quick` takes a third of the labels and writes nothing.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.landmark_labels import tasks  # noqa: E402
from benchmarks.probe_report import figures, line  # noqa: E402
from benchmarks.timing import write  # noqa: E402
from benchmarks.truth_transfer import ABOVE, truth  # noqa: E402
from hooks import load  # noqa: E402
from hooks.position import last  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from probes import DifferenceOfMeans, Logistic, sweep  # noqa: E402

TRUTH_PROBES = {"logistic": lambda: Logistic(C=0.01), "difference of means": DifferenceOfMeans}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few labels, nothing written")
    quick = parser.parse_args().quick
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = load("landmark")
    sites = [resid_post[layer] for layer in range(model.n_layers)]
    found: dict[str, Any] = {"fingerprint": model.fingerprint, "labels": {}}
    for task in tqdm(tasks()[:: 3 if quick else 1], desc="labels"):
        n = 5 if quick else 20
        probe, away = Logistic(C=0.1), task.elsewhere
        grid = sweep(model, task.examples, sites, [last], probe=probe, elsewhere=away, permutations=n)
        found["labels"][task.name] = {"texts": len(task.examples.texts), **figures(grid)}
        tqdm.write(line(task.name, grid))
    found["truth"] = truth(model, TRUTH_PROBES)
    for name in TRUTH_PROBES:
        said = found["truth"][name]
        print(f"truth, {name}: AUROC [95 % over relations]")
        for where in said["shuffled"]:
            compared = "  ".join(f"{control} {said[control][where]}" for control in ("shuffled", "untrained"))
            print(f"  {where:<30} {said[where]}  {compared}")
        print(f"  pairs above {ABOVE}: {said[f'pairs above {ABOVE}']}")
    print("the model's own verdict:", found["truth"]["verdict"])
    print("from all other relations:", found["truth"]["from all other relations"])
    print("used:", found["truth"]["used"])
    if not quick:
        print(write("probe_landmark", "python benchmarks/probe_landmark.py", found))


if __name__ == "__main__":
    main()
