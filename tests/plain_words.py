"""Plain English: words that no docstring, comment, text or page uses, and no name is made of."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

SAY = {  # a word that makes a reader stop, and what to say
    "amid": "among",
    "anew": "again, from scratch",
    "behind": "after",
    "beside": "next to",
    "carries": "has, holds",
    "foretell": "predict",
    "heed": "follow",
    "hence": "so",
    "lies": "is",
    "mend": "fix",
    "mended": "fixed",
    "mends": "fixes",
    "spelt": "written",
    "stand": "is",
    "stands": "is",
    "stood": "was",
    "thereof": "of it",
    "thus": "so",
    "told": "said, given",
    "upon": "on",
    "whence": "from where",
}
WORD = re.compile(rf"(?<![\w-])({'|'.join(SAY)})(?![\w-])", re.IGNORECASE)
PACKAGES = ("hooks", "probes", "interp", "benchmarks")
DATA = {  # files whose strings are data: sentences of a corpus, words of a language
    "interp/landmark/abroad.py",
    "interp/landmark/genres.py",
    "interp/landmark/grammar.py",
    "interp/landmark/relations.py",
    "interp/postcard/captions.py",
    "benchmarks/circuits.py",
}


def prose_is_plain(root: Path) -> list[str]:
    """No docstring, comment, text or page has a word of `SAY`; strings of tests are data."""
    breaches = []
    for path in sorted(p for folder in (*PACKAGES, "tests") for p in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        strings = name not in DATA and not name.startswith("tests/")
        breaches += [f"{name}:{line} says {word}" for line, word in _odd(_of_python(path.read_text("utf-8"), strings))]
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    for path in sorted(pages):
        name = path.relative_to(root).as_posix()
        breaches += [f"{name}:{line} says {word}" for line, word in _odd(iter([(1, path.read_text("utf-8"))]))]
    for path in sorted((root / "tutorials").glob("*.ipynb")):
        found = _odd(_of_notebook(path.read_text("utf-8")))
        breaches += [f"tutorials/{path.name}, cell {cell} says {word}" for cell, word in found]
    return breaches


def names_are_plain(root: Path) -> list[str]:
    """No function, class, argument, variable or field has a word of `SAY` in its name."""
    breaches = set()
    for path in sorted(p for folder in (*PACKAGES, "tests") for p in (root / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (name := _defined(node)) and set(re.split(r"[_\W]+", name.lower())) & SAY.keys():
                breaches.add(f"{path.relative_to(root).as_posix()}:{node.lineno} is called {name}")
    return sorted(breaches)


def _defined(node: ast.AST) -> str:
    """The name that a node gives to something; empty where it gives none."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.arg):
        return node.arg
    return node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else ""


def _odd(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for line, text in lines:
        for number, one in enumerate(_without_code(text).splitlines()):
            yield from ((line + number, found.group()) for found in WORD.finditer(one))


def _without_code(text: str) -> str:
    """The same lines with code spans and fenced blocks left empty."""
    blank = lambda found: re.sub(r"[^\n]", " ", found.group())  # noqa: E731
    return re.sub(r"`[^`\n]*`", blank, re.sub(r"```.*?```", blank, text, flags=re.DOTALL))


def _of_python(source: str, strings: bool) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a file and, where they are meant for people, its strings of several words."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    tree = ast.parse(source)
    bodies = (node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list))
    documents = {id(one.value) for body in bodies for one in body if isinstance(one, ast.Expr)}
    for node in ast.walk(tree):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if text and (id(node) in documents or (strings and " " in node.value.strip())):
            yield node.lineno, node.value


def _of_notebook(text: str) -> Iterator[tuple[int, str]]:
    """The prose of the cells: pages, and the comments of code, whose strings are data."""
    for number, cell in enumerate(json.loads(text)["cells"], 1):
        source = "".join(cell["source"])
        code = [] if cell["cell_type"] == "markdown" else [s for _, s in _of_code(source)]
        for one in code if cell["cell_type"] == "code" else [source]:
            yield from ((number, line) for line in _without_code(one).splitlines())


def _of_code(source: str) -> Iterator[tuple[int, str]]:
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    return _of_python("\n".join(lines) + "\n", strings=False)
