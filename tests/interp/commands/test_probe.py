"""`interp probe` prints the sweep that `sweep` makes, saves its direction, and says what is wrong with a file."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hooks import Direction, load
from hooks.position import index, last
from hooks.site import resid_post
from interp.commands.app import app
from interp.commands.probe import read_examples
from probes import DifferenceOfMeans, sweep
from tests.interp.commands.runner import check_document

HEADER = "text\tlabel\tgroup\n"
ROWS = [f"thing {letter} is {end}\t{end == 'x'}\t{letter}\n" for letter in "abcdefgh" for end in "xy"]


@pytest.fixture(scope="module")
def model_folder(folder: str) -> Path:
    path = Path(folder)
    (path / "examples.tsv").write_text(HEADER + "".join(ROWS), encoding="utf-8")
    for name, start in (("one", "some"), ("two", "any")):
        (path / name).mkdir()
        rows = "".join(row.replace("thing", start) for row in ROWS)
        (path / name / "test.tsv").write_text(HEADER + rows, encoding="utf-8")
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["probe", *map(str, words)])


def test_the_command_prints_the_sweep_of_the_function_and_saves_its_direction(
    model_folder: Path, tmp_path: Path
) -> None:
    options = ["--site", "resid_post.[01]", "--position", -1, "--position", 3, "--folds", 3, "--permutations", 2]
    options += ["--probe", "difference-of-means", "--out", tmp_path / "d.safetensors"]
    one, two = model_folder / "one" / "test.tsv", model_folder / "two" / "test.tsv"
    result = call(model_folder, model_folder / "examples.tsv", "--elsewhere", one, "--elsewhere", two, *options)
    assert result.exit_code == 0, (result.output, result.exception)
    examples = read_examples(model_folder / "examples.tsv")
    grid = sweep(
        load(str(model_folder)),
        examples,
        [resid_post[0], resid_post[1]],
        [last, index(3)],
        probe=DifferenceOfMeans(),
        folds=3,
        permutations=2,
        elsewhere={str(one): read_examples(one), str(two): read_examples(two)},
    )
    assert str(grid) in result.output
    (tmp_path / "d.safetensors").rename(tmp_path / "first.safetensors")
    document = json.loads(call(model_folder, model_folder / "examples.tsv", *options, "--json", "--quiet").stdout)
    check_document(("probe",), document)
    assert document["least_p_value"] == pytest.approx(1 / 3) and document["shuffled"]["n"] == 2
    assert document["shuffled"]["largest"] == pytest.approx(float(grid.controls.shuffled.max()))
    assert (document["control_task"] is None) == (grid.controls.memorised is None)
    assert not document["embedding_same"]
    assert Direction.load(tmp_path / "d.safetensors").cosine(grid.direction) == pytest.approx(1)


@pytest.mark.parametrize(
    ("file", "options", "said"),
    [
        ("text,label\nfog,1\n", [], "has the columns text, label and lacks 'group'"),
        ("text,label,group\nfog,maybe,a\n", [], "has the label 'maybe'; write one of 1, true"),
        ("text,label,group\nfog,1,a\n", [], "all 1 labels are"),
        ("text,label,group\nfog,1,a\nsun,0,b\n", ["--probe", "logistics"], "did you mean 'logistic'"),
        (None, [], "there is no file"),
    ],
)
def test_a_mistake_is_one_sentence(
    file: str | None, options: list[str], said: str, model_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "examples.csv"
    if file is not None:
        path.write_text(file, encoding="utf-8")
    result = call(model_folder, path, *options)
    assert result.exit_code == 2
    assert said in result.stderr and "\n" not in result.stderr.strip()


def test_labels_are_read_in_every_spelling(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("group,text,label\na,one,YES\na,two,0\nb,three,True\nb,four,false\n", encoding="utf-8")
    assert read_examples(path).labels == (True, False, True, False)


def test_a_file_as_spreadsheets_write_it_is_read_and_a_short_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("text,label,group\none,1,a\ntwo,0,a\n", encoding="utf-8-sig")
    assert read_examples(path).texts == ("one", "two")
    path.write_text("label,group,text\n1,a,one\n0,a\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3 of .* has no 'text': give every column in every row"):
        read_examples(path)
