"""What all verbs share: how they end, one JSON document, true help, and checks before a model is read."""

import importlib.util
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from hooks.errors import InvalidArgument, NotReachable
from interp.commands import arguments
from interp.commands.app import VERBS, app, read_verb
from interp.commands.verb import verb
from tests.interp.commands.runner import call


@pytest.fixture(scope="module")
def encoder(folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder whose config says that it is an encoder, and that holds no weights to load."""
    path = tmp_path_factory.mktemp("encoder")
    (path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    return str(path)


def alone(function: Callable[..., Any], *words: str) -> Result:
    one = typer.Typer(pretty_exceptions_enable=False)
    one.command()(verb(function))
    return CliRunner().invoke(one, list(words))


def refusing() -> dict[str, Any]:
    raise InvalidArgument("the fog is 3: give 4")


def faulty() -> dict[str, Any]:
    return {}["fog"]


def gone() -> dict[str, Any]:
    return {"there": Path("nowhere").read_text(encoding="utf-8")}


def test_a_mistake_ends_with_code_2_a_fault_with_code_1_and_debug_shows_where() -> None:
    mistake, fault, missing = alone(refusing), alone(faulty), alone(gone)
    assert (mistake.exit_code, mistake.stderr) == (2, "error: the fog is 3: give 4\n")
    gone_said = "error: nowhere: there is no such file or folder: correct the path\n"
    assert (missing.exit_code, missing.stderr) == (2, gone_said)
    assert fault.exit_code == 1 and "KeyError: 'fog'" in fault.stderr and "Please report it" in fault.stderr
    assert "Traceback" not in mistake.stderr + fault.stderr
    for result, code in ((alone(refusing, "--debug"), 2), (alone(faulty, "--debug"), 1)):
        assert result.exit_code == code and "Traceback" in result.stderr and "test_verb.py" in result.stderr


def test_the_list_of_verbs_says_what_each_verb_says_of_itself() -> None:
    for name, said in VERBS.items():
        helped = " ".join(str(read_verb(name).help).split())
        assert helped == said, name


NO_DEVICE = {
    "feature feature": "reads tables and writes a page",
    "export features": "reads tables and writes files",
    "export autoencoder": "reads weights and writes them; 64 rows are encoded",
    "landmark corpus": "prints texts",
    "worlds rows": "prints texts",
    "postcard draw": "draws pictures",
}


def test_every_verb_has_json_and_debug_and_a_device_unless_it_runs_no_model() -> None:
    without = set()
    for verb_name in VERBS:
        read = read_verb(verb_name)
        for name, command in getattr(read, "commands", {verb_name: read}).items():
            names = {option for parameter in command.params for option in parameter.opts}
            assert {"--json", "--debug"} <= names, (verb_name, name)
            without |= set() if "--device" in names else {f"{verb_name} {name}"}
    assert without == NO_DEVICE.keys()


@pytest.mark.parametrize(
    "words",
    [
        ["visualise", "convnet"],
        ["neighbours", "convnet", "0"],
        ["atlas", "convnet"],
        ["context", "lists", "capital"],
        ["experts", "--n", "1"],
        ["track", "."],
        ["demo"],
        ["worlds", "train", "clock", "run"],
        ["postcard", "train", "run"],
        ["landmark", "train", "run"],
        ["landmark", "card", "run"],
    ],
)
def test_a_device_that_is_not_there_is_refused_by_what_reads_bundled_nets_and_worlds_too(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(app, [*words, "--device", "fog"])
    assert ran.exit_code == 2 and "no device is called 'fog' on this machine" in ran.stderr, ran.output


def test_help_needs_no_library() -> None:
    code = (
        "import sys; from interp.commands.app import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "plotly", "jinja2", "hooks"} & set(ran.stdout.splitlines()[-1].split())


def test_the_schema_of_what_verbs_print_is_that_of_the_page() -> None:
    docs = Path(__file__).parents[3] / "docs"
    spec = importlib.util.spec_from_file_location("write_schema", docs / "write_schema.py")
    assert spec is not None and spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert (docs / "commands.schema.json").read_text("utf-8") == writer.written(), "run `python docs/write_schema.py`"


def test_json_is_one_document_on_stdout_with_the_keys_that_the_page_names(folder: str, tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("fog over the bay\ngrey fog", encoding="utf-8")
    jsonschema = pytest.importorskip("jsonschema")
    docs = Path(__file__).parents[3] / "docs"
    page = (docs / "commands.md").read_text("utf-8")
    schema = json.loads((docs / "commands.schema.json").read_text("utf-8"))
    calls = {
        "sites": [folder],
        "capture": [
            folder,
            str(tmp_path / "texts"),
            "--site",
            "resid_post.1",
            "--out",
            str(tmp_path / "a.safetensors"),
        ],
        "lens": [folder, "fog", "--word", "g"],
        "patch": [folder, "fog over", "fig ever", "a", "c"],
        "landmark": ["corpus", "2"],
    }
    for name, words in calls.items():
        ran = CliRunner().invoke(app, [name, *words, "--json"])
        assert ran.exit_code == 0, ran.output
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}"))
        found = json.loads(ran.stdout)
        assert set(found) == {key for key in row.split("`")[3::2]}, name
        of_verb = "landmark corpus" if name == "landmark" else name
        jsonschema.validate(found, schema | {"$ref": f"#/$defs/{of_verb.replace(' ', '%20')}"})
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found | {"more": 1}, schema["$defs"][of_verb])
    assert set(VERBS) <= {line.split("`")[1].split()[0] for line in page.splitlines() if line.startswith("| `")}


@pytest.mark.parametrize("words", [["lens", "M", "fog"], ["patch", "M", "a", "b", "c", "d"], ["memory", "M", "0"]])
def test_an_encoder_is_refused_by_its_config_before_its_weights_are_read(encoder: str, words: list[str]) -> None:
    words = [encoder if word == "M" else word for word in words]
    texts = ["--texts", __file__] if words[0] == "memory" else []
    ran = CliRunner().invoke(app, [*words, *texts])
    assert ran.exit_code == 2 and "is a BertModel, which predicts no next token" in ran.stderr


def test_a_misspelt_site_is_refused_before_the_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("fog", encoding="utf-8")
    for verb_name in ("capture", "harvest"):
        ran = CliRunner().invoke(app, [verb_name, "no/model", str(tmp_path / "texts"), "--site", "resid_pots.1"])
        assert ran.exit_code == 2 and "no site is called 'resid_pots" in ran.stderr, ran.stderr


def test_a_model_that_is_nowhere_is_refused_at_once_where_the_hub_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def silent(*_: object, **__: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(arguments.socket, "create_connection", silent)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    began = time.perf_counter()
    with pytest.raises(NotReachable, match="'no/model': there is no such folder, it is not in the cache, and"):
        arguments.check_reachable("no/model")
    assert time.perf_counter() - began < 5
    arguments.check_reachable("landmark")


def warning() -> None:
    warnings.warn("1 of 3 texts is long", stacklevel=2)


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_without_the_place_in_the_code() -> None:
    result = alone(warning)
    assert result.exit_code == 0 and result.stderr == "note: 1 of 3 texts is long\n"


def numbers_of(document: Any) -> Iterator[float]:
    """Every number of a JSON document."""
    if isinstance(document, dict):
        document = [*document.values()]
    if isinstance(document, list):
        for one in document:
            yield from numbers_of(one)
    elif isinstance(document, float | int) and not isinstance(document, bool):
        yield abs(float(document))


@pytest.mark.parametrize(
    "words",
    [
        ["neighbours", "a", "--k", "3"],
        ["patch", "fog over", "fig ever", "a", "c", "--quiet"],
        ["circuit", "fog over", "fig ever", "a", "c", "--steps", "2", "--quiet"],
        ["lens", "fog", "--word", "g"],
        ["memory", "1", "--texts", "TEXTS", "--prompt", "Rome is in", "--answer", "I", "--per-page", "3", "--quiet"],
    ],
    ids=lambda words: words[0],
)
def test_every_decimal_that_a_command_prints_is_in_its_document(words: list[str], folder: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("The fog is in the bay.\nRome is in Italy.\n" * 4, encoding="utf-8")
    given = [words[0], folder, *(str(tmp_path / "texts.txt") if one == "TEXTS" else one for one in words[1:])]
    held = [*numbers_of(json.loads(call(*given, "--json")))]
    for whole, decimals, percent in re.findall(r"(?<![\w.:])(\d+)\.(\d+)(%?)(?![\w.])", call(*given)):
        shown, room = float(f"{whole}.{decimals}"), 0.6 * 10 ** -len(decimals)
        assert any(abs(one * (100 if percent else 1) - shown) <= room for one in held), f"{whole}.{decimals}{percent}"


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (
            lambda at: (at / "no" / "x").read_text("utf-8"),
            r"no/x: there is no such file or folder: correct the path",
        ),
        (lambda at: at.write_text("fog"), "it is a folder, and a file was expected: name a file"),
        (lambda at: (at / "fog" / "x").read_text("utf-8"), "a part of the path is a file, and a folder was expected"),
        (lambda at: at.mkdir(), "it is there already: name another place, or remove it"),
        (lambda at: (at / ("x" * 300)).touch(), "the name is too long for a file: name a shorter one"),
        (lambda at: at.rmdir(), "it is a folder that holds something: name another place, or empty it"),
    ],
)
def test_an_error_of_the_system_names_the_file_what_was_wrong_and_what_to_do(
    act: Callable[[Path], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fog").write_text("fog")
    with pytest.raises(typer.Exit) as ended:
        verb(lambda: act(tmp_path))()
    shown = capsys.readouterr().err
    assert ended.value.exit_code == 2 and re.search(said, shown)
    assert shown.startswith(f"error: {tmp_path}") and "Errno" not in shown
