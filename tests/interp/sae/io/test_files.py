"""The on-disk format, both ways with SAELens."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def change(folder: Path, **entries: object) -> Path:
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | entries))
    (folder / "checksums.json").unlink(missing_ok=True)  # as another library would have written it
    return folder


def test_an_unknown_architecture_is_told_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a 'topkk' autoencoder; those read here are 'topk'"):
        load(change(save(some_sae(), tmp_path), architecture="topkk"))


def test_a_normalised_input_is_refused_rather_than_ignored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="normalises its input by 'layer_norm'; fold that into the weights"):
        load(change(save(some_sae(), tmp_path), normalize_activations="layer_norm"))


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
