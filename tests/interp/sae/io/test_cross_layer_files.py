"""Peers' files of cross-layer transcoders: read as written, every layer kept, each linear path as it is meant."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooks.errors import DamagedFile, InvalidArgument, MissingFile
from interp.sae import (
    CrossLayerTranscoder,
    load_cross_layer,
    load_gemma_scope_layers,
    load_transcoder,
    save_cross_layer,
)

L, D, F = 3, 6, 5


def made(**settings):
    clt = CrossLayerTranscoder(D, L * F, L, initial_threshold=0.3, **settings)
    with torch.no_grad():
        for p in (clt.b_enc, clt.b_dec, *(() if clt.W_skip is None else (clt.W_skip,))):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return clt


def x(n=20):
    return torch.randn(n, L, D, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("reach", [None, 1])
def test_what_is_written_is_read_back_the_same(tmp_path, reach):
    clt = made(reach=reach)
    again = load_cross_layer(save_cross_layer(clt, tmp_path / "clt"))
    assert torch.equal(again.encode(x()), clt.encode(x()))
    assert torch.allclose(again(x()), clt(x()), atol=1e-6)
    decoders = load_file(tmp_path / "clt" / "W_dec_1.safetensors")["W_dec_1"]
    assert decoders.shape == (F, L - 1, D)


def test_gemma_scopes_last_layer_is_kept_and_its_linear_path_is_not_transposed(tmp_path):
    clt, paths = made(skip=True), []
    for i, decoders in enumerate(clt.decoders()):
        whole = torch.cat([torch.full((F, i, D), 7.0), decoders.detach()], dim=1)  # those to earlier layers are noise
        layer = {
            "w_enc": clt.W_enc[i].T.contiguous(),
            "w_dec": whole,
            "b_enc": clt.b_enc[i],
            "b_dec": clt.b_dec[i],
            "threshold": clt.threshold[i],
            "affine_skip_connection": clt.W_skip[i],
        }
        save_file({name: tensor.detach().clone() for name, tensor in layer.items()}, tmp_path / f"{i}.safetensors")
        paths.append(tmp_path / f"{i}.safetensors")
    again = load_gemma_scope_layers(paths)
    assert again.n_layers == L
    assert torch.allclose(again(x()), clt(x()), atol=1e-6)


def test_a_single_layer_is_a_cross_layer_transcoder_too(tmp_path):
    clt = CrossLayerTranscoder(D, F, 1, initial_threshold=0.3)
    again = load_cross_layer(save_cross_layer(clt, tmp_path / "clt"))
    assert again.n_layers == 1
    assert torch.equal(again.encode(x()[:, :1]), clt.encode(x()[:, :1]))


def test_a_transcoder_of_one_layer_has_its_linear_path_transposed(tmp_path):
    skip = torch.randn(D, D, generator=torch.Generator().manual_seed(3))
    weights = {"W_enc": torch.zeros(F, D), "W_dec": torch.zeros(F, D), "b_enc": torch.zeros(F), "b_dec": torch.zeros(D)}
    save_file({**weights, "W_skip": skip}, tmp_path / "layer_0.safetensors")
    one = load_transcoder(tmp_path / "layer_0.safetensors")
    assert torch.allclose(one(x()[:, 0]), x()[:, 0] @ skip.T, atol=1e-6)


def test_torn_and_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFile, match="two files for each layer"):
        load_cross_layer(tmp_path)
    folder = save_cross_layer(made(), tmp_path / "clt")
    (folder / "W_dec_1.safetensors").unlink()
    with pytest.raises(MissingFile, match=r"W_dec_1\.safetensors"):
        load_cross_layer(folder)
    save_cross_layer(made(), folder)
    save_file({"W_dec_1": torch.zeros(F, 5, D)}, folder / "W_dec_1.safetensors")
    with pytest.raises(DamagedFile, match=r"layer 1 of 3 holds W_dec of shape \(5, 5, 6\)"):
        load_cross_layer(folder)
    with pytest.raises(InvalidArgument, match="no place for a linear path"):
        save_cross_layer(made(skip=True), folder)
