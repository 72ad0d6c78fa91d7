"""The README and the docs name only things that exist, and the first example comes before the reader scrolls."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
MADE = ("tutorials/", "reference/")  # pages that the build of the site writes


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Each fenced Python block with the line it starts on, counted from 1."""
    found = re.finditer(r"^```python\n(.*?)^```", text, flags=re.M | re.S)
    return [(text.count("\n", 0, block.start()) + 1, block.group(1)) for block in found]


def from_imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(module, name there, name here) of every `from module import name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name, alias.asname or alias.name) for alias in node.names)


def provided(module: str, name: str) -> object:
    """What `from module import name` gives: an attribute, or a module of that package."""
    holder = importlib.import_module(module)
    return getattr(holder, name) if hasattr(holder, name) else importlib.import_module(f"{module}.{name}")


def missing_names(code: str) -> list[str]:
    """Imports of `code` that nothing provides, and its calls that do not fit the signature of what they call."""
    tree, known, wrong = ast.parse(code), {}, []
    for module, name, here in from_imports(tree):
        try:
            known[here] = provided(module, name)
        except ModuleNotFoundError:
            wrong.append(f"{module}.{name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            wrong += [] if hasattr(known[node.value.id], node.attr) else [ast.unparse(node)]
        elif isinstance(node, ast.Call) and (called := function_of(node, known)) is not None:
            wrong += [] if fits(node, called) else [ast.unparse(node)]
    return wrong


def function_of(call: ast.Call, known: dict[str, object]) -> object:
    """What is called, where it is a known name, or what a known module holds; None otherwise."""
    if isinstance(call.func, ast.Name):
        return known.get(call.func.id)
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        return getattr(known.get(call.func.value.id), call.func.attr, None)
    return None


def fits(call: ast.Call, function: object) -> bool:
    """Whether the call's arguments can be bound to the function's parameters."""
    if not callable(function):
        return False
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return True
    try:
        inspect.signature(function).bind(*call.args, **{k.arg: k.value for k in call.keywords if k.arg})
    except TypeError:
        return False
    except ValueError:  # a built-in that does not say what it takes
        return True
    return True


def commands() -> set[str]:
    """The subcommands that `interp` has."""
    typer = importlib.import_module("typer.main")
    group = typer.get_group(importlib.import_module("interp.commands.app").app)
    return set(group.commands)


def test_the_example_starts_by_line_15_and_has_at_most_twelve_lines() -> None:
    line, code = python_blocks(README)[0]
    assert line <= 15
    assert 5 <= len(code.strip().splitlines()) <= 12


def test_the_readme_names_the_two_commands_before_its_second_heading() -> None:
    opening = "\n## ".join(README.split("\n## ")[:2])
    assert "make demo" in opening
    assert "make test" in opening


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_block_names_only_things_that_exist(page: Path) -> None:
    wrong = [name for _, code in python_blocks(page.read_text("utf-8")) for name in missing_names(code)]
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from hooks import laod", "hooks.laod"),
        ("from interp.nowhere import x", "interp.nowhere.x"),
        ("from hooks import load\nload('gpt2', colour='red')", "load('gpt2', colour='red')"),
        ("from interp import landmark\nlandmark.bridge", "landmark.bridge"),
        ("from interp import landmark\nlandmark.entity()", "landmark.entity()"),
    ],
)
def test_a_name_that_does_not_exist_is_found(code: str, message: str) -> None:
    assert missing_names(code) == [message]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_quoted_in_a_sentence_or_table_works(page: Path) -> None:
    quoted = re.findall(r"`(from [\w.]+ import [\w, ]+)`", page.read_text("utf-8"))
    assert [name for line in quoted for name in missing_names(line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    paths = re.findall(r"`((?:hooks|probes|interp|tests|docs|tutorials|benchmarks)/[\w/.-]*)`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link and not link.startswith(MADE)]
    gone = [p for p in paths if not (ROOT / p).exists()]
    assert gone + [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_a_page_cites_exists(page: Path) -> None:
    cited = set(re.findall(r"`(test_\w+)`", page.read_text("utf-8")))
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    here = set(re.findall(r"def (test_\w+)", tests))
    assert sorted(cited - here) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_a_page_quotes_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.M))
    made = set(re.findall(r"`make (\w+)", text)) | set(re.findall(r"^make (\w+)", text, flags=re.M))
    run = set(re.findall(r"`(?:\.venv/bin/)?interp ([\w-]+)", text))
    assert sorted(made - targets) + sorted(run - commands() if run else []) == []


def test_every_message_of_the_page_of_errors_is_in_the_code() -> None:
    quoted = re.findall(r"^\| `([^`]+)`", (ROOT / "docs" / "errors.md").read_text("utf-8"), flags=re.M)
    files = (path for package in ("hooks", "probes", "interp") for path in (ROOT / package).rglob("*.py"))
    nodes = (node for path in files for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    said = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert len(quoted) > 40
    assert [words for words in quoted if not any(words in text for text in said)] == []
