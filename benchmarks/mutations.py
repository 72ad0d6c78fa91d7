"""Small faults put into the numerical code, one at a time, and whether the tests see them.

    python benchmarks/mutations.py interp/lenses --sample 40 --seed 0

A mutation changes one operator, constant, comparison, bound of a slice or reduction (`mean` for `sum`) of a file, in a
temporary copy of the tree, never in place. The tests are those of the folder that mirrors the file's
(`tests/interp/lenses`), the laws in tests/contracts that import from it, and the files of other folders that import a
mutated file by name; or those of `--tests`. One run without a mutation says which tests run which line; a mutation is
tried on those, the cheapest first, in a process forked after the tests are collected (Linux), with a limit of CPU time:
see benchmarks/mutation_trials.py. What survives those is tried on all other tests, which may be given what an earlier
one made. Kernels that run on a GPU alone (`ON_A_GPU`) are not drawn.

Guards (conditions whose branch only raises) are not drawn unless `--guards` asks for them. Results are kept in
reports/mutations/<folder>-<seed>.json as they come, and a second call goes on from them: what was killed stays killed
while its line is as it was, what survived is tried again. A survivor that changes no number has its reason in
benchmarks/results/mutations_set_aside.json and is counted apart.

    python benchmarks/mutations.py --table "a fresh draw" reports/mutations/*-7.json

writes the counts of a draw, with Wilson intervals, to benchmarks/results/mutations.json.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mutation_finder import Finder, Mutation  # noqa: E402
from benchmarks.mutation_trials import copy_tree, try_faults  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = ROOT / "reports" / "mutations"
TABLE = RESULTS / "mutations.json"
SET_ASIDE = RESULTS / "mutations_set_aside.json"
ON_A_GPU = ("interp/sae/numerics/kernels.py",)
KEPT_FIELDS = ("key", "file", "line", "function", "text", "was", "now", "guard")
PRELOADED = (
    "numpy",
    "torch",
    "einops",
    "pytest",
    "beartype",
    "jaxtyping",
    "transformers",
    "transformer_lens",
    "sklearn",
    "scipy.stats",
)


def source_files(targets: list[str]) -> list[str]:
    """The Python files of some folders and files, as paths from the root."""
    found: list[Path] = []
    for target in targets:
        path = (ROOT / target).resolve()
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    return [name for name in names if name not in ON_A_GPU]


def mirrored_tests(files: list[str]) -> list[str]:
    """The test folders that mirror the files' own, or those of the nearest folder above; and its laws."""
    found: dict[str, None] = {}
    for file in files:
        folder = Path(file).parent
        while not any((ROOT / "tests" / folder).glob("test_*.py")) and folder.parts:
            folder = folder.parent
        found[(Path("tests") / folder).as_posix()] = None
        package = ".".join(Path(file).parent.parts)
        for contract in sorted((ROOT / "tests" / "contracts").glob("test_*.py")):
            if f"from {package}" in contract.read_text() or contract.name == "test_defaults.py":
                found[contract.relative_to(ROOT).as_posix()] = None
    return [f for f in found if not any(f != other and f.startswith(f"{other}/") for other in found)]


def importing_tests(files: list[str], but: list[str]) -> list[str]:
    """The test files of other folders that import one of the files by name."""
    modules = [file.removesuffix(".py").replace("/", ".") for file in files]
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        if any(f"from {module} import" in text for module in modules) and not name.startswith(tuple(but)):
            found.append(name)
    return found


def sample_of(files: list[str], size: int | None, seed: int, guards: bool = False) -> list[Mutation]:
    """Mutations in an order that a seed draws and that other mutations do not change; the first of them."""
    found = [m for file in files for m in Finder(file, (ROOT / file).read_bytes()).found]
    every = {m.key: m for m in found if guards or not m.guard}
    drawn = sorted(every.values(), key=lambda m: hashlib.sha256(f"{seed}{m.key}".encode()).hexdigest())
    return sorted(drawn[:size], key=lambda m: (m.file, m.start))


