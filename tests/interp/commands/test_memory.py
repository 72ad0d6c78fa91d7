"""`interp memory` prints what the functions find, pages it, draws it, and refuses what does not exist."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hooks import Model, load
from interp.commands.app import app
from interp.memory import Query, agreement, composition, knowledge, triggers
from tests.contracts.words import sentences, taught

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    model = taught("gpt2", steps=30)
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    (path / "texts.txt").write_text("\n".join(sentences()), encoding="utf-8")
    return path


def call(folder: Path, *words: str, code: int = 0) -> str:
    given = ["memory", str(folder), *words, "--texts", str(folder / "texts.txt"), "--quiet"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout if code == 0 else result.stderr


def test_the_list_pages_through_every_memory_once_those_that_agree_first(folder: Path) -> None:
    model = load(str(folder))
    agreed = agreement(model, triggers(model, sentences(), 1))
    seen: list[int] = []
    for page in ("1", "2"):
        said = call(folder, "1", "--per-page", "80", "--page", page)
        assert f"{agreed.rate.value:.2%}" in said and f"page {page} of 2; memories 160" in said
        seen += [int(line[:6]) for line in said.splitlines() if line[:6].strip().isdigit()]
    assert sorted(seen) == list(range(model.d_mlp))
    assert set(seen[: len(agreed.agreeing)]) == set(agreed.agreeing)


def test_a_prompt_is_taken_apart_and_the_page_holds_the_same_memories(folder: Path, tmp_path: Path) -> None:
    model: Model = load(str(folder))
    out = tmp_path / "memories.html"
    words = ["1", "--neuron", "7", "--prompt", "Rome is in", "--answer", "Italy", "--out", str(out)]
    said = call(folder, *words)
    first, *_ = composition(model, "Rome is in", 1).largest(-1)
    assert f"{first[0]:>6}   coefficient {first[1]:.2f}, {first[2]:.1%} of the output" in said
    assert f"'Italy' has probability {knowledge(model, Query('Rome is in', 'Italy')).clean:.1%}" in said
    document = json.loads(call(folder, *words[:-2], "--json", "--quiet"))["on_prompt"]
    assert [one["neuron"] for one in document["largest"]][:1] == [first[0]] and document["prompt"] == "Rome is in"
    for share in ("probability", "without", "without_others"):
        assert f"{document['answer'][share]:.1%}" in said
    assert f"{document['largest'][0]['share']:.1%} of the output" in said
    page = out.read_text(encoding="utf-8")
    assert 'id="memory-7"' in page and 'id="memory-8"' not in page and "by chance" in page


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("1", "--page", "99"), "page 99 of 20 memories a page does not exist: there are pages 1 to 8"),
        (("1", "--per-page", "0"), "Invalid value for '--per-page'"),
        (("1", "--neuron", "160"), "memory 160 does not exist: layer 1 has memories 0 to 159"),
        (("1", "--answer", "Italy"), "--answer says what follows a prompt: give --prompt as well"),
        (("9",), "LAYER 9: "),
    ],
)
def test_what_does_not_exist_ends_with_code_2_and_the_fix(folder: Path, words: tuple[str, ...], text: str) -> None:
    assert text in call(folder, *words, code=2)
