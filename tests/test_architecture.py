"""The design's rules: each a function from a source tree to its breaches, and each shown able to find one."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.plain_words import names_are_plain, prose_is_plain

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hooks", "probes", "interp")  # an import points left, never right
OUTSIDE = ("tests", "tutorials", "benchmarks")
HOMES = {  # a heavy library, and the only files that may import it
    "transformer_lens": re.compile(r"hooks/"),
    "sae_lens": re.compile(r"interp/sae/"),
    "plotly": re.compile(r"interp/show/|.*/plot\.py$"),
}
RANK = (  # interp's folders, those of lower rows first
    "common",
    "circuits landmark scale",
    "postcard worlds",
    "lenses visualisation",
    "atlas",
    "sae",
    "clip context directions emergence experts",
    "features",
    "steering memory graphs",
    "tuning teaching",
    "show export",
    "workbench",
    "demo",
    "commands",
)
IN_THE_ROOT = re.compile(  # next to hidden files; the second line is what git ignores
    r"(hooks|probes|interp|tutorials|tests|benchmarks|docs|[A-Z]+\.md|LICENSE|Makefile|constraints\.txt|\w+\.toml"
    r"|build|dist|demo|runs|reports|__pycache__|.+\.egg-info)"
)
HEAVY = ("transformer_lens", "sae_lens", "transformers", "sklearn", "scipy", "plotly", "datasets")
HOOK_NAME = re.compile(
    r"blocks\.|hook_(resid|mlp|attn|pattern|embed|pos_embed|result|scale|normalized|[qkvz]\b)|ln_final"
)
SHAPED = re.compile(r"\b(Float|Int|Bool|Shaped|Num|Integer|Inexact|UInt|Real)(8|16|32|64)?\[")


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, its path from the root, its syntax tree."""

    name: str
    path: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.path.endswith("__init__.py") else self.name.rpartition(".")[0]


@cache
def modules(root: Path) -> tuple[Module, ...]:
    """Every Python file of the three packages that is not empty."""
    found = []
    for path in sorted(p for package in PACKAGES for p in (root / package).rglob("*.py")):
        relative = path.relative_to(root)
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        if text := path.read_text(encoding="utf-8").strip():
            found.append(Module(name, relative.as_posix(), ast.parse(text)))
    return tuple(found)


def imported(node: ast.AST, package: str) -> list[str]:
    """Dotted names that one statement imports, `importlib.import_module("name")` included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        base = parts[: len(parts) - node.level + 1] if node.level else []
        stem = ".".join([*base, *([node.module] if node.module else [])])
        return [stem, *(f"{stem}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        return [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return []


def every_import(module: Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module.tree):
        for name in imported(node, module.package):
            yield node.lineno, name


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def public(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions, and methods of classes, whose names do not begin with an underscore."""
    for node in module.tree.body:
        for member in node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else [node]:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and not member.name.startswith("_"):
                yield member


def the_root_is_tidy(root: Path) -> list[str]:
    """The root holds what the design names, and nothing that a test or a script left there."""
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    return [f"the root holds {name!r}" for name in names if not IN_THE_ROOT.fullmatch(name)]


def arrows_one_way(root: Path) -> list[str]:
    """hooks <- probes <- interp, and nothing in them imports tests, tutorials or benchmarks."""
    rank = {name: i for i, name in enumerate((*PACKAGES, *OUTSIDE))}
    return [
        f"{m.path}:{line} imports {name}"
        for m in modules(root)
        for line, name in every_import(m)
        if rank.get(name.split(".")[0], -1) > rank[m.name.split(".")[0]]
    ]