def read_kept(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of earlier calls, by key."""
    return {row["key"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}


def write_rows(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    """All rows, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = sorted(rows.values(), key=lambda row: (row["file"], row["line"], row["now"]))
    write(path, {"rows": ordered})


def write(path: Path, content: dict[str, Any]) -> None:
    """A file of JSON, at once or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


def set_aside() -> dict[str, str]:
    """Why a mutation changes no number, by key."""
    return {row["key"]: row["reason"] for row in json.loads(SET_ASIDE.read_text())} if SET_ASIDE.exists() else {}


def count(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many were killed, how many survived, and how many change no number."""
    reasons = set_aside()
    found = {"killed": 0, "survived": 0, "no number": 0}
    for row in rows:
        killed = row["verdict"] in ("killed", "timeout")
        found["killed" if killed else "no number" if row["key"] in reasons else "survived"] += 1
    return found


def pending(drawn: list[Mutation], kept: dict[str, dict[str, Any]]) -> Iterator[Mutation]:
    """What has not been killed yet and is not set aside."""
    reasons = set_aside()
    for mutation in drawn:
        if kept.get(mutation.key, {}).get("verdict") not in ("killed", "timeout") and mutation.key not in reasons:
            yield mutation


def share(counted: dict[str, int]) -> dict[str, Any]:
    """The share killed of those that change a number, with Wilson's interval at 95 %."""
    n = counted["killed"] + counted["survived"]
    if not n:
        return counted
    ends = binomtest(counted["killed"], n).proportion_ci(method="wilson")
    return counted | {"share": round(counted["killed"] / n, 3), "interval": [round(float(end), 3) for end in ends]}


def summary(rows: list[dict[str, Any]]) -> str:
    """The survivors two lines each, and the share killed."""
    reasons, out = set_aside(), io.StringIO()
    for row in rows:
        if row["verdict"] in ("survived", "not run") and row["key"] not in reasons:
            out.write(f"{row['key']} {row['file']}:{row['line']} ({row['verdict']}) {row['text']}\n")
            out.write(f"    {row['was']}  ->  {row['now']}\n")
    out.write(f"{share(count(rows))}\n")
    return out.getvalue()


def write_table(draw: str, paths: list[Path]) -> None:
    """The counts of a draw, by core and of all, next to those of other draws."""
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {"draws": {}}
    rows = [row for path in paths for row in json.loads(path.read_text())["rows"] if not row["guard"]]
    by_core: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_core["/".join(row["file"].split("/")[: 2 if row["file"].startswith("interp/") else 1])].append(row)
    reasons = set_aside()
    missed = [
        {name: row[name] for name in ("key", "file", "line", "text", "was", "now", "verdict")}
        for row in rows
        if row["verdict"] in ("survived", "not run") and row["key"] not in reasons
    ]
    counts = {core: share(count(of_core)) for core, of_core in sorted(by_core.items())}
    table["draws"][draw] = {"all": share(count(rows)), "cores": counts, "survived": missed}
    write(TABLE, table)
    print(json.dumps(table["draws"][draw] | {"survived": len(missed)}, indent=1))


def parsed() -> argparse.Namespace:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", help="folders or files of the packages, such as interp/lenses")
    parser.add_argument("--sample", type=int, help="how many mutations; all unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guards", action="store_true", help="draw conditions whose branch only raises, too")
    parser.add_argument("--tests", nargs="+", help="test files or folders; those that mirror the targets unless given")
    parser.add_argument("--out", type=Path, help="where results are kept")
    parser.add_argument("--table", metavar="DRAW", help="the targets are files of results: write their counts")
    return parser.parse_args()


def main() -> None:
    """Try a sample of mutations of the folders given, and print what survived."""
    given = parsed()
    if given.table:
        return write_table(given.table, [Path(path) for path in given.targets])
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    files = source_files(given.targets)
    name = "-".join(t.strip("/").removesuffix(".py").replace("/", "-") for t in given.targets)
    out = given.out or KEPT / f"{name}-{given.seed}.json"
    drawn = sample_of(files, given.sample, given.seed, given.guards)
    tests = given.tests or mirrored_tests(files)
    tests += [] if given.tests else importing_tests(sorted({m.file for m in drawn}), tests)
    kept = read_kept(out)
    left = list(pending(drawn, kept))
    print(f"{len(drawn)} mutations of {len(files)} files, {len(left)} to try, by {' '.join(tests)}", flush=True)
    if left:
        try_all(left, tests, out)
        kept = read_kept(out)
    print(summary([kept[m.key] for m in drawn if m.key in kept]))
    return None


def try_all(left: list[Mutation], tests: list[str], out: Path) -> None:
    """Try some mutations, and write each verdict as it comes."""

    def say(mutation: Any, verdict: str, seconds: float) -> None:
        row = {name: getattr(mutation, name) for name in KEPT_FIELDS} | {"verdict": verdict}
        write_rows(out, read_kept(out) | {mutation.key: row})
        print(f"{verdict} ({seconds:.0f} s)  {mutation}", flush=True)

    for name in PRELOADED:
        __import__(name)
    with tempfile.TemporaryDirectory() as folder:
        try_faults(copy_tree(ROOT, Path(folder)), tests, left, say)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
