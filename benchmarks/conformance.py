"""What this library was held to from outside, in one run: `python benchmarks/conformance.py [--peers FOLDER]`.

scikit-learn's own checks of every probe; autoencoders of other libraries equal to those libraries; kept files damaged
and named; hostile calls of every public name; mutations of the numerical code that the tests kill, as last measured by
`benchmarks/mutations.py`. Written to benchmarks/results/conformance.json.
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


def read_mutations() -> dict[str, dict[str, int]]:
    """For each folder what the last run of `benchmarks/mutations.py` found."""
    found = {}
    for path in sorted((RESULTS / "mutations").glob("*.json")):
        rows = json.loads(path.read_text("utf-8"))
        rows = rows.get("mutations", rows) if isinstance(rows, dict) else rows
        rows = rows.values() if isinstance(rows, dict) else rows
        verdicts = ("equivalent" if row.get("equivalent") else row.get("verdict", "?") for row in rows)
        found[path.stem] = dict(Counter(verdicts))
    return found


def main() -> None:
    """Measure, print and write all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a folder of libraries that this project does not install")
    given = parser.parse_args()
    if given.peers is not None:
        sys.path.append(str(given.peers))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    figures: dict[str, Any] = {}
    for name, work in (
        ("scikit-learn's checks", measure_probes),
        ("autoencoders of others", measure_formats),
        ("hostile calls", measure_calls),
        ("damaged files", measure_files),
        ("mutations", read_mutations),
    ):
        figures[name] = work()
        print(f"\n{name}\n{json.dumps(figures[name], indent=1)}")
    write("conformance", "python benchmarks/conformance.py", figures)


if __name__ == "__main__":
    main()