def no_cycles(root: Path) -> list[str]:
    """No module reaches itself through module-level imports (those under TYPE_CHECKING aside)."""
    known = {m.name for m in modules(root)}
    graph: dict[str, set[str]] = {}
    for m in modules(root):
        later = {
            id(node)
            for block in ast.walk(m.tree)
            if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            or (isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test))
            for node in ast.walk(block)
        }
        now = [node for node in ast.walk(m.tree) if id(node) not in later]
        graph[m.name] = {name for node in now for name in imported(node, m.package) if name in known} - {m.name}
    return [f"{name} reaches itself" for name in sorted(graph) if name in reached(graph, name)]


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    """Every node that some way through the graph leads to from `start`."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph.get(waiting.pop(), set()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def imports_of_modules(root: Path) -> Iterator[tuple[Module, int, Module]]:
    """Every import of one of our modules by another, at whatever depth of the code it is."""
    known = {m.name: m for m in modules(root)}
    for m in modules(root):
        for line, name in every_import(m):
            if name in known and name != m.name:
                yield m, line, known[name]


def no_folder_rings(root: Path) -> list[str]:
    """No folder reaches itself through another that neither contains it nor is contained in it."""
    graph: dict[str, set[str]] = {}
    for m, _, other in imports_of_modules(root):
        here, there = (x.path.rpartition("/")[0] for x in (m, other))
        inside = f"{here}/".startswith(f"{there}/") or f"{there}/".startswith(f"{here}/")
        if not inside and "__init__.py" not in (m.path.split("/")[-1], other.path.split("/")[-1]):
            graph.setdefault(here, set()).add(there)
    return [f"{folder} reaches itself" for folder in sorted(graph) if folder in reached(graph, folder)]


def folders_keep_their_rank(root: Path) -> list[str]:
    """A folder of interp imports folders of a lower row of RANK, never its own row or a higher one."""
    rank = {folder: row for row, folders in enumerate(RANK) for folder in folders.split()}
    breaches = []
    for m, line, other in imports_of_modules(root):
        if not (m.name.startswith("interp.") and other.name.startswith("interp.")):
            continue
        here, there = m.name.split(".")[1], other.name.split(".")[1]
        if here != there and here != "__main__" and rank.get(there, 99) >= rank.get(here, -1):
            breaches.append(f"{m.path}:{line} imports {other.name}")
    return breaches


DEMONSTRATION = (
    "interp/demo/",
    "interp/commands/",
    "benchmarks/demo.py",
    "benchmarks/demo_seeds.py",
    "tests/interp/demo/",
)


def only_the_demonstration_imports_it(root: Path) -> list[str]:
    """Nobody but its command and its benchmarks imports `interp.demo`: what others need of it is public elsewhere."""
    breaches = []
    for path in sorted(p for folder in (*PACKAGES, *OUTSIDE) for p in (root / folder).rglob("*.[pi][yp]*")):
        name = path.relative_to(root).as_posix()
        if name.startswith(DEMONSTRATION) or path.suffix not in (".py", ".ipynb") or path == Path(__file__):
            continue
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        breaches += [f"{name}:{n} imports interp.demo" for n, line in lines if DEMO_IMPORT.search(line)]
    return breaches


DEMO_IMPORT = re.compile(r"(from|import) interp\.demo\b|from interp import .*\bdemo\b")
PIPELINES = (  # folders whose first docstring says the steps in which their files work
    "hooks",
    "hooks/store",
    "hooks/tracing",
    "interp/features/index",
    "interp/graphs",
    "interp/memory/editing",
    "interp/memory/tracing",
    "interp/sae/training",
)


def steps_name_their_files(root: Path) -> list[str]:
    """Every numbered step in a folder's first docstring names a file or folder, and all files it names are there."""
    breaches = [f"{folder} has no numbered steps" for folder in PIPELINES if root == ROOT and not steps(root, folder)]
    for file in sorted(p for package in PACKAGES for p in (root / package).rglob("__init__.py")):
        folder = file.parent.relative_to(root).as_posix()
        for number, text in steps(root, folder):
            named = re.findall(r"`([\w/]+(?:\.py)?)`", text)
            head = re.match(r"(?:`[\w/]+`(?:, | and )?)+:", text)
            first = set(re.findall(r"`([\w/]+)`", head.group())) if head else set()
            there = [name for name in named if any(is_there(root / at, name) for at in (folder, f"{folder}/.."))]
            if not there:
                breaches.append(f"{folder} step {number} names no file")
            lost = [name for name in named if (name in first or name.endswith(".py")) and name not in there]
            breaches += [f"{folder} step {number} names {name}, which is not there" for name in lost]
    return breaches


