"""What this library was held to from outside, in one run: `python benchmarks/conformance.py [--peers FOLDER]`.

scikit-learn's own checks of every probe; autoencoders of other libraries equal to those libraries; hostile calls of
every public name; kept files damaged and named; runs killed and begun again; mutations of the numerical code that the
tests kill, as last measured by `benchmarks/mutations.py`; fixes that turn their tests red when they are undone, as last
measured by `benchmarks/fixes.py`. Written to benchmarks/results/conformance.json, where `--only NAME` replaces one part
and leaves the others.
"""

import argparse
import json
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conformance_files import measure_files  # noqa: E402
from benchmarks.conformance_kills import measure_kills  # noqa: E402
from benchmarks.conformance_probes import ESTIMATORS, measure_conformance  # noqa: E402
from benchmarks.conformance_sae import LIBRARIES, measure  # noqa: E402
from benchmarks.timing import write  # noqa: E402
from tests.fuzz import outcome, right_values, trials  # noqa: E402

RESULTS = Path(__file__).parent / "results"
PER_ARGUMENT = 6


def measure_probes() -> dict[str, Any]:
    """For each estimator the checks passed, those that cannot apply, and those failed."""
    found = [measure_conformance(estimator) for estimator in ESTIMATORS]
    return {one.name: {"passed": one.passed, "cannot apply": one.expected, "failed": one.failed} for one in found}


def measure_formats() -> dict[str, str]:
    """For each library how many of its formats are read as it reads them; those not installed are named."""
    table = measure([*LIBRARIES])
    found = {}
    for library in LIBRARIES:
        own = [row for row in table if row.library == library]
        absent = [row.why for row in own if row.why.startswith("not installed")]
        found[library] = absent[0] if absent else f"{sum(row.equal for row in own)} of {len(own)} equal"
    return found


def measure_calls() -> dict[str, int]:
    """How hostile calls of every public name end."""
    valid = right_values()
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return dict(Counter(outcome(trial) for trial in trials(valid, PER_ARGUMENT)))
        finally:
            os.chdir(here)


def read_mutations() -> dict[str, Any]:
    """For each core what the last draw of `benchmarks/mutations.py` found, and of all."""
    draws = json.loads((RESULTS / "mutations.json").read_text("utf-8"))["draws"]
    name, last = list(draws.items())[-1]
    return {"draw": name, "all": last["all"], **last["cores"]}


def read_fixes() -> dict[str, int]:
    """How many fixes `benchmarks/fixes.py` undid, and how many of them turned their tests red."""
    return json.loads((RESULTS / "fixes.json").read_text("utf-8"))["figures"]["totals"]


PARTS = {
    "scikit-learn's checks": measure_probes,
    "autoencoders of others": measure_formats,
    "hostile calls": measure_calls,
    "damaged files": measure_files,
    "killed runs": measure_kills,
    "mutations": read_mutations,
    "fixes undone": read_fixes,
}


def main() -> None:
    """Measure, print and write all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a folder of libraries that this project does not install")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part to measure; all unless given")
    given = parser.parse_args()
    if given.peers is not None:
        sys.path.append(str(given.peers))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in given.only or PARTS:
        before = json.loads((RESULTS / "conformance.json").read_text("utf-8"))["figures"]
        figures = PARTS[name]()
        print(f"\n{name}\n{json.dumps(figures, indent=1)}", flush=True)
        write("conformance", "python benchmarks/conformance.py", before | {name: figures})


if __name__ == "__main__":
    main()
