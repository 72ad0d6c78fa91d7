"""How long commands take to answer: CPU seconds (user and system) of one process on one thread, the median.

    python benchmarks/startup.py --model ../shared/models/stories260K

writes benchmarks/results/startup.json. CPU seconds, since other work on the machine does not change them much.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
"""Of a machine that is busy: threads that wait for each other would count as work."""
ROWS = {
    "import torch": ["-c", "import torch"],
    "import torch and a model class of transformers": ["-c", "import torch; from transformers import GPT2LMHeadModel"],
    "import hooks": ["-c", "import hooks"],
    "import interp.sae and interp.steering": ["-c", "import interp.sae, interp.steering"],
    "interp --help": ["-m", "interp", "--help"],
    "interp lens --help": ["-m", "interp", "lens", "--help"],
    "a bad argument: steer without a direction": ["-m", "interp", "steer", "landmark", "fog"],
    "a bad argument: no such folder": ["-m", "interp", "lens", "./nowhere", "fog"],
    "interp lens landmark": ["-m", "interp", "lens", "landmark", "The bridge is in"],
}


def cpu_seconds(words: list[str], repeats: int) -> float:
    """The median over repeats."""
    found = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], cwd=ROOT, env=ONE_THREAD, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return round(statistics.median(found), 2)


def main() -> None:
    """Measure every row and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder of another model to read as well")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    rows = ROWS | ({"interp lens of that model": ["-m", "interp", "lens", given.model, "Once"]} if given.model else {})
    found = {}
    for name, words in rows.items():
        found[name] = cpu_seconds(words, given.repeats)
        print(f"{found[name]:6.2f} s  {name}", flush=True)
    write("startup", "python benchmarks/startup.py", {"cpu_seconds": found, "repeats": given.repeats})


if __name__ == "__main__":
    main()