def steps(root: Path, folder: str) -> list[tuple[str, str]]:
    """The numbered steps of a folder's first docstring."""
    file = root / folder / "__init__.py"
    text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "") if file.exists() else ""
    return re.findall(r"^(\d+)\. (.+(?:\n +.+)*)", text, flags=re.M)


def is_there(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{ending}").exists() for ending in ("", ".py"))


def no_own_imports_in_functions(root: Path) -> list[str]:
    """Our own code is imported at the top of a file, where the arrows can be seen."""
    return [
        f"{m.path}:{node.lineno} imports {name}"
        for m in modules(root)
        for function in functions(m.tree)
        for node in ast.walk(function)
        for name in imported(node, m.package)
        if name.split(".")[0] in PACKAGES
    ]


def heavy_libraries_at_home(root: Path) -> list[str]:
    """transformer_lens in hooks/, sae_lens in interp/sae/, plotly in interp/show/ or a plot.py, and nowhere else."""
    return [
        f"{m.path}:{line} imports {name}"
        for m in modules(root)
        for line, name in every_import(m)
        if (home := HOMES.get(name.split(".")[0])) and not home.match(m.path)
    ]


def hook_names_in_one_file(root: Path) -> list[str]:
    """Only hooks/site.py spells the name of a hook."""
    return [
        f"{m.path}:{node.lineno} spells {node.value!r}"
        for m in modules(root)
        if m.path != "hooks/site.py"
        for node in ast.walk(m.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if len(node.value) < 60 and not re.search(r"\s", node.value) and HOOK_NAME.search(node.value)
    ]


def every_file_says_its_idea(root: Path) -> list[str]:
    return [f"{m.path} has no docstring" for m in modules(root) if not ast.get_docstring(m.tree)]


WEIGHTS = {  # who else may touch the weights of a module, and why
    "hooks/weights.py": "reads and writes them for all others",
    "interp/circuits/known/toy_model.py": "writes the weights of models that it makes itself",
    "interp/landmark/train.py": "trains a model of its own",
    "interp/postcard/nets.py": "holds layers of its own",
    "interp/sae/architectures/temporal.py": "holds layers of its own",
}
OF_RESULTS = {
    "interp/sae/evaluation/evaluate.py": "bias",
    "interp/show/attribution_graph.py": "bias",
    "interp/show/composition.py": "bias",
}  # fields of results


def weights_in_one_file(root: Path) -> list[str]:
    """Only hooks/weights.py reads or changes a weight of a module, so that none is read that is not there."""
    breaches = []
    for m in (m for m in modules(root) if m.path not in WEIGHTS and not m.name.startswith("probes")):
        for node in (node for node in ast.walk(m.tree) if isinstance(node, ast.Attribute)):
            own = isinstance(node.value, ast.Name) and node.value.id == "self"
            held = node.attr in ("weight", "bias") and not own and OF_RESULTS.get(m.path) != node.attr
            if held or node.attr in ("get_parameter", "_parameters") and ".__dict__" not in ast.unparse(node):
                breaches.append(f"{m.path}:{node.lineno} touches {ast.unparse(node)}")
    return breaches


def only_the_command_prints(root: Path) -> list[str]:
    return [
        f"{m.path}:{node.lineno} prints"
        for m in modules(root)
        if not m.path.startswith("interp/commands/")
        for node in ast.walk(m.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def public_tensors_have_shapes(root: Path) -> list[str]:
    """Every tensor a public function takes or gives has a shape."""
    breaches = []
    for m in modules(root):
        for f in public(m):
            given = [a for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs) if a.annotation]
            notes = [(a.arg, ast.unparse(a.annotation)) for a in given if a.annotation]
            notes += [("return", ast.unparse(f.returns))] if f.returns else []
            bare = [name for name, note in notes if re.search(r"\bTensor\b", note) and not SHAPED.search(note)]
            breaches += [f"{m.path}:{f.lineno} {f.name}({name})" for name in bare]
    return breaches


def shapes_use_the_axis_words(root: Path) -> list[str]:
    """Shapes are written with the words of docs/axes.md."""
    words = {w.lstrip("*") for w in re.findall(r"^\| `([*\w]+)`", (root / "docs/axes.md").read_text("utf-8"), re.M)}
    breaches = []
    for m in modules(root):
        for node in ast.walk(m.tree):
            if isinstance(node, ast.Subscript) and SHAPED.match(ast.unparse(node)):
                parts = ast.walk(node.slice)
                axes = [e.value for e in parts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
                odd = [a for axis in axes for a in axis.split() if a.lstrip("*") not in words and not a.isdigit()]
                breaches += [f"{m.path}:{node.lineno} says {a!r}" for a in odd if a not in ("...", "_")]
    return breaches


def documented(root: Path) -> dict[str, set[str]]:
    """docs/api.md as {package: names}: a heading per package, a table row per name."""
    sections = re.split(r"^## `([\w.]+)`", (root / "docs/api.md").read_text("utf-8"), flags=re.M)[1:]
    return {
        package: set(re.findall(r"^\| `(\w+)`", text, flags=re.M))
        for package, text in zip(sections[::2], sections[1::2], strict=True)
    }


def exported(module: Module) -> set[str] | None:
    """The names in a package's `__all__`, or None where it has none."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def no_name_means_two_things(root: Path) -> list[str]:
    """No public function or class is defined twice in one package: hooks, probes, or a folder of interp.

    Signatures given by `overload` are of one function.
    """
    found: dict[str, list[str]] = {}
    for m in modules(root):
        package = ".".join(m.name.split(".")[: 2 if m.name.startswith("interp.") else 1])
        for node in m.tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list):
                found.setdefault(f"{package} {node.name}", []).append(m.path)
    return [f"{name} is in {' and '.join(paths)}" for name, paths in found.items() if len(paths) > 1]


BUILT_IN = ("ValueError", "TypeError", "KeyError", "IndexError", "RuntimeError", "OSError", "FileNotFoundError")


def errors_have_types_and_one_form(root: Path) -> list[str]:
    """What is raised is a type of hooks/errors.py, and its text ends without a full stop."""
    breaches = []
    for m in modules(root):
        for node in ast.walk(m.tree):
            if not isinstance(node, ast.Raise) or node.exc is None:
                continue
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id in BUILT_IN:
                breaches.append(f"{m.path}:{node.lineno} raises {raised.id}")
            text = node.exc.args[0] if isinstance(node.exc, ast.Call) and node.exc.args else None
            end = text.values[-1] if isinstance(text, ast.JoinedStr) else text
            said = end.value if isinstance(end, ast.Constant) and isinstance(end.value, str) else ""
            if said.endswith(".") and not said.endswith(".."):
                breaches.append(f"{m.path}:{node.lineno} ends in a full stop")
    return breaches


def docstrings_have_one_layout(root: Path) -> list[str]:
    """Errors are under `Raises:` and examples under `Examples:`, as in every docstring of the site."""
    return [
        f"{m.path}:{node.lineno} has {found.group().strip()!r}"
        for m in modules(root)
        for node in ast.walk(m.tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        if (found := re.search(r"^\s*(Errors:|Example:|Raises: \S)", ast.get_docstring(node) or "", flags=re.M))
    ]


def surface_is_documented(root: Path) -> list[str]:
    """`__all__` of every package that exports is a table of docs/api.md, name for name."""
    said = documented(root)
    packages = {m.name: exported(m) for m in modules(root) if m.path.endswith("__init__.py")}
    real = {name: names for name, names in packages.items() if names is not None}
    breaches = [f"docs/api.md tells of {name}, which exports nothing" for name in said.keys() - real.keys()]
    for name, names in real.items():
        breaches += [f"{name}.{n} is not in docs/api.md" for n in sorted(names - said.get(name, set()))]
        breaches += [f"docs/api.md tells of {name}.{n}, not exported" for n in sorted(said.get(name, set()) - names)]
    return breaches


HASHES = re.compile(r"(sha\d+|md5|blake2[bs]|xxh\w+|checksum|hash|update)$")
HASHED_AS_SHOWN = {  # and why nothing is left out there
    "hooks/shards.py": "sites and numbers of one pass, between processes of one program",
    "hooks/tracing/record.py": "names and numbers of one pass",
    "interp/directions/pairs.py": "a list of texts and numbers",
    "interp/features/index/digest.py": "settings of an autoencoder, which are numbers, names and lists of them",
}


def nothing_is_hashed_as_it_is_shown(root: Path) -> list[str]:
    """No digest is of what `repr` gives: a result or a tensor shows a part of what it holds."""
    return [
        f"{m.path}:{call.lineno} hashes {ast.unparse(shown)}"
        for m in modules(root)
        if m.path not in HASHED_AS_SHOWN
        for call in ast.walk(m.tree)
        if isinstance(call, ast.Call) and HASHES.match(ast.unparse(call.func).split(".")[-1])
        for shown in (one for given in call.args for one in ast.walk(given))
        if (isinstance(shown, ast.Call) and ast.unparse(shown.func) == "repr")
        or (isinstance(shown, ast.FormattedValue) and shown.conversion == ord("r"))
    ]


Rule = Callable[[Path], list[str]]
WRITERS = ("hooks/disk.py", "hooks/store/folder.py")  # of a disk, and of what fsspec reaches
INSIDE = ("write_file", "write_folder", "writing")  # blocks that give a path or file to write to
PASSED_ON = {"interp/memory/editing/edit.py": "a model's own save_pretrained, called by whom it belongs to"}
WRITES = {"write_bytes", "save_pretrained", "save_file", "to_csv", "to_json", "write_html", "torch.save", "json.dump"}


def one_writer(root: Path) -> list[str]:
    """Nothing is written to a disk but by hooks.disk, or inside a block of its `write_file` or `write_folder`."""
    return [
        f"{m.path}:{call.lineno} writes by {said}"
        for m in modules(root)
        if m.path not in (*WRITERS, *PASSED_ON)
        for call in _outside_of_blocks(m.tree)
        if (said := _writes(call))
    ]


def _outside_of_blocks(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.iter_child_nodes(tree):
        opened = [item.context_expr for item in node.items] if isinstance(node, ast.With) else []
        if any(isinstance(one, ast.Call) and ast.unparse(one.func).split(".")[-1] in INSIDE for one in opened):
            continue
        if isinstance(node, ast.Call):
            yield node
        yield from _outside_of_blocks(node)


def _writes(call: ast.Call) -> str:
    """How a call writes a file; nothing where it does not."""
    name = ast.unparse(call.func)
    last = name.split(".")[-1]
    if last == "open":
        modes_at = call.args[isinstance(call.func, ast.Name) :]
        given = [*modes_at, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        modes = [x.value for x in given if isinstance(x, ast.Constant) and isinstance(x.value, str)]
        return next((f"open {mode}" for mode in modes if re.fullmatch(r"[rwaxbt+]{1,3}", mode) and mode[0] != "r"), "")
    if last == "write_text":  # of a path, and not the function of hooks.disk or of a store's folder
        return last if isinstance(call.func, ast.Attribute) and not name.endswith("folder.write_text") else ""
    return last if name in WRITES or (last in WRITES and isinstance(call.func, ast.Attribute)) else ""


NOTEBOOK = '{"cells": [{"cell_type": "markdown", "source": ["Anew"]}]}'
PLANTED: list[tuple[Rule, dict[str, str], str]] = [
    (the_root_is_tidy, {"some text/cfg.json": "{}"}, "the root holds 'some text'"),
    (arrows_one_way, {"hooks/a.py": "from probes.b import x\n"}, "hooks/a.py:1 imports probes.b"),
    (arrows_one_way, {"interp/a.py": "import benchmarks.speed\n"}, "benchmarks.speed"),
    (no_cycles, {"hooks/a.py": "import hooks.b\n", "hooks/b.py": "from hooks import a\n"}, "hooks.a reaches itself"),
    (no_cycles, {"hooks/__init__.py": "from hooks.a import x\n", "hooks/a.py": "import hooks\n"}, "hooks.a"),
    (
        no_folder_rings,
        {"interp/show/b.py": "import interp.sae.read\n", "interp/sae/c.py": "from interp.show import page\n"},
        "interp/sae reaches itself",
    ),
    (folders_keep_their_rank, {"interp/sae/b.py": "from interp.show import page\n"}, "interp/sae/b.py:1"),
    (folders_keep_their_rank, {"interp/rooms/b.py": "from interp.show import page\n"}, "interp/rooms/b.py:1"),
    (
        only_the_demonstration_imports_it,
        {"interp/show/b.py": "from interp.demo.run import run\n"},
        "interp/show/b.py:1",
    ),
    (only_the_demonstration_imports_it, {"tutorials/a.ipynb": '"import interp.demo"\n'}, "tutorials/a.ipynb:1"),
    (
        steps_name_their_files,
        {"interp/sae/__init__.py": '"""Sae.\n\n1. `gone`: read.\n"""\n'},
        "names gone, which is not",
    ),
    (steps_name_their_files, {"interp/sae/__init__.py": '"""Sae.\n\n1. Read all.\n"""\n'}, "step 1 names no file"),
    (no_own_imports_in_functions, {"interp/a.py": "def f():\n    from hooks import load\n"}, "interp/a.py:2"),
    (heavy_libraries_at_home, {"probes/a.py": "def f():\n    import transformer_lens.utils\n"}, "transformer_lens"),
    (heavy_libraries_at_home, {"interp/memory/a.py": "from sae_lens import SAE\n"}, "sae_lens"),
    (heavy_libraries_at_home, {"hooks/a.py": "import importlib\nimportlib.import_module('plotly')\n"}, "plotly"),
    (one_writer, {"interp/a.py": "Path('x').write_text('fog')\n"}, "interp/a.py:1 writes by write_text"),
    (one_writer, {"hooks/a.py": "with open('x', 'wb') as file:\n    file.write(b'')\n"}, "writes by open wb"),
    (one_writer, {"probes/a.py": "def f():\n    torch.save({}, 'x')\n"}, "probes/a.py:2 writes by save"),
    (
        nothing_is_hashed_as_it_is_shown,
        {"interp/a.py": "key = hashlib.sha256(repr((1, concept)).encode())\n"},
        "interp/a.py:1 hashes repr((1, concept))",
    ),
    (nothing_is_hashed_as_it_is_shown, {"hooks/a.py": "running.update(f'{x!r}'.encode())\n"}, "hooks/a.py:1"),
    (hook_names_in_one_file, {"hooks/run.py": "NAME = f'blocks.{3}.hook_resid_post'\n"}, "hooks/run.py:1"),
    (every_file_says_its_idea, {"probes/a.py": "x = 1\n"}, "probes/a.py"),
    (weights_in_one_file, {"interp/a.py": "def f(layer):\n    return layer.weight\n"}, "touches layer.weight"),
    (weights_in_one_file, {"hooks/a.py": "W = layer.get_parameter('weight')\n"}, "hooks/a.py:1"),
    (only_the_command_prints, {"interp/a.py": "def f():\n    print(1)\n"}, "interp/a.py:2"),
    (public_tensors_have_shapes, {"hooks/a.py": "def f(x: Tensor) -> int: ...\n"}, "f(x)"),
    (public_tensors_have_shapes, {"hooks/a.py": "class A:\n    def f(self) -> Tensor: ...\n"}, "f(return)"),
    (shapes_use_the_axis_words, {"hooks/a.py": "def f(x: Float[Tensor, 'batch seq']): ...\n"}, "'seq'"),
    (
        no_name_means_two_things,
        {"hooks/a.py": "def twice(): ...\n", "hooks/b.py": "class twice: ...\n"},
        "hooks twice is in hooks/a.py and hooks/b.py",
    ),
    (errors_have_types_and_one_form, {"hooks/a.py": "raise ValueError('n is 3')\n"}, "hooks/a.py:1 raises ValueError"),
    (errors_have_types_and_one_form, {"hooks/a.py": "raise Odd(f'{3} is n.')\n"}, "hooks/a.py:1 ends in a full stop"),
    (docstrings_have_one_layout, {"hooks/a.py": 'def f():\n    """F.\n\n    Errors: many.\n    """\n'}, "Errors:"),
    (prose_is_plain, {"hooks/a.py": '"""What stands here."""\n'}, "hooks/a.py:1 says stands"),
    (prose_is_plain, {"benchmarks/a.py": "x = 1\n# y, beside x\n"}, "benchmarks/a.py:2 says beside"),
    (prose_is_plain, {"interp/a.py": "raise Odd(f'{3} was told')\n"}, "interp/a.py:1 says told"),
    (prose_is_plain, {"docs/how_to/a.md": "`behind`\n\nNot behind it.\n"}, "docs/how_to/a.md:3 says behind"),
    (prose_is_plain, {"tutorials/a.ipynb": NOTEBOOK}, "tutorials/a.ipynb, cell 1 says Anew"),
    (names_are_plain, {"hooks/a.py": "def f(x):\n    told_x = x\n"}, "hooks/a.py:2 is called told_x"),
    (names_are_plain, {"tests/test_a.py": "def test_it_is_spelt(): ...\n"}, "tests/test_a.py:1 is called"),
    (surface_is_documented, {"hooks/__init__.py": "__all__ = ['load', 'secret']\n"}, "hooks.secret"),
    (surface_is_documented, {"hooks/__init__.py": "__all__ = []\n"}, "tells of hooks.load"),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in PLANTED))
CLEAN = {
    "docs/axes.md": "| word | meaning |\n| --- | --- |\n| `batch` | texts |\n| `pos` | tokens |\n| `*d` | the rest |\n",
    "docs/api.md": "## `hooks`\n\n| name | what |\n| --- | --- |\n| `load` | a model |\n",
    "hooks/__init__.py": '"""Capture."""\nfrom hooks.site import load\n__all__ = ["load"]\n',
    "hooks/site.py": '"""Names."""\nRESID = "blocks.3.hook_resid_post"\n\n'
    'def load(x: Float[Tensor, "batch pos *d"]) -> Float[Tensor, "batch 2"]:\n    import transformer_lens\n',
    "probes/a.py": '"""A probe. It speaks of ln_final and blocks.3 in prose."""\nfrom hooks.site import load\n',
    "interp/sae/read.py": '"""Reading."""\nimport probes.a\n\ndef f():\n    import sae_lens\n',
    "interp/sae/keep.py": '"""Kept."""\nfrom hooks.disk import write_file\n\n'
    "def keep():\n    with write_file('x') as partial:\n        torch.save({}, partial)\n",
    "interp/show/page.py": '"""Pages."""\nimport plotly\n',
    "interp/commands/app.py": '"""The command."""\nfrom interp.show import page\nprint(page)\n',
}


def planted(root: Path, files: dict[str, str]) -> Path:
    for name, text in (CLEAN | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "files", "message"), PLANTED, ids=[f"{r.__name__}-{t}" for r, _, t in PLANTED])
def test_each_rule_finds_its_planted_breach(rule: Rule, files: dict[str, str], message: str, tmp_path: Path) -> None:
    assert any(message in breach for breach in rule(planted(tmp_path, files)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_rule_complains_of_a_tree_that_keeps_it(rule: Rule, tmp_path: Path) -> None:
    assert rule(planted(tmp_path, {})) == []


def heavy_after_importing(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_importing_every_package_leaves_the_heavy_libraries_for_later() -> None:
    names = [m.name for m in modules(ROOT) if m.path.endswith("__init__.py") and not m.name.startswith("interp.show")]
    assert heavy_after_importing(f"import {', '.join(names)}") == set()


def test_the_test_for_heavy_libraries_sees_one() -> None:
    assert heavy_after_importing("import plotly") == {"plotly"}
