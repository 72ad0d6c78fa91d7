"""Feed-forward layers replaced by a cross-layer transcoder: exact where it is, and it reads what it wrote."""

import pytest
import torch

from hooks import capture, intervene
from hooks.errors import InvalidArgument, OutOfRange
from hooks.site import mlp_in, mlp_out
from interp.circuits.known import skip_trio
from interp.sae import CrossLayerTranscoder, replace_layers


def exact(model):
    """The skip-trio's own neurons as latents."""
    d, layers = model.d_model, model.n_layers
    clt = CrossLayerTranscoder(d, 4 * layers, layers, reach=1, initial_threshold=0.0).double()
    with torch.no_grad():
        for i, block in enumerate(model.hf.transformer.h):
            clt.W_enc[i] = block.mlp.c_fc.weight.T
            clt.b_enc[i] = block.mlp.c_fc.bias
            clt.decoder(i, i)[:] = block.mlp.c_proj.weight
            clt.b_dec[i] = block.mlp.c_proj.bias
    clt.sites = tuple(site[i] for site in (mlp_in, mlp_out) for i in range(layers))
    return clt


def test_a_models_own_neurons_replace_its_layers_without_a_trace():
    known = skip_trio()
    tokens = known.task.clean
    expected = known.model.run(tokens)
    with intervene(known.model, replace_layers(exact(known.model))):
        assert torch.allclose(known.model.run(tokens), expected, atol=1e-12)


def test_latents_are_read_from_a_stream_that_replaced_layers_have_written_to():
    known = skip_trio()
    clt, tokens = exact(known.model), known.task.clean
    with torch.no_grad():
        clt.decoder(0, 0)[:] = 0  # without B nothing comes after
    with intervene(known.model, replace_layers(clt)):
        broken = known.model.run(tokens)
    with intervene(known.model, replace_layers(clt, [2])):
        whole = known.model.run(tokens)
    assert torch.allclose(whole, known.model.run(tokens), atol=1e-12)
    assert float((broken - whole).detach().abs().max()) > 0.5


@pytest.mark.parametrize("settings", [{}, {"reach": 2}, {"skip": True}, {"skip": True, "reach": 1}])
def test_what_replaced_layers_write_is_the_reconstruction_of_what_all_of_them_read(settings):
    known = skip_trio()
    model, L = known.model, known.model.n_layers
    clt = CrossLayerTranscoder(model.d_model, 5 * L, L, initial_threshold=0.1, seed=1, **settings).double()
    with torch.no_grad():
        for p in (clt.b_enc, clt.b_dec, *(() if clt.W_skip is None else (clt.W_skip,))):
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    clt.sites = tuple(site[i] for site in (mlp_in, mlp_out) for i in range(L))
    with intervene(model, replace_layers(clt)):
        acts = capture(model, known.task.clean, clt.sites)
    x, y = (torch.stack([acts[site[i]].flatten(0, 1) for i in range(L)], 1) for site in (mlp_in, mlp_out))
    assert bool((clt.encode(x) > 0).any(0).view(L, -1).any(1).all())
    assert torch.allclose(y, clt(x), atol=1e-9)


def test_no_layer_replaced_is_nothing_done():
    assert replace_layers(exact(skip_trio().model), []) == {}


def test_what_cannot_be_replaced_is_refused():
    clt = exact(skip_trio().model)
    with pytest.raises(OutOfRange, match="layers 0 to 2"):
        replace_layers(clt, [3])
    clt.sites = ()
    with pytest.raises(InvalidArgument, match="set clt.sites"):
        replace_layers(clt)
