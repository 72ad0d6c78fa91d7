"""Autoencoders that are read from other libraries: the laws of inference, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hooks.errors import InvalidArgument, UnknownName
from hooks.site import mlp_in, resid_post
from interp.sae import (
    SAE,
    MatchingPursuit,
    SparseCoder,
    Temporal,
    TopK,
    ablate_latents,
    change_latents,
    evaluate,
    load,
    save,
    scale_latents,
    splice,
    tensor_source,
    train,
)
from interp.sae.architectures.registry import READ_ONLY
from interp.sae.data.normalisation import RowNorm

N, D, OUT, LATENTS = 40, 8, 6, 24
CASES: dict[str, Callable[[], SAE]] = {
    "relu": lambda: SparseCoder(D, LATENTS),
    "jumprelu": lambda: SparseCoder(D, LATENTS, activation="jumprelu", d_out=OUT),
    "jumprelu skip": lambda: SparseCoder(D, LATENTS, activation="jumprelu", d_out=OUT, skip=True),
    "topk": lambda: SparseCoder(D, LATENTS, activation="topk", k=4, d_out=OUT),
    "topk skip": lambda: SparseCoder(D, LATENTS, activation="topk", k=4, skip=True),
    "abstopk": lambda: SparseCoder(D, LATENTS, activation="abstopk", k=4),
    "groupmax": lambda: SparseCoder(D, LATENTS, activation="groupmax", k=4),
    "matching pursuit": lambda: MatchingPursuit(D, LATENTS),
    "temporal": lambda: Temporal(D, LATENTS, n_heads=2, bottleneck=3, k=4, scale=0.5),
}


def drawn(make: Callable[[], SAE]) -> SAE:
    sae, g = make(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in sae.named_parameters():
            p.copy_((torch.rand if name == "threshold" else torch.randn)(p.shape, generator=g) * 0.4)
    return sae.double()


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(3)).double() + 0.2


@pytest.fixture(params=CASES.values(), ids=CASES)
def sae(request: pytest.FixtureRequest) -> SAE:
    return drawn(request.param)


def test_every_such_architecture_is_in_the_table() -> None:
    assert {make().architecture for make in CASES.values()} == set(READ_ONLY)


def test_forward_is_decode_of_encode_next_to_the_linear_path(sae: SAE) -> None:
    x = rows(4, 10)
    f, path = sae.encode(x), x @ sae.W_skip.T if isinstance(sae, SparseCoder) and sae.skip else 0
    assert f.shape == (4, 10, LATENTS) and bool((f != 0).any())
    if not isinstance(sae, Temporal):
        assert torch.allclose(sae(x), f @ sae.W_dec + sae.b_dec + path)
        assert torch.allclose(sae.encode(x.flatten(0, 1)), f.flatten(0, 1))


def test_sparse_and_dense_codes_and_reconstructions_are_the_same(sae: SAE) -> None:
    if isinstance(sae, Temporal):
        pytest.skip("it reads sequences")
    x = rows(N)
    values, indices = sae.encode_sparse(x)
    assert torch.allclose(torch.zeros(N, LATENTS).double().scatter(1, indices, values), sae.encode(x))
    assert torch.allclose(sae.reconstruct_sparse(x, values, indices), sae(x))


def test_a_saved_one_comes_back_whole(sae: SAE, tmp_path: Path) -> None:
    sae, x = sae.float(), rows(4, 10).float()
    sae.sites = (mlp_in[1], resid_post[1])
    back = load(save(sae, tmp_path))
    assert type(back) is type(sae) and back.settings() == sae.settings() and back.sites == sae.sites
    assert torch.equal(back.encode(x), sae.encode(x)) and torch.equal(back(x), sae(x))


def test_it_cannot_be_trained_and_says_what_can(sae: SAE) -> None:
    width = sae.row_shape[0]
    with pytest.raises(InvalidArgument, match="is read from other libraries and not trained here: train a TopK"):
        train(sae, tensor_source(torch.randn(50, width)), tokens=100, batch_size=10, progress=False)


def test_latents_of_abstopk_are_the_largest_in_size_and_keep_their_signs() -> None:
    sae = drawn(CASES["abstopk"])
    z = rows(N) @ sae.W_enc + sae.b_enc
    f = sae.encode(rows(N))
    assert bool((f < 0).any()) and bool(((f != 0).sum(1) == 4).all())
    assert torch.equal(f[f != 0], z[f != 0])
    assert bool((z.abs().where(f == 0, 0).amax(1) <= f.abs().where(f != 0, torch.inf).amin(1)).all())
    assert evaluate(sae, tensor_source(rows(N))).l0 == 4


def test_matching_pursuit_on_an_orthonormal_dictionary_keeps_positive_coordinates_and_stops_at_its_threshold() -> None:
    sae = MatchingPursuit(D, D, residual_threshold=0.5)
    with torch.no_grad():
        sae.W_dec.copy_(torch.eye(D))
    x = torch.tensor([[4.0, 0, 0, 3.0, 0, 0, 0.4, 0], [0.2, 0.1, 0, 0, 0, 0, 0, 0]])
    f = sae.encode(x)
    assert f[0].tolist() == [4.0, 0, 0, 3.0, 0, 0, 0, 0]  # what is left, 0.4, is below the threshold
    assert f[1].nonzero().flatten().tolist() == [0]  # a row takes one step before it is judged


def test_a_temporal_one_reads_whole_texts_and_only_what_came_before() -> None:
    sae, x = drawn(CASES["temporal"]), rows(2, 10)
    with pytest.raises(InvalidArgument, match=r"reads sequences, \[batch, pos, 8\], and was given \(10, 8\)"):
        sae.encode(x[0])
    later = x.clone()
    later[:, 7:] += 1
    assert torch.allclose(sae(later)[:, :7], sae(x)[:, :7])
    earlier = x.clone()
    earlier[:, 2] += 1
    assert not torch.allclose(sae(earlier)[:, 7], sae(x)[:, 7])
    sae.sites = (resid_post[0],)
    with pytest.raises(InvalidArgument, match="reads whole sequences, and interventions change rows"):
        splice(sae)


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_a_row_norm_is_undone_by_the_rows_own_scale(kind: str) -> None:
    sae, x, norm = TopK(D, LATENTS, 4).double(), rows(N), RowNorm(kind)
    plain = sae(norm(x))
    assert torch.allclose(norm(3 * x), norm(x), atol=1e-4)
    sae.row_norm = norm
    assert torch.allclose(sae.encode(x), sae.encode(5 * x), atol=1e-3)
    m, s = (x.mean(1), x.std(1)) if kind == "layer_norm" else (torch.zeros(N), x.norm(dim=1) / D**0.5)
    assert torch.allclose(sae(x), plain * s[:, None] + m[:, None])
    values, indices = sae.encode_sparse(x)
    assert torch.allclose(sae.reconstruct_sparse(x, values, indices), sae(x))
    sae.sites = (resid_post[0],)
    doubled = change_latents(sae, scale_latents([*range(LATENTS)], 2.0)).fn(x, None)
    assert torch.allclose(doubled - x, (sae(x) - m[:, None]) - s[:, None] * sae.b_dec)
    assert torch.equal(change_latents(sae, scale_latents([3], 1.0)).fn(x, None), x)
    assert not torch.equal(change_latents(sae, ablate_latents([*range(LATENTS)])).fn(x, None), x)


def test_an_autoencoder_of_normalised_rows_has_no_directions_of_fixed_length_and_is_not_trained_further() -> None:
    sae = TopK(D, LATENTS, 4)
    sae.row_norm, sae.sites = RowNorm("layer_norm"), (resid_post[0],)
    sae.max_activation.fill_(1.0)
    with pytest.raises(InvalidArgument, match=r"have no fixed length: take the unit vector sae.W_dec\[3\]"):
        sae.direction(3)
    with pytest.raises(InvalidArgument, match="is read from other libraries and not trained here: give a new one"):
        train(sae, tensor_source(torch.randn(50, D)), tokens=100, batch_size=10, progress=False)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnknownName, match="no activation is called 'top_k'; did you mean 'topk'"):
        SparseCoder(D, LATENTS, activation="top_k")
    with pytest.raises(InvalidArgument, match="and they alone, need a k from 1 to d_sae = 24"):
        SparseCoder(D, LATENTS, activation="topk")
    with pytest.raises(InvalidArgument, match="d_sae must be a multiple of k"):
        SparseCoder(D, LATENTS, activation="groupmax", k=5)
    with pytest.raises(InvalidArgument, match="d_sae must be a multiple of their product"):
        Temporal(D, LATENTS, n_heads=5)
    with pytest.raises(UnknownName, match="rows are not normalised by 'layernorm'; did you mean 'layer_norm'"):
        RowNorm("layernorm")
