"""The on-disk format, both ways with SAELens."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooks.errors import DamagedFile, UnknownSite
from hooks.site import resid_post, z
from interp.sae import BatchTopK, JumpReLU, Standard, TopK, load, save

D, LATENTS, K = 12, 40, 4
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def some_sae(seed: int = 0) -> TopK:
    g = torch.Generator().manual_seed(seed)
    sae = TopK(D, LATENTS, K)
    with torch.no_grad():
        for name in NAMES:
            parameter = getattr(sae, name)
            parameter += 0.2 * torch.randn(parameter.shape, generator=g)
        sae.max_activation.copy_(torch.rand(LATENTS, generator=g))
    sae.site, sae.model_name, sae.fingerprint, sae.dataset = resid_post[4], "landmark", "abc", "9 texts"
    return sae


def rows() -> torch.Tensor:
    return torch.randn(30, D, generator=torch.Generator().manual_seed(9))


def test_loading_gives_back_every_weight_and_all_that_is_known(tmp_path: Path) -> None:
    sae, back = some_sae(), load(save(some_sae(), tmp_path))
    assert isinstance(back, TopK) and back.k == K
    for name in (*NAMES, "max_activation"):
        assert torch.equal(getattr(back, name), getattr(sae, name)), name
    for name in ("site", "model_name", "fingerprint", "dataset"):
        assert getattr(back, name) == getattr(sae, name), name


def test_an_autoencoder_on_heads_says_so_to_saelens(tmp_path: Path) -> None:
    sae = some_sae()
    sae.site = z[1]
    save(sae, tmp_path)
    assert json.loads((tmp_path / "cfg.json").read_text())["reshape_activations"] == "hook_z"
    assert load(tmp_path).site == z[1]


def test_a_folder_without_the_files_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere has no cfg\.json"):
        load("nowhere")


def by_others(sae: Any, folder: Path) -> Path:
    """The files as another library writes them, without checksums of ours."""
    save(sae, folder)
    (folder / "checksums.json").unlink()
    return folder


def change(folder: Path, **entries: object) -> Path:
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | entries))
    (folder / "checksums.json").unlink(missing_ok=True)  # as another library would have written it
    return folder


def test_an_unknown_architecture_is_answered_with_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a 'topkk' autoencoder; those read here are 'topk'"):
        load(change(save(some_sae(), tmp_path), architecture="topkk"))


def test_a_normalised_input_that_is_not_known_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="normalises its input by 'layernorm'; those read here are 'layer_norm'"):
        load(change(save(some_sae(), tmp_path), normalize_activations="layernorm"))


def test_a_checkpoints_scale_of_its_activations_becomes_part_of_the_weights(tmp_path: Path) -> None:
    sae, x = some_sae(), torch.randn(9, D, generator=torch.Generator().manual_seed(0))
    save(sae, tmp_path)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.5, "has_whitening": False}))
    scaled = load(tmp_path)
    assert torch.allclose(scaled.encode(x), sae.encode(0.5 * x), atol=1e-5)
    assert torch.allclose(scaled(x), sae(0.5 * x) / 0.5, atol=1e-5)


def test_a_checkpoints_whitening_becomes_part_of_the_weights(tmp_path: Path) -> None:
    sae, x = some_sae(), torch.randn(9, D, generator=torch.Generator().manual_seed(0))
    mean, matrix = torch.linspace(-1, 1, D), torch.eye(D) + 0.1 * torch.ones(D, D)
    save(sae, tmp_path)
    (tmp_path / "activation_scaler.json").write_text(json.dumps({"scaling_factor": None, "has_whitening": True}))
    whitening = {"mean": mean, "matrix": matrix, "inverse_matrix": matrix.inverse().contiguous()}
    save_file(whitening, tmp_path / "activation_whitening.safetensors")
    assert torch.allclose(load(tmp_path).encode(x), sae.encode((x - mean) @ matrix), atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    folder = by_others(some_sae(), tmp_path)
    weights = load_file(folder / "sae_weights.safetensors")
    weights["W_dec"][2, 1] = value
    save_file(weights, folder / "sae_weights.safetensors")
    with pytest.raises(DamagedFile, match="holds NaN or infinity in W_dec"):
        load(folder)


def test_weights_that_are_whole_numbers_or_of_another_shape_are_named(tmp_path: Path) -> None:
    folder = by_others(some_sae(), tmp_path)
    weights = load_file(folder / "sae_weights.safetensors")
    save_file(weights | {"b_enc": weights["b_enc"].int()}, folder / "sae_weights.safetensors")
    with pytest.raises(DamagedFile, match="holds b_enc as int32: weights are floating-point numbers"):
        load(folder)
    save_file(weights | {"b_enc": weights["b_enc"][1:].clone()}, folder / "sae_weights.safetensors")
    with pytest.raises(DamagedFile, match=r"holds b_enc of shape \(\d+,\), and the other weights need"):
        load(folder)


def test_largest_activations_of_another_number_than_the_latents_are_named(tmp_path: Path) -> None:
    folder = by_others(some_sae(), tmp_path)
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"]["max_activation"] = [1.0, 2.0]
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(DamagedFile, match="has 2 largest activations for"):
        load(folder)


def test_a_site_can_be_given_where_the_files_name_is_no_site_here(tmp_path: Path) -> None:
    folder = by_others(some_sae(), tmp_path)
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"] |= {"sites": [], "hook_name": "blocks.2.attn.hook_result"}
    (folder / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(UnknownSite, match="was trained at 'blocks.2.attn.hook_result'.*give what it is here by site="):
        load(folder)
    assert load(folder, site=resid_post[3]).site == resid_post[3]


def test_an_older_format_is_refused_rather_than_read_as_relu(tmp_path: Path) -> None:
    folder = change(save(Standard(D, LATENTS), tmp_path), activation_fn_str="topk")
    with pytest.raises(ValueError, match="is of an older format, with activation 'topk'"):
        load(folder)


def test_weights_that_are_not_the_architectures_are_named(tmp_path: Path) -> None:
    folder = save(BatchTopK(D, LATENTS, k=3), tmp_path)
    (folder / "checksums.json").unlink()
    weights = load_file(folder / "sae_weights.safetensors")
    threshold = weights.pop("threshold")
    save_file(weights, folder / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=r"does not hold the weights of a 'jumprelu' autoencoder: see \['threshold'\]"):
        load(folder)
    save_file(weights | {"threshold": threshold, "W_more": threshold.clone()}, folder / "sae_weights.safetensors")
    with pytest.raises(ValueError, match=r"see \['W_more'\]"):
        load(folder)


def test_a_file_without_a_setting_that_its_architecture_needs_is_refused(tmp_path: Path) -> None:
    folder = change(save(some_sae(), tmp_path), metadata={}, activation_fn_kwargs={"k": K})
    config = json.loads((folder / "cfg.json").read_text())
    del config["k"]
    (folder / "cfg.json").write_text(json.dumps(config))
    (folder / "checksums.json").unlink(missing_ok=True)  # as another library would have written it
    with pytest.raises(ValueError, match="does not say the 'k' of its 'topk' autoencoder, so it is of an older format"):
        load(folder)


def test_a_stored_threshold_below_0_lets_every_positive_latent_pass_and_no_other(tmp_path: Path) -> None:
    sae = JumpReLU(D, LATENTS)
    with torch.no_grad():
        sae.threshold.copy_(torch.linspace(-0.5, 0.5, LATENTS))
    back = load(save(sae, tmp_path))
    z = rows() @ sae.W_enc + sae.b_enc
    assert torch.equal(back.encode(rows()), z.relu() * (z > sae.threshold))
    assert bool(((z < 0) & (z > sae.threshold)).any())


def test_one_flipped_bit_of_either_file_is_found_and_the_file_named(tmp_path: Path) -> None:
    folder = save(some_sae(), tmp_path)
    for name in ("cfg.json", "sae_weights.safetensors", "checksums.json"):
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 40)):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << place % 8
            (folder / name).write_bytes(flipped)
            with pytest.raises(DamagedFile, match=r"cfg\.json|sae_weights\.safetensors|checksums\.json"):
                load(folder)
        (folder / name).write_bytes(whole)
