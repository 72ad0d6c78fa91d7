"""Options and files of all verbs: numbers in their range, tables for texts, places that are taken, layers, heads."""

import time
from pathlib import Path
from typing import Any

import pytest
import typer

from interp.commands import arguments
from interp.commands.app import VERBS, read_verb
from interp.commands.arguments import read_columns, read_lines, show_step
from interp.commands.checks import check_new
from tests.interp.commands.runner import call

FREE = {
    ("steer", "--dose"): "a dose below 0 turns the direction round",
    ("probe", "--position"): "-1 is the last token",
    ("train-sae",): "its settings have ranges of their own, which a file of them has too",
}


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test in which no model may be loaded."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("interp.commands.arguments.load", loaded)


def numbers() -> list[tuple[str, Any]]:
    found = []
    for name in VERBS:
        verb = read_verb(name)
        for inner, command in (getattr(verb, "commands", None) or {name: verb}).items():
            called = name if inner == name else f"{name} {inner}"
            found += [(called, one) for one in command.params if {"int", "float"} & words_of(one)]
    return found


def words_of(parameter: Any) -> set[str]:
    """The types of a parameter, by name."""
    annotation = str(getattr(getattr(parameter, "type_descriptor", None), "annotation", ""))
    return {word for word in ("int", "float") if word in annotation}


def test_every_number_has_its_least_value_or_a_reason() -> None:
    found = numbers()
    assert len(found) > 80
    free = [(verb, one.opts[0]) for verb, one in found if one.min is None]
    assert [one for one in free if one not in FREE and one[:1] not in FREE] == []


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("circuit no/model a b c d --steps 0", "--steps"),
        ("probe no/model a.csv --permutations 0", "--permutations"),
        ("probe no/model a.csv --folds 2", "--folds"),
        ("export edit no/model a.safetensors --rank 0", "--rank"),
        ("plan --model-params 7e9 --d-model 8 --latents 8 --tokens 8 --depth 2", "--depth"),
        ("steer no/model fog --direction a --tokens 0", "--tokens"),
        ("patch no/model a b c d --top 0", "--top"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_the_name_of_its_option(words: str, option: str) -> None:
    said = call(*words.split(), code=2)
    assert f"'{option}'" in said and "should be" in said
    assert not any(name in said for name in ("eap_ig", "sweep", "to_peft", "Job"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("patch FOLDER a b c d --by head", "--by head patches heads, and resid_pre has none: give --site z"),
        ("circuit FOLDER a b c d --node-threshold 0.2", "--node-threshold say which features count"),
        ("plan --model-params 7e9 --d-model 8 --latents 8 --tokens 8 --k 9", "--k 9 of --latents 8 cannot be on"),
        ("atlas convnet --to fog", "--to is one end of a walk: give --from as well"),
        ("lens FOLDER fog --tuned FOLDER", "is a folder, and a lens is a file"),
        ("memory FOLDER 9 --texts TEXTS", "LAYER 9: "),
        ("edit FOLDER fog {}+is red blue --layer 22 --texts TEXTS", "--layer 22: "),
        ("capture FOLDER TABLE --site embed", "is a table, and a file with one text per line is read"),
        ("discover FOLDER embed TABLE", "is a table, and a file with one text per line is read"),
        ("capture FOLDER TEXTS --site embed --out TEXTS", "is there already: name another place to write to"),
        ("train-sae FOLDER TEXTS --site embed --out FOLDER", "is there already: name another place to write to"),
        ("probe FOLDER EXAMPLES --folds 9", "folds is 9, and the examples have 4 groups: give 3 to 4"),
    ],
)
@pytest.mark.usefixtures("unloaded")
def test_what_cannot_be_is_refused_in_the_words_of_the_command_before_a_model_is_loaded(
    words: str, said: str, folder: str, tmp_path: Path
) -> None:
    rows = [f'"fog {i}",{i % 2},g{i // 2}' for i in range(8)]
    files = {"TEXTS": "fog\n", "TABLE.csv": "text\nfog\n", "EXAMPLES.csv": "\n".join(["text,label,group", *rows])}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    places = {"FOLDER": folder, "TEXTS": tmp_path / "TEXTS", "TABLE": tmp_path / "TABLE.csv"}
    for name, place in (places | {"EXAMPLES": tmp_path / "EXAMPLES.csv"}).items():
        words = words.replace(name, str(place))
    assert said in call(*(word.replace("+", " ") for word in words.split()), code=2)


def test_tables_are_no_texts_and_columns_are_lines_with_tabs(tmp_path: Path) -> None:
    for ending in ("csv", "tsv", "json", "jsonl", "parquet", "arrow"):
        (tmp_path / f"a.{ending}").write_text("text\tlabel\nfog\t1\n", encoding="utf-8")
        with pytest.raises(ValueError, match="is a table"):
            read_lines(tmp_path / f"a.{ending}")
    assert read_columns(tmp_path / "a.tsv") == [["text", "label"], ["fog", "1"]]
    with pytest.raises(ValueError, match="save it as .tsv"):
        read_columns(tmp_path / "a.csv")


def test_a_place_is_taken_by_a_file_or_a_folder_that_holds_something(tmp_path: Path) -> None:
    check_new(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    check_new(tmp_path / "empty")
    (tmp_path / "empty" / "file").touch()
    for taken in (tmp_path / "empty", tmp_path / "empty" / "file"):
        with pytest.raises(ValueError, match="is there already"):
            check_new(taken)


def test_a_step_that_takes_long_is_a_line_in_a_log_and_a_quick_one_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "PATIENCE", 0.05)
    with show_step("resting"):
        time.sleep(0.3)
    with show_step("blinking"):
        pass
    with show_step("hiding", quiet=True):
        time.sleep(0.1)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == "" and set(lines) == {"resting …"} and 1 <= len(lines) <= 3
    typer.echo("done")
    assert capsys.readouterr().out == "done\n"
