"""`interp harvest` makes the store that `harvest` makes, says its plan first, and goes on where it ended."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from hooks import Images, load
from hooks.site import conv_act, resid_post
from hooks.store import ActivationStore, harvest, packed
from interp.commands.app import app
from interp.postcard import draw, load_net, scenes

LINES = ["fog over the bay", "the fog is cold", "", "grey fog"]


@pytest.fixture(scope="module")
def model_folder(folder: str) -> Path:
    path = Path(folder)
    (path / "texts.txt").write_text("\n".join(LINES), encoding="utf-8")
    return path


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["harvest", *map(str, words)])


def test_the_command_makes_the_store_of_the_function(model_folder: Path, tmp_path: Path) -> None:
    options = ("--site", "resid_post.1", "--context", "8", "--device", "cpu", "--out", tmp_path / "said", "--quiet")
    result = call(model_folder, model_folder / "texts.txt", *options)
    assert result.exit_code == 0, (result.output, result.exception)
    made = harvest(load(str(model_folder)), LINES, resid_post[1], tmp_path / "made", packing=packed(8))
    said = ActivationStore(tmp_path / "said")
    assert torch.equal(said[:][resid_post[1]], made[:][resid_post[1]])
    plan, summary, *_ = result.stdout.splitlines()
    tokens = sum(map(len, LINES))
    assert plan.startswith(f"to {tmp_path / 'said'}: about {tokens} tokens of 4 documents")
    assert f"{tokens} tokens" in summary
    again = call(model_folder, model_folder / "texts.txt", *options)
    assert f"about {tokens} tokens ({tokens} of them there already)" in again.output


def test_fewer_documents_and_one_to_a_row(model_folder: Path, tmp_path: Path) -> None:
    options = ("--separate", "--documents", "2", "--dtype", "bfloat16", "--device", "cpu", "--quiet")
    result = call(
        model_folder, model_folder / "texts.txt", "--site", "resid_post.1", "--out", tmp_path / "two", *options
    )
    assert result.exit_code == 0, (result.output, result.exception)
    store = ActivationStore(tmp_path / "two")
    assert store.documents.tolist() == [0, 16, 31]
    assert store.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--dtype", "float61"], "no dtype is called 'float61'; did you mean 'float16'"),
        (["--site", "resid_pots.1"], "no site is called 'resid_pots.1'"),
    ],
)
def test_a_mistake_is_one_sentence(model_folder: Path, change: list[str], text: str, tmp_path: Path) -> None:
    result = call(model_folder, model_folder / "texts.txt", "--site", "resid_post.1", "--out", tmp_path / "no", *change)
    assert result.exit_code == 2
    assert text in result.stderr and "\n" not in result.stderr.strip()
    assert not (tmp_path / "no").exists()


def test_a_folder_of_pictures_is_harvested_by_a_bundled_net(tmp_path: Path) -> None:
    pictures = (draw(scenes("test", 5)).images().pixels * 255).round().byte()
    (tmp_path / "drawn").mkdir()
    for i, one in enumerate(pictures):
        Image.fromarray(one.movedim(0, -1).numpy()).save(tmp_path / "drawn" / f"{i}.png")
    made = harvest(load_net("convnet"), Images(pictures.float() / 255), conv_act[2], tmp_path / "made")  # type: ignore[arg-type]
    for data in ("drawn", "drawn/*.png"):
        options = ("--site", "conv_act.2", "--device", "cpu", "--out", tmp_path / f"said {len(data)}", "--quiet")
        result = call("convnet", tmp_path / data, *options)
        assert result.exit_code == 0, (result.output, result.exception)
        assert "5 documents" in result.output
        said = ActivationStore(tmp_path / f"said {len(data)}")
        assert torch.equal(said[:][conv_act[2]], made[:][conv_act[2]])
    refused = call("convnet", tmp_path / "drawn", "--site", "conv_act.2", "--separate", "--out", tmp_path / "no")
    assert refused.exit_code != 0 and "--context and --separate lay out texts" in refused.output
