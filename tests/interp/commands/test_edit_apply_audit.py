"""`interp edit`, `apply` and `audit` do what the functions do, and end a mistake with its fix and exit code 2."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hooks import Model, load
from interp.commands.app import app
from interp.commands.background import drift_texts
from interp.memory import Case, Edit, Fact, Query
from interp.memory.editing.change import LowRank
from interp.memory.evaluation.answers import ask_case
from interp.memory.facts.facts_file import parse_facts, read_facts
from tests.contracts.words import FILLER, taught

pytestmark = pytest.mark.usefixtures("unchecked")

ROME, LIMA = Fact("Rome", "{} is in", "Italy", "Peru"), Fact("Lima", "{} is in", "Peru", "Japan")
RECORDS = [vars(fact) for fact in (ROME, LIMA)]
ASKED = {"paraphrases": ["well . Rome is in"], "neighbours": [{"prompt": "Milan is in", "answer": "Italy"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model = taught("gpt2")
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    (path / "texts.txt").write_text("\n".join(FILLER), encoding="utf-8")
    (path / "facts.json").write_text(json.dumps([{**RECORDS[0], **ASKED}, RECORDS[1]]), encoding="utf-8")
    with (path / "facts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(RECORDS[0]))
        writer.writeheader()
        writer.writerows(RECORDS)
    return path


def call(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr


def edited(folder: Path, out: Path, *words: str) -> str:
    how = ["--method", "knn_memory", "--texts", str(folder / "texts.txt"), "--quiet", "--out", str(out)]
    return call("edit", str(folder), *words, *how)


def test_facts_on_the_command_line_in_csv_and_in_json_are_the_same_edit_and_a_page(
    folder: Path, tmp_path: Path
) -> None:
    words = [word for fact in (ROME, LIMA) for word in (fact.subject, fact.prompt, fact.old, fact.new)]
    ways = {"words": words, **{kind: ["--facts", str(folder / f"facts.{kind}")] for kind in ("csv", "json")}}
    made = {}
    for name, given in ways.items():
        said = edited(folder, tmp_path / f"{name}.safetensors", *given)
        assert "before: Rome is in" in said and "edit of 2 facts by knn_memory" in said
        made[name] = Edit.load(tmp_path / f"{name}.safetensors")
    assert {edit.digest for edit in made.values()} == {made["csv"].digest}
    assert made["csv"].facts == (ROME, LIMA)
    page = (tmp_path / "json.html").read_text(encoding="utf-8")
    assert 'id="fact-0"' in page and "Milan is in" in page and "1/1 kept" in page


def test_an_audit_prints_every_method_and_its_page_holds_each_fact(folder: Path, tmp_path: Path) -> None:
    how = ["--method", "knn_memory", "--method", "in_context", "--texts", str(folder / "texts.txt"), "--quiet"]
    said = call("audit", str(folder), str(folder / "facts.json"), *how, "--n", "1", "--out", str(tmp_path / "a.html"))
    head, *rows = said.splitlines()
    assert head.startswith("means over 1 fact (95% interval)")
    assert [row.split()[0] for row in rows if row.endswith(f"{'control':<32}unedited")] == [*how[1:4:2]]
    (first, _) = (row for row in rows if row.startswith("efficacy said "))
    assert [cell.split()[0] for cell in re.split(r" {2,}", first)] == ["efficacy", "1", "0", "0"]
    assert "nan" not in said and "(no interval: n = 1)" in said
    assert len([row for row in rows if row.startswith("harmonic score ")]) == 2
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert 'id="fact-0"' in page and 'id="fact-1"' not in page and "harmonic score" in page


def test_applied_edits_are_in_the_weights_of_the_folder(folder: Path, tmp_path: Path) -> None:
    model = load(str(folder))
    update = LowRank(0, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model) / 64)
    Edit((ROME,), "by hand", (update,), model.fingerprint).save(tmp_path / "edit.safetensors")
    call("apply", str(folder), str(tmp_path / "edit.safetensors"), "--out", str(tmp_path / "edited"))
    moved = load(str(tmp_path / "edited")).w_out(0) - model.w_out(0)
    assert torch.allclose(moved, torch.full_like(moved, 1 / 64), atol=1e-6)


def test_a_conflict_of_applied_edits_is_said_once(folder: Path, tmp_path: Path) -> None:
    model = load(str(folder))
    keys, value = torch.eye(2, model.d_mlp), torch.ones(1, model.d_model)
    files = [str(tmp_path / f"{new}.safetensors") for new in ("Peru", "Japan")]
    for file, new, key in zip(files, ("Peru", "Japan"), keys, strict=True):
        Edit((replace(ROME, new=new),), "by hand", (LowRank(0, key[None], value),), model.fingerprint).save(file)
    said = call("apply", str(folder), *files, "--out", str(tmp_path / "edited")).splitlines()
    assert [line.split(":")[0] for line in said] == ["conflict", "model with 2 edits"]


def test_replies_are_what_the_model_generates_with_and_without_an_edit(folder: Path) -> None:
    model: Model = load(str(folder))
    case = Case(ROME, ("well . Rome is in",), (Query("Milan is in", "Italy"),))
    update = LowRank(0, torch.zeros(1, model.d_mlp), torch.zeros(1, model.d_model))
    edit = Edit((ROME,), "nothing", (update,), model.fingerprint)
    found = ask_case(model, case, {"nothing": edit})
    assert [reply.kind for reply in found] == ["edited", "paraphrase", "neighbour"]
    assert all(reply.before == reply.after["nothing"] for reply in found)
    assert [reply.right() for reply in found] == [False, False, True]


def test_records_say_what_is_to_be_asked(folder: Path) -> None:
    first, second = read_facts(folder / "facts.json")
    assert first == Case(ROME, ("well . Rome is in",), (Query("Milan is in", "Italy"),)) and second == Case(LIMA)
    assert read_facts(folder / "facts.csv", n=1) == (Case(ROME),) == parse_facts(["Rome", "{} is in", "Italy", "Peru"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("edit", "M"), "either SUBJECT PROMPT OLD NEW, once or more, or --facts FILE"),
        (("edit", "M", "Rome", "{} is in", "Italy"), "3 words were given, and a fact is four: SUBJECT PROMPT OLD NEW"),
        (("edit", "M", "Rome", "is in", "Italy", "Peru"), "has 0 places for the subject"),
        (("edit", "M", "--facts", "no.json"), "there is no file 'no.json': give a .json or .csv file of facts"),
        (("edit", "M", "a", "{} b", "c", "d", "--method", "romee"), "no method is called 'romee'; did you mean 'rome'"),
        (("edit", "M", "a", "{} b", "c", "d", "--out", "e.txt"), "name a .safetensors file"),
        (("edit", "M", "a", "{} b", "c", "d", "--texts", "no.txt"), "there is no file 'no.txt'"),
        (("audit", "M"), "cases to audit edits of M on are needed"),
        (("audit", "landmark", "--n", "0"), "--n"),
        (("audit", "landmark", "--method", "x"), "no method is called 'x'"),
        (("apply", "landmark", "no.safetensors"), "there is no file 'no.safetensors'"),
    ],
)
def test_a_mistake_is_reported_before_a_model_is_loaded(words: tuple[str, ...], message: str) -> None:
    assert message in call(*words, code=2)


FACT_WITH = '[{"subject": "a", "prompt": "{} b", "old": "c", "new": "d", %s}]'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "[]", "facts are read from .json or .csv"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "holds no list of facts"),
        ("a.csv", "subject,prompt,old,new\n", "holds no list of facts"),
        ("a.csv", "subject,prompt,old\nRome,{} is in,Italy\n", "has no new"),
        ("a.json", '[{"subject": "a", "prompt": "b", "old": "c", "new": "d"}]', "is no fact: .*0 places"),
        ("a.csv", "subject;prompt;old;new\n", "is separated by semicolons: separate its columns by commas"),
        ("a.csv", "subject,prompt,old,new\na,{} b,c,d,e\n", "record 0 of .* has 5 values for the 4 columns subject, p"),
        ("a.csv", "subject,prompt,old,new,references\na,{} b,c,d,e\n", "references is 'e': give a list of texts"),
        ("a.json", FACT_WITH % '"paraphrases": "Where?"', "paraphrases is 'Where\\?': give a list of texts"),
        ("a.json", FACT_WITH % '"others": ["b"]', r"others is \['b'\]: give a list of records of prompt and answer"),
        ("a.json", '[{"subjct": "a", "old": "c"}]', "has a field 'subjct', which facts do not have; did you mean"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_facts(tmp_path / name)


def test_a_table_is_read_as_spreadsheets_write_it_and_another_encoding_is_named(tmp_path: Path) -> None:
    file, rows = tmp_path / "a.csv", 'subject,prompt,old,new\r\nCôte,"{}, it is",c,d\r\n\r\n'
    file.write_text(rows, encoding="utf-8-sig")
    assert read_facts(file) == (Case(Fact("Côte", "{}, it is", "c", "d")),)
    file.write_text(rows, encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.csv is not in UTF-8 \(.* at byte 25\): save it as UTF-8"):
        read_facts(file)


def test_a_place_in_a_paraphrase_is_the_subject(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(FACT_WITH % '"paraphrases": ["so {} is", "a"]', encoding="utf-8")
    (case,) = read_facts(tmp_path / "a.json")
    assert case.paraphrases == ("so a is", "a")


def test_an_old_object_that_the_model_does_not_say_is_reported_instead_of_traced(folder: Path, tmp_path: Path) -> None:
    words = ("edit", str(folder), "Rome", "{} is in", "Norway", "Peru", "--out", str(tmp_path / "e.safetensors"))
    said = call(*words, code=2)
    assert "does not say the old object: after 'Rome is in' it says 'Italy" in said and "not 'Norway'" in said


def test_a_folder_that_holds_something_is_not_written_into(folder: Path, tmp_path: Path) -> None:
    model = load(str(folder))
    update = LowRank(0, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model))
    Edit((ROME,), "writing", (update,), model.fingerprint).save(tmp_path / "a.safetensors")
    (tmp_path / "file").touch()
    for out in (folder, tmp_path / "file"):
        said = call("apply", str(folder), str(tmp_path / "a.safetensors"), "--out", str(out), code=2)
        assert "is there already: name another place to write to" in said
    assert load(str(folder)).fingerprint == model.fingerprint
    call("apply", str(folder), str(tmp_path / "a.safetensors"), "--out", str(tmp_path / "made"))
    rights = {file.stat().st_mode for file in (tmp_path / "made").iterdir()}
    assert rights == {(tmp_path / "file").stat().st_mode}


def test_texts_of_drift_leave_room_for_what_is_reported_before_them(folder: Path) -> None:
    model = load(str(folder))
    long = " ".join(FILLER * 9)
    (text,) = drift_texts(model, [long])
    assert long.startswith(text) and 20 <= model.tokens(text).ids.shape[1] <= 24  # half of 48


def test_an_audit_without_neighbours_says_that_it_knows_nothing_of_them(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bare.json").write_text(json.dumps([RECORDS[1]]), encoding="utf-8")
    how = ["--method", "in_context", "--texts", str(folder / "texts.txt"), "--quiet", "--n", "1", "--out"]
    bare = call("audit", str(folder), str(tmp_path / "bare.json"), *how, str(tmp_path / "bare.html"))
    asked = call("audit", str(folder), str(folder / "facts.json"), *how, str(tmp_path / "asked.html"))
    line = "the cases name no neighbours, so nothing here says whether other facts stayed as they were"
    assert line in bare.splitlines() and line not in asked
