"""Transcoders of circuit-tracer and Gemma Scope: the functions those libraries compute, written out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hooks.errors import DamagedFile, InvalidArgument, MissingFile, UnknownSite
from hooks.site import mlp_in, mlp_out
from interp.sae import load_gemma_scope, load_transcoder, load_transcoders

D, LATENTS = 6, 20


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def own_names() -> dict[str, Tensor]:
    """As circuit-tracer keeps them: an encoder row for each latent."""
    w = {"W_enc": drawn(LATENTS, D, seed=1), "W_dec": drawn(LATENTS, D, seed=2)}
    return w | {"b_enc": drawn(LATENTS, seed=3), "b_dec": drawn(D, seed=4)}


def x() -> Tensor:
    return drawn(30, D, seed=9)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("jumps", [False, True])
def test_a_transcoder_of_circuit_tracer_is_read_as_it_computes(jumps: bool, skip: bool, tmp_path: Path) -> None:
    w = own_names()
    w |= {"activation_function.threshold": drawn(LATENTS, seed=5)} if jumps else {}
    w |= {"W_skip": drawn(D, D, seed=6)} if skip else {}
    save_file(w, tmp_path / "layer_3.safetensors")
    sae = load_transcoder(tmp_path / "layer_3.safetensors", sites=(mlp_in[3], mlp_out[3]))
    z = x() @ w["W_enc"].T + w["b_enc"]
    f = z * (z > w["activation_function.threshold"]) if jumps else z.relu()  # a threshold may lie below 0
    assert torch.allclose(sae.encode(x()), f, atol=1e-5)
    path = x() @ w["W_skip"].T if skip else 0
    assert torch.allclose(sae(x()), f @ w["W_dec"] + w["b_dec"] + path, atol=1e-5)
    assert sae.sites == (mlp_in[3], mlp_out[3])


def test_files_of_gemma_scope_are_read_as_they_compute(tmp_path: Path) -> None:
    w = own_names() | {"threshold": drawn(LATENTS, seed=5).abs()}
    w["W_enc"] = w["W_enc"].T.contiguous()
    np.savez(tmp_path / "params.npz", **{name: tensor.numpy() for name, tensor in w.items()})
    z = x() @ w["W_enc"] + w["b_enc"]
    f = z * (z > w["threshold"])
    transcoder, autoencoder = load_transcoder(tmp_path / "params.npz"), load_gemma_scope(tmp_path / "params.npz")
    for sae in (transcoder, autoencoder):
        assert torch.allclose(sae.encode(x()), f, atol=1e-5)
        assert torch.allclose(sae(x()), f @ w["W_dec"] + w["b_dec"], atol=1e-5)
    assert (transcoder.transcodes, autoencoder.transcodes) == (True, False)
    second = {name.lower(): tensor for name, tensor in w.items()} | {"affine_skip_connection": drawn(D, D, seed=6)}
    save_file(second, tmp_path / "params.safetensors")
    found = load_transcoder(tmp_path / "params.safetensors")(x())
    assert torch.allclose(found, f @ w["W_dec"] + w["b_dec"] + x() @ second["affine_skip_connection"], atol=1e-5)


def test_a_folder_gives_its_layers_in_order_with_their_sites(tmp_path: Path) -> None:
    for layer in range(11):
        save_file(own_names() | {"b_dec": torch.full((D,), float(layer))}, tmp_path / f"layer_{layer}.safetensors")
    (tmp_path / "config.yaml").write_text("feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n")
    found = load_transcoders(tmp_path)
    assert [sae.b_dec[0].item() for sae in found] == [float(layer) for layer in range(11)]
    assert found[10].sites == (mlp_in[10], mlp_out[10])
    (tmp_path / "config.yaml").write_text("feature_input_hook: hook_nowhere\n")
    with pytest.raises(UnknownSite, match="'hook_nowhere' of config.yaml is no site here"):
        load_transcoders(tmp_path)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no file"):
        load_transcoder(tmp_path / "layer_0.safetensors")
    with pytest.raises(MissingFile, match="has no file of layer 0"):
        load_transcoders(tmp_path)
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DamagedFile, match="cannot be read"):
        load_gemma_scope(tmp_path / "torn.npz")
    save_file({"W_enc": drawn(LATENTS, D)}, tmp_path / "layer_0.safetensors")
    with pytest.raises(DamagedFile, match="and not W_dec, b_dec, b_enc"):
        load_transcoder(tmp_path / "layer_0.safetensors")
    save_file({"W_enc_0": drawn(LATENTS, D)}, tmp_path / "W_enc_0.safetensors")
    with pytest.raises(InvalidArgument, match="holds a cross-layer transcoder"):
        load_transcoders(tmp_path)
