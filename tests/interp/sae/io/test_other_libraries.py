"""Folders of other libraries and of the hub: the formulas those libraries compute, written out."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hooks.site import mlp_in, mlp_out, resid_post
from interp.sae import TopK, load_dictionary_learning, load_sparsify, pull, push

D, F, K = 6, 20, 4
REAL = Path(__file__).resolve().parents[5] / "shared" / "models" / "sae-orphans"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def x() -> Tensor:
    return drawn(30, D, seed=9)


def kept(f: Tensor, k: int) -> Tensor:
    top = f.topk(k, dim=1)
    return torch.zeros_like(f).scatter(1, top.indices, top.values)


def linear() -> dict[str, Tensor]:
    return {
        "encoder.weight": drawn(F, D, seed=1),
        "encoder.bias": drawn(F, seed=2),
        "decoder.weight": drawn(D, F, seed=3),
    }


def saved(folder: Path, stored: dict[str, Tensor], **trainer: object) -> Path:
    torch.save(stored, folder / "ae.pt")
    config = {"trainer": {"layer": 3, "lm_name": "m", "submodule_name": "resid_post_layer_3", **trainer}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_an_autoencoder_of_dictionary_learning_reads_x_less_its_bias_and_has_a_decoder_of_unit_rows(
    tmp_path: Path,
) -> None:
    w = linear() | {"bias": drawn(D, seed=4)}
    sae = load_dictionary_learning(saved(tmp_path, w, dict_class="AutoEncoder"))
    f = ((x() - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    assert torch.allclose(sae.encode(x()), f * w["decoder.weight"].norm(dim=0), atol=1e-5)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(F))
    assert torch.allclose(sae(x()), f @ w["decoder.weight"].T + w["bias"], atol=1e-5)
    assert (sae.site, sae.model_name) == (resid_post[3], "m")


def test_the_april_form_of_dictionary_learning_reads_x_as_it_is(tmp_path: Path) -> None:
    w = linear() | {"decoder.bias": drawn(D, seed=4)}
    sae = load_dictionary_learning(saved(tmp_path, w, dict_class="AutoEncoderNew", submodule_name="mlp_out_3"))
    f = (x() @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    assert torch.allclose(sae.encode(x()), f, atol=1e-5)
    assert torch.allclose(sae(x()), f @ w["decoder.weight"].T + w["decoder.bias"], atol=1e-5)
    assert sae.site is None


def test_a_gated_one_of_dictionary_learning_has_the_latents_of_its_encoder(tmp_path: Path) -> None:
    w = {name: linear()[name] for name in ("encoder.weight", "decoder.weight")}
    w |= {"decoder_bias": drawn(D, seed=4), "gate_bias": drawn(F, seed=5), "mag_bias": drawn(F, seed=6)}
    w |= {"r_mag": 0.3 * drawn(F, seed=7)}
    sae = load_dictionary_learning(saved(tmp_path, w, dict_class="GatedAutoEncoder"))
    pi = (x() - w["decoder_bias"]) @ w["encoder.weight"].T
    f = (pi + w["gate_bias"] > 0) * (w["r_mag"].exp() * pi + w["mag_bias"]).relu()
    assert torch.allclose(sae.encode(x()), f, atol=1e-5)
    assert torch.allclose(sae(x()), f @ w["decoder.weight"].T + w["decoder_bias"], atol=1e-5)


def test_a_jumprelu_of_dictionary_learning_has_the_latents_of_its_encoder(tmp_path: Path) -> None:
    w = {"W_enc": drawn(D, F, seed=1), "b_enc": drawn(F, seed=2), "W_dec": drawn(F, D, seed=3)}
    w |= {"b_dec": drawn(D, seed=4), "threshold": drawn(F, seed=5)}
    sae = load_dictionary_learning(saved(tmp_path, w, dict_class="JumpReluAutoEncoder"))
    z = x() @ w["W_enc"] + w["b_enc"]
    f = (z * (z > w["threshold"])).relu()
    assert torch.allclose(sae.encode(x()), f, atol=1e-5)
    assert torch.allclose(sae(x()), f @ w["W_dec"] + w["b_dec"], atol=1e-5)


def test_the_k_sparse_ones_of_dictionary_learning_select_as_it_does(tmp_path: Path) -> None:
    w = linear() | {"b_dec": drawn(D, seed=4), "threshold": torch.tensor(0.8), "k": torch.tensor(K)}
    z = ((x() - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    top = load_dictionary_learning(saved(tmp_path, w, dict_class="AutoEncoderTopK", k=K))
    assert torch.allclose(top.encode(x()), kept(z, K), atol=1e-5)
    batch = load_dictionary_learning(saved(tmp_path, w, dict_class="BatchTopKSAE", k=K))
    assert torch.allclose(batch.encode(x()), z * (z > 0.8), atol=1e-5)
    assert torch.allclose(batch(x()), (z * (z > 0.8)) @ w["decoder.weight"].T + w["b_dec"], atol=1e-5)
    nested = {"W_enc": w["encoder.weight"].T, "b_enc": w["encoder.bias"], "W_dec": w["decoder.weight"].T}
    nested |= {"b_dec": w["b_dec"], "threshold": w["threshold"], "group_sizes": torch.tensor([5, 15])}
    matryoshka = load_dictionary_learning(saved(tmp_path, nested, dict_class="MatryoshkaBatchTopKSAE", k=K))
    assert torch.allclose(matryoshka.encode(x()), z * (z > 0.8), atol=1e-5)
    assert matryoshka.settings()["widths"] == [5, 20]


def test_an_autoencoder_of_sparsify_keeps_the_k_largest_after_the_relu(tmp_path: Path) -> None:
    folder = tmp_path / "layers.5"
    folder.mkdir()
    w = {"encoder.weight": drawn(F, D, seed=1), "encoder.bias": drawn(F, seed=2)}
    w |= {"W_dec": drawn(F, D, seed=3), "b_dec": drawn(D, seed=4)}
    save_file(w, folder / "sae.safetensors")
    config = {"k": K, "d_in": D, "activation": "topk", "transcode": False, "skip_connection": False}
    (folder / "cfg.json").write_text(json.dumps(config))
    sae = load_sparsify(folder)
    f = kept(((x() - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu(), K)
    assert torch.allclose(sae.encode(x()), f, atol=1e-5)
    assert torch.allclose(sae(x()), f @ w["W_dec"] + w["b_dec"], atol=1e-5)
    assert sae.site == resid_post[5]
    (folder / "cfg.json").write_text(json.dumps(config | {"activation": "relu"}))
    with pytest.raises(ValueError, match="holds a coder with activation 'relu'; of sparsify's, those read here"):
        load_sparsify(folder)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("transcodes", [False, True])
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
def test_coders_of_sparsify_are_read_with_their_groups_and_linear_path(
    activation: str, transcodes: bool, skip: bool, tmp_path: Path
) -> None:
    w = {"encoder.weight": drawn(F, D, seed=1), "encoder.bias": drawn(F, seed=2)}
    w |= {"W_dec": drawn(F, D, seed=3), "b_dec": drawn(D, seed=4)} | ({"W_skip": drawn(D, D, seed=5)} if skip else {})
    (folder := tmp_path / "layers.2.mlp").mkdir()
    save_file(w, folder / "sae.safetensors")
    config = {"k": K, "activation": activation, "transcode": transcodes, "skip_connection": skip}
    (folder / "cfg.json").write_text(json.dumps(config))
    sae = load_sparsify(folder)
    z = ((x() if transcodes else x() - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    groups = z.unflatten(1, (K, F // K))
    largest = groups == groups.amax(2, keepdim=True)
    f = kept(z, K) if activation == "topk" else z * largest.flatten(1)
    assert torch.allclose(sae.encode(x()), f, atol=1e-5)
    path = x() @ w["W_skip"].T if skip else 0
    assert torch.allclose(sae(x()), f @ w["W_dec"] + w["b_dec"] + path, atol=1e-5)
    assert sae.sites == ((mlp_in[2], mlp_out[2]) if transcodes else (mlp_out[2],))


def test_folders_without_their_files_or_of_other_classes_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config\.json: it is not a folder that this library saved"):
        load_dictionary_learning(tmp_path)
    with pytest.raises(ValueError, match="holds a 'BatchTopK'; those read here are 'BatchTopKSAE'"):
        load_dictionary_learning(saved(tmp_path, linear(), dict_class="BatchTopK"))


@pytest.mark.skipif(not REAL.is_dir(), reason="the published weights are not here")
@pytest.mark.parametrize("name", ["1semele_ae1", "1semele_ae2"])
def test_a_published_autoencoder_of_dictionary_learning_is_read(name: str, tmp_path: Path) -> None:
    w = load_file(REAL / f"{name}.safetensors")
    sae = load_dictionary_learning(saved(tmp_path, w, dict_class="AutoEncoder", layer=None))
    rows = drawn(50, len(w["bias"]))
    f = ((rows - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    assert torch.allclose(sae(rows), f @ w["decoder.weight"].T + w["bias"], atol=1e-4)


@pytest.mark.skipif(not REAL.is_dir(), reason="the published weights are not here")
@pytest.mark.parametrize("latents", [128, 512, 1024])
def test_published_weights_of_a_topk_autoencoder_are_read_in_the_words_of_sparsify(
    latents: int, tmp_path: Path
) -> None:
    w = load_file(REAL / f"prestoj_sae_{latents}_4.safetensors")
    names = {"encoder.bias": "encoder_bias", "W_dec": "decoder_weights", "b_dec": "pre_bias"}
    said = {ours: w[theirs] for ours, theirs in names.items()} | {"encoder.weight": w["encoder_weights"].T.contiguous()}
    save_file(said, tmp_path / "sae.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({"k": 4, "d_in": 64, "activation": "topk"}))
    rows = drawn(50, 64)
    f = kept(((rows - w["pre_bias"]) @ w["encoder_weights"] + w["encoder_bias"]).relu(), 4)
    assert torch.allclose(load_sparsify(tmp_path)(rows), f @ w["decoder_weights"] + w["pre_bias"], atol=1e-4)


def test_what_is_pushed_to_the_hub_is_pulled_from_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub, made = tmp_path / "hub", []

    def upload_folder(*, repo_id: str, folder_path: Path, path_in_repo: str, allow_patterns: list[str]) -> object:
        target = hub / repo_id / path_in_repo
        target.mkdir(parents=True)
        for name in allow_patterns:
            shutil.copy(folder_path / name, target / name)
        return SimpleNamespace(commit_url=f"at/{repo_id}")

    def create_repo(repository: str, *, exist_ok: bool) -> None:
        made.append((repository, exist_ok))

    api = SimpleNamespace(create_repo=create_repo, upload_folder=upload_folder)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, **_: hub / repository)
    sae = TopK(D, F, K, seed=4)
    assert push(sae, "me/saes", "resid_post.4", into=tmp_path / "here") == "at/me/saes"
    assert made == [("me/saes", True)]
    assert torch.equal(pull("me/saes", "resid_post.4")(x()), sae(x()))
    with pytest.raises(FileNotFoundError, match=r"has no cfg\.json"):
        pull("me/saes", "resid_post.9")
