"""`interp train-sae` trains what the functions train, from arguments or a file of them."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from hooks import Model, harvest, load
from hooks.site import mlp_in, mlp_out, resid_post
from interp.commands.app import app
from interp.sae import BatchTopK, Crosscoder, CrossLayerTranscoder, Standard, TopK, Transcoder, activations_of, train
from interp.sae import load as load_sae

LINES = [f"fog {number} over the bay" for number in range(12)]
SHORT = ["--tokens", "600", "--batch-size", "50", "--latents", "48", "--quiet"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return str(path)


def call(*words: str | Path) -> str:
    result = CliRunner().invoke(app, ["train-sae", *map(str, words)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*words: str | Path) -> str:
    result = CliRunner().invoke(app, ["train-sae", *map(str, words)])
    assert result.exit_code == 2, (result.output, result.exception)
    return " ".join(result.output.split())


def test_arguments_a_yaml_file_and_a_json_file_train_the_same_weights(folder: str, texts: str, tmp_path: Path) -> None:
    arguments = {"model": folder, "texts": texts, "site": "resid_post.1", "latents": 48, "k": 4, "lr": 0.002}
    arguments |= {"tokens": 600, "batch-size": 50, "quiet": True, "out": str(tmp_path / "yaml")}
    (tmp_path / "run.yaml").write_text("\n".join(f"{name}: {value}" for name, value in arguments.items()))
    (tmp_path / "run.json").write_text(json.dumps(arguments | {"k": [7], "setting": {"k_aux": 3}}))
    call(folder, texts, "--site", "resid_post.1", "--k", "4", "--lr", "0.002", "--out", tmp_path / "words", *SHORT)
    call("--config", tmp_path / "run.yaml")
    call("--config", tmp_path / "run.json", "--k", "4", "--out", tmp_path / "json", "--setting", "k_aux=16")
    sae = TopK(32, 48, k=4)
    source = activations_of(load(folder), LINES, resid_post[1])
    train(sae, source, tokens=600, batch_size=50, lr=0.002, progress=False)
    for form in ("words", "yaml", "json"):
        assert torch.equal(load_sae(tmp_path / form).W_dec, sae.W_dec), form


def test_sites_sizes_sparsities_and_seeds_are_multiplied_and_each_has_its_folder(
    folder: str, texts: str, tmp_path: Path
) -> None:
    log = tmp_path / "curve.csv"
    several = ["--site", "resid_post.1", "--site", "resid_post.0", "--k", "4", "--k", "8"]
    said = call(folder, texts, *several, "--architecture", "batchtopk", "--out", tmp_path / "all", "--log", log, *SHORT)
    names = {f"resid_post.{layer}-k{k}" for layer in (0, 1) for k in (4, 8)}
    assert {folder.name for folder in (tmp_path / "all").iterdir()} == names
    assert said.count("explained variance") == 4
    sae = load_sae(tmp_path / "all" / "resid_post.0-k8")
    assert isinstance(sae, BatchTopK) and sae.k == 8 and sae.site == resid_post[0]
    assert {line.split(",")[0] for line in log.read_text().splitlines()[1:]} == names


def test_a_store_a_transcoder_a_crosscoder_and_a_normalisation(gpt2: Model, tmp_path: Path) -> None:
    store = tmp_path / "store"
    harvest(gpt2, LINES, [mlp_in[1], mlp_out[1], resid_post[1]], store)
    pair = ["--site", "mlp_in.1", "--site", "mlp_out.1"]
    options = ["--store", store, *SHORT, "--checkpoint"]
    call(*options, tmp_path / "a", *pair, "--architecture", "transcoder", "--out", tmp_path / "t")
    call(*options, tmp_path / "b", *pair, "--architecture", "crosscoder", "--out", tmp_path / "c")
    layers = ["--architecture", "cross_layer_transcoder", "--k", "4", "--normalise", "rms"]
    call(*options, tmp_path / "e", *pair, *layers, "--out", tmp_path / "l")
    clt = load_sae(tmp_path / "l")
    assert isinstance(clt, CrossLayerTranscoder) and clt.n_layers == 1 and clt.sites == (mlp_in[1], mlp_out[1])
    one = ["--site", "resid_post.1", "--architecture", "standard", "--normalise", "expected-norm"]
    call(*options, tmp_path / "d", *one, "--setting", "coefficient=2", "--resample", "0.5", "--out", tmp_path / "s")
    transcoder, crosscoder, standard = (load_sae(tmp_path / name) for name in "tcs")
    assert isinstance(transcoder, Transcoder) and transcoder.sites == (mlp_in[1], mlp_out[1])
    assert isinstance(crosscoder, Crosscoder) and crosscoder.n_layers == 2 and crosscoder.sites == transcoder.sites
    assert isinstance(standard, Standard) and standard.coefficient == 2
    assert not torch.allclose(standard.W_enc, standard.W_dec.T, atol=1e-3)  # the scale is folded in
    assert (tmp_path / "a" / "latest.json").exists()
    harvest(gpt2, LINES, [resid_post[1]], tmp_path / "one")
    call("--store", tmp_path / "one", *SHORT, "--out", tmp_path / "alone")  # its one site need not be named
    assert load_sae(tmp_path / "alone").site == resid_post[1]
    assert "the store holds mlp_in.1, mlp_out.1, resid_post.1" in refused("--store", store, *SHORT)


MISTAKES = [
    (["--archtecture", "topk"], "No such option"),
    (["--architecture", "topkk"], "no architecture is called 'topkk'; did you mean 'topk'"),
    (["--setting", "coeficient=5"], "topk has no setting 'coeficient'; did you mean 'aux_coefficient'"),
    (["--setting", "k"], "write NAME=VALUE, such as coefficient=5"),
    (["--architecture", "standard", "--k", "3"], "standard has no k; its settings are coefficient: see --setting"),
    (["--setting", "d_in=5"], "--setting is 'd_in=5', and d_in is what --site says: give it there"),
    (["--setting", "d_sae=5"], "d_sae is what --latents says"),
    (["--setting", "seed=3"], "seed is what --seed says"),
    (["--architecture", "crosscoder", "--setting", "n_layers=3"], "n_layers is what --site says"),
    (["--architecture", "transcoder", "--setting", "d_out=3"], "d_out is what --site says"),
    (["--k", "8", "--k", "16", "--setting", "k=4"], "k is given by --k as [8, 16] and by --setting as 4: give it by"),
    (["--architecture", "matryoshka_batchtopk"], "needs widths, of type Sequence[int]: give it as --setting widths="),
    (
        ["--architecture", "matryoshka_batchtopk", "--setting", "widths=[3,true]"],
        "widths of matryoshka_batchtopk is of",
    ),
    (["--architecture", "gated", "--setting", "coefficient=high"], "coefficient of gated is of type float | int"),
    (["--setting", "k=4.5"], "k is 4.5"),
    (["--setting", "k=true"], "--setting is 'k=true': the k of topk is of type float | int"),
    (["--setting", "k_aux=few"], "the k_aux of topk is of type int | None"),
    (["--architecture", "cross_layer_transcoder"], "a cross_layer_transcoder reads as many sites as it writes"),
    (["--architecture", "transcoder"], "a transcoder reads one site and writes another: give --site twice"),
    (["--log", "curve.txt"], "write FILE.csv, FILE.jsonl, tensorboard:FOLDER or wandb:PROJECT"),
    (["--normalise", "whiten"], "no normalisation is called 'whiten'; did you mean 'whitened'"),
    (["--shape", "cosin"], "did you mean 'cosine'"),
    (["--tokens", "many"], "Invalid value for '--tokens'"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_mistakes_end_with_exit_code_2_and_the_fix(folder: str, texts: str, words: list[str], message: str) -> None:
    assert message in refused(folder, texts, "--site", "resid_post.1", *words)


def test_no_data_no_site_and_wrong_files_are_reported(folder: str, texts: str, tmp_path: Path) -> None:
    assert "either MODEL and TEXTS, or --store FOLDER" in refused(folder, "--site", "resid_post.1")
    assert "say where to read: --site resid_post.4" in refused(folder, texts)
    files = {
        "typo.yaml": ("batchsize: 3", "has 'batchsize', which the command does not know; did you mean 'batch_size'"),
        "list.yaml": ("k: 3\ntokens: [1, 2]", "line 2 of {path}, tokens, is [1, 2]: it should be a valid integer"),
        "zero.toml": ("k = 3\n\ntokens = 0", "line 3 of {path}, tokens, is 0: it should be greater than 0"),
        "twice.json": (
            '{"batch-size": 1,\n"batch_size": 2}',
            "line 2 of {path} gives 'batch_size' again, after line 1",
        ),
        "twice.yaml": ("k: 1\ntokens: 5\nk: 2", "line 3 of {path} gives 'k' again, after line 1: give it once"),
        "nested.yaml": ("setting:\n  k: 1\n  k: 2", "line 3 of {path} gives 'k' again"),
        "nested.json": ('{"setting": {"k": 1,\n"k": 2}}', "line 2 of {path} gives 'k' again"),
        "twice.toml": ("k = 1\nk = 2\n", "is not TOML, or gives a name twice: Cannot overwrite a value (at line 2"),
        "typo.toml": ("k = 1\nbatchsize = 2", "line 2 of {path} has 'batchsize', which the command does not know"),
        "torn.json": ("{", "is not JSON"),
        "torn.yaml": ("a: [", "is not YAML"),
        "words.yaml": ("fog", "holds a str, and arguments are a mapping"),
        "run.ini": ("", "ends in '.ini', and arguments are read from .yaml, .yml, .json or .toml"),
    }
    for name, (text, message) in files.items():
        (tmp_path / name).write_text(text)
        said = refused("--config", tmp_path / name)
        assert (
            " ".join(message.format(path=tmp_path / name).split()) in said if "{path}" in message else message in said
        ), name
    assert "there is no file" in refused("--config", tmp_path / "nowhere.yaml")


@pytest.mark.filterwarnings("default")
def test_a_layer_counted_from_the_last_is_saved_by_its_number_and_long_lines_are_read_in_rows(
    folder: str, tmp_path: Path
) -> None:
    (texts := tmp_path / "texts.txt").write_text("\n".join(["fog over the bay " * 20, "a ship", "the bridge is red"]))
    words = ["--site", "resid_post[-1]", "--latents", "16", "--k", "2", "--tokens", "1000", "--batch-size", "64"]
    words += ["--out", str(tmp_path / "sae"), "--quiet"]
    result = CliRunner().invoke(app, ["train-sae", folder, str(texts), *words])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "note: 1 of 3 texts are longer than the context of 96 tokens and are read as 4 rows" in result.stderr
    assert str(load_sae(tmp_path / "sae").site) == "resid_post.2"
