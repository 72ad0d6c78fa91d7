"""Text is shown as it is, tokens carry their values, and marks fall where the spans say."""

import ast
import re
from pathlib import Path

import pytest

import interp.show
from interp.show.html import highlight, part, table, tokens


def test_markup_in_a_text_is_shown_and_not_obeyed() -> None:
    hostile = "</script><script>alert('x')</script>"
    for shown in (
        part("code", hostile),
        table([hostile], [[hostile]]),
        highlight(hostile, [(2, 8)]),
        tokens([hostile], [1.0], largest=1.0),
    ):
        assert "<script" not in shown and "</script" not in shown


def test_the_largest_value_has_the_full_colour_and_zero_has_none() -> None:
    shown = tokens([" the", " bridge", " over"], [0.0, 4.0, 2.0], largest=4.0)
    assert shown.startswith("<span> the</span>")
    assert 'style="background:rgba(192, 67, 46, 1);color:#fff" title="4"> bridge' in shown
    assert 'style="background:rgba(192, 67, 46, 0.56)" title="2"> over' in shown


def test_a_value_above_the_largest_is_shown_in_full_colour_with_its_own_number() -> None:
    assert 'rgba(192, 67, 46, 1);color:#fff" title="8"' in tokens(["x"], [8.0], largest=4.0)


def test_tokens_without_their_values_are_refused() -> None:
    with pytest.raises(ValueError, match="2 tokens were given with 1 values: give one value per token"):
        tokens(["a", "b"], [1.0], largest=1.0)
    with pytest.raises(ValueError, match="largest is 0.0: give the positive value that gets the full colour"):
        tokens(["a"], [1.0], largest=0.0)


def test_marks_fall_on_the_spans_and_overlapping_ones_do_not_double_text() -> None:
    shown = highlight("fog on the gate", [(11, 15), (0, 3), (1, 2)])
    assert shown == "<mark>fog</mark> on the <mark>gate</mark>"
    assert highlight("abcdefg", [(2, 6), (0, 3)]) == "<mark>abcdef</mark>g"


def test_a_table_emphasises_the_rows_it_is_asked_to() -> None:
    shown = table(["name", "F1"], [["latent 3", "0.9"], ["probe", "0.8"]], emphasised=[True, False])
    assert shown.count('class="strong"') == 1 and '<tr class="strong"><td>latent 3' in shown


TAG = re.compile(r"</?(?!br>|extra>)[a-z][a-z0-9]*[ />]")  # Plotly has <br> and <extra> in its labels


def tags_in(source: str) -> list[str]:
    """Strings of Python code that hold tags of HTML, docstrings aside."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and isinstance(node.body[0], ast.Expr)
    }
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.value for node in strings if id(node) not in docstrings and TAG.search(node.value)]


def test_html_is_written_in_templates_alone() -> None:
    assert tags_in("x = f'<b>{name}</b>'") == ["<b>", "</b>"]
    for file in Path(interp.show.__file__).parent.glob("*.py"):
        assert tags_in(file.read_text("utf-8")) == [], file.name
