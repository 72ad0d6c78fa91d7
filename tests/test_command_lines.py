"""Every `interp …` line of the pages, the tutorials and the code is one that its command's own parser takes."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interp.commands.app import VERBS, read_verb

ROOT = Path(__file__).resolve().parents[1]
MOVED = ROOT / "docs" / "moves.md"  # its lines are those that are no longer taken, next to those that are
SOURCES = [path for name in ("hooks", "probes", "interp", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))]
PAGES = [
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "interp").rglob("*.md")]
    if path not in (MOVED, ROOT / "CHANGELOG.md")
]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
QUOTED = re.compile(r"`(?:\.venv/bin/)?interp ([^`]+)`")
TYPED = re.compile(r"^(?:[$!] ?)?(?:.* -m |\.venv/bin/)?interp ((?:[^\n\\]|\\\n)+)", flags=re.M)


def lines_of(text: str) -> Iterator[str]:
    """What follows `interp` where a text quotes a command, or shows one in a block."""
    yield from (" ".join(found.split()) for found in QUOTED.findall(text))
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, flags=re.M | re.S):
        yield from (found.replace("\\\n", " ") for found in TYPED.findall(block))


def strings_of(code: str) -> Iterator[str]:
    """The texts of a file of Python; what an f-string fills in is the placeholder VALUE."""
    tree = ast.parse(code)
    within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            yield node.value


def texts_of(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        yield from strings_of(text)
    elif path.suffix == ".ipynb":
        yield from ("".join(cell["source"]) for cell in json.loads(text)["cells"])
    else:
        yield text


def fault(line: str) -> str | None:
    """What a command's parser has against a line: None where there is nothing.

    A word in capitals is a value of any kind; `…` is whatever else the command takes. A line of a verb alone, or of a
    verb and options alone, names them and need not be whole; its last option may be without its value.
    """
    name, *words = shlex.split(line.split(" | ")[0], comments=True)
    if name not in VERBS:
        return None if name.startswith("-") else f"no command is called {name}"
    command = read_verb(name)
    if words and (inner := getattr(command, "commands", {}).get(words[0])) is not None:
        name, command, words = f"{name} {words[0]}", inner, words[1:]
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    if unknown := [word for word in words if word.startswith("--") and word != "--help" and word not in options]:
        return f"{name} takes no {', '.join(unknown)}"
    if words and words[-1] in options:
        words = words[:-1]
    return _parse(command, name, [word for word in words if word != "…"], "…" not in words)


def _parse(command: Any, name: str, words: list[str], whole: bool) -> str | None:
    parser = command.make_parser(command.context_class(command, info_name=name))
    try:
        given, rest, _ = parser.parse_args(list(words))
    except Exception as error:
        return f"{name}: {getattr(error, 'message', error)}"
    if rest:
        return f"{name}: nothing takes {rest}"
    missing = [one.name for one in command.params if one.required and given.get(one.name) is None]
    places = [one.name for one in command.params if one.param_type_name == "argument" and given.get(one.name)]
    if missing and places and whole:
        return f"{name} lacks {', '.join(missing)}"
    context = command.context_class(command, info_name=name)
    for one in command.params:
        value = given.get(one.name)
        several = value if isinstance(value, (list, tuple)) else [value]
        if value is None or not isinstance(several[0], str) or any(word.isupper() for word in several):
            continue
        try:
            one.process_value(context, value)
        except Exception as error:
            return f"{name}: {getattr(error, 'message', error)}"
    return None


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=lambda path: path.name)
def test_every_line_of_a_page_is_one_that_the_command_takes(path: Path) -> None:
    found = [(line, fault(line)) for text in texts_of(path) for line in lines_of(text)]
    assert [one for one in found if one[1]] == []


def test_every_line_in_a_docstring_or_message_is_one_that_the_command_takes() -> None:
    found = [(path.name, line, fault(line)) for path in SOURCES for text in texts_of(path) for line in lines_of(text)]
    assert len(found) > 40
    assert [one for one in found if one[2]] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train-sae MODEL --texts texts.txt --site resid_post.3", "train-sae takes no --texts"),
        ('steer MODEL DIRECTION "This morning I"', "steer: nothing takes"),
        ("worlds trian FOLDER", "worlds: nothing takes"),
        ("patch gpt2 CLEAN CORRUPT RIGHT", "patch lacks wrong"),
        ("circuit gpt2 CLEAN CORRUPT RIGHT WRONG --steps many", "valid integer"),
        ("train-sae --store store --latents 1e6", "valid integer"),
        ("patch --by", None),
        ("circuit gpt2 CLEAN CORRUPT RIGHT WRONG --steps N", None),
        ("diff …", None),
        ("fly", "no command is called fly"),
    ],
)
def test_a_line_that_the_command_does_not_take_is_found(line: str, said: str | None) -> None:
    found = fault(line)
    assert found is None if said is None else said in str(found)
