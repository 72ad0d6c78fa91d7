"""The trainer against planted features, plain Adam, and its promises about order, seeds and reports."""

from collections.abc import Iterator

import pytest
import torch
from sklearn.metrics import r2_score

from hooks import Model, capture
from hooks.site import resid_post
from interp.sae import TopK, activations_of, evaluate, tensor_source, train
from interp.sae.data.shuffle_buffer import ShuffleBuffer
from interp.sae.data.source import Source
from interp.sae.training.adam import Adam
from interp.sae.training.learner import update
from tests.interp.sae.planted import activations, features, matched_cosine

pytestmark = pytest.mark.usefixtures("unchecked")


def planted(n_features: int, p: float, n: int = 60_000) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    truth = features(n_features, 64, g)
    return truth, activations(truth, n, p, g)


def learn(x: torch.Tensor, d_sae: int, k: int, tokens: int = 100_000, **options: float) -> tuple[TopK, float]:
    sae = TopK(x.shape[1], d_sae, k, **options)
    report = train(sae, tensor_source(x), tokens=tokens, batch_size=512, lr=1e-2, dead_after=20_000, progress=False)
    return sae, report.dead_share


@pytest.fixture(scope="module")
def overcomplete() -> tuple[torch.Tensor, torch.Tensor, TopK, float]:
    truth, x = planted(128, p=0.03)
    return truth, x, *learn(x, 128, k=4, tokens=150_000)


def test_twice_as_many_features_as_dimensions_are_recovered(overcomplete) -> None:
    truth, _, sae, dead = overcomplete
    assert matched_cosine(sae.W_dec.detach(), truth) >= 0.90
    assert dead < 0.05


def test_a_random_decoder_recovers_no_features(overcomplete) -> None:
    assert matched_cosine(features(128, 64, torch.Generator().manual_seed(1)), overcomplete[0]) <= 0.40


def test_orthogonal_features_are_recovered() -> None:
    truth, x = planted(64, p=0.05)
    assert matched_cosine(learn(x, 64, k=3)[0].W_dec.detach(), truth) >= 0.90


def test_a_large_constant_added_to_all_activations_costs_no_feature(overcomplete) -> None:
    truth, x, sae, _ = overcomplete
    shift = 3 * torch.randn(64, generator=torch.Generator().manual_seed(2))
    moved = learn(x + shift, 128, k=4, tokens=150_000)[0]
    before, after = (matched_cosine(s.W_dec.detach(), truth) for s in (sae, moved))
    assert abs(before - after) < 0.02


def test_the_auxiliary_loss_revives_latents_that_plain_training_leaves_dead() -> None:
    _, x = planted(64, p=0.05)
    reports = {}
    for coefficient in (0.0, 1 / 32):
        sae = TopK(64, 128, k=3, aux_coefficient=coefficient)
        with torch.no_grad():
            sae.b_enc[64:] = -1
        options = {"tokens": 100_000, "batch_size": 512, "lr": 4e-3, "dead_after": 5_000, "progress": False}
        reports[coefficient] = train(sae, tensor_source(x), **options)
    without, with_it = reports.values()
    assert without.dead_share > 0.45
    assert with_it.dead_share < without.dead_share - 0.1
    assert with_it.explained_variance > without.explained_variance + 0.01


def test_the_report_counts_what_the_final_weights_do(overcomplete) -> None:
    _, x, sae, _ = overcomplete
    report = train(sae, tensor_source(x), tokens=4096, batch_size=1024, lr=1e-4, dead_after=20_000, progress=False)
    again = evaluate(sae, tensor_source(x))
    assert report.explained_variance == pytest.approx(again.explained_variance, abs=0.01)
    assert report.l0 == pytest.approx(again.l0, abs=0.05)
    assert report.tokens == 4096 and report.curve[-1].tokens == 4096


@pytest.mark.parametrize(("steps", "batches"), [(1, 1), (16, 2), (24, 3), (25, 4)])
def test_the_report_rests_on_as_many_new_batches_as_an_eighth_of_the_training(steps: int, batches: int) -> None:
    """The source is as long as what is asked of it: rows for the report are none that training has seen."""
    x = torch.randn(32 * (steps + batches) + 64, 8, generator=torch.Generator().manual_seed(0))
    report = train(TopK(8, 12, 2), tensor_source(x), tokens=32 * steps, batch_size=32, progress=False)
    assert (report.tokens, report.quality.tokens) == (32 * steps, 32 * batches)


def test_the_largest_activation_is_known_for_every_latent_that_fired() -> None:
    _, x = planted(64, p=0.05, n=4_000)
    sae, _ = learn(x, 64, k=3, tokens=40_000)
    seen = evaluate(sae, tensor_source(x)).max_activation
    assert bool((sae.max_activation >= 0.95 * seen).all())
    assert float((sae.max_activation - seen).median()) < 0.1 * float(seen.median())


def test_decoder_rows_keep_unit_norm(overcomplete) -> None:
    assert torch.allclose(overcomplete[2].W_dec.norm(dim=1), torch.ones(128), atol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    _, x = planted(64, p=0.05, n=3_000)

    def weights(seed: int) -> torch.Tensor:
        sae = TopK(64, 96, k=3)
        train(sae, tensor_source(x), tokens=5_000, batch_size=512, seed=seed, progress=False)
        return sae.W_dec.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_an_update_is_clipping_then_plain_adam_along_the_sphere() -> None:
    x = 20 * torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    sae, twin = TopK(8, 24, k=4), TopK(8, 24, k=4)
    fused = Adam(sae.parameters(), lr=0.01)
    plain = torch.optim.Adam(twin.parameters(), lr=0.01, eps=6.25e-10, foreach=False)
    for _ in range(3):
        for each in (sae, twin):
            each.objective().gradients(x, torch.zeros(24, dtype=torch.bool))
        update(sae.objective(), fused, 0.01, clip=1.0)
        with torch.no_grad():
            inward = (twin.W_dec.grad * twin.W_dec).sum(1, keepdim=True) * twin.W_dec
            twin.W_dec.grad = twin.W_dec.grad - inward
            assert float(torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)) > 1
            plain.step()
            twin.W_dec /= twin.W_dec.norm(dim=1, keepdim=True)
    for ours, theirs in zip(sae.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_explained_variance_is_scikit_learns_variance_weighted_r2(overcomplete) -> None:
    _, x, sae, _ = overcomplete
    truth, found = x.double().numpy(), sae(x).detach().double().numpy()
    assert evaluate(sae, tensor_source(x)).explained_variance == pytest.approx(
        r2_score(truth, found, multioutput="variance_weighted"), abs=1e-6
    )


@pytest.mark.parametrize(("factor", "shift"), [(10.0, 0.0), (1.0, 100.0)], ids=["scaled", "shifted"])
def test_scaling_or_shifting_activations_and_autoencoder_together_leaves_explained_variance(
    overcomplete, factor: float, shift: float
) -> None:
    _, x, sae, _ = overcomplete
    x, still, moved = x[:5000].double(), TopK(64, 128, 4).double(), TopK(64, 128, 4).double()
    still.load_state_dict(sae.state_dict())
    moved.load_state_dict(sae.state_dict())
    with torch.no_grad():
        moved.b_enc *= factor
        moved.b_dec.mul_(factor).add_(shift)
    before = evaluate(still, tensor_source(x)).explained_variance
    assert evaluate(moved, tensor_source(x * factor + shift)).explained_variance == pytest.approx(before, abs=1e-6)


def test_a_source_that_fits_into_the_buffer_is_permuted_again_each_time_round() -> None:
    source = Source(lambda: iter(torch.arange(12.0).view(3, 4, 1)), "numbers")
    batches = ShuffleBuffer(source, buffer=100, batch_size=4, generator=torch.Generator().manual_seed(0))
    rounds = [torch.cat([next(batches) for _ in range(3)]).flatten() for _ in range(2)]
    assert [sorted(r.tolist()) for r in rounds] == [list(range(12))] * 2
    assert not torch.equal(*rounds)


def test_a_longer_source_is_served_pass_after_pass_with_no_row_lost() -> None:
    source = Source(lambda: iter(torch.arange(40.0).view(10, 4, 1)), "numbers")
    batches = ShuffleBuffer(source, buffer=8, batch_size=4, generator=torch.Generator().manual_seed(0))
    served = torch.cat([next(batches) for _ in range(50)]).flatten()
    counts = torch.bincount(served.long(), minlength=40)
    assert len(served) == 200 and int(counts.min()) >= 4 and int(counts.max()) <= 6
    assert served[:40].tolist() != sorted(served[:40].tolist())


def test_no_more_of_a_source_is_read_than_is_served() -> None:
    read = []

    def rows() -> Iterator[torch.Tensor]:
        for chunk in torch.arange(400.0).view(100, 4, 1):
            read.append(chunk)
            yield chunk

    batches = ShuffleBuffer(Source(rows, "numbers"), buffer=40, batch_size=4, generator=torch.Generator(), ends=120)
    served = torch.cat([next(batches) for _ in range(30)]).flatten()
    assert len(read) == 30 and sorted(served.tolist()) == list(range(120))
    assert served[-40:].tolist() != sorted(served[-40:].tolist())
    assert len(next(batches)) == 4


def test_a_source_that_can_be_read_once_only_says_so_when_read_again() -> None:
    once = iter(torch.zeros(10, 4, 1))
    batches = ShuffleBuffer(Source(lambda: once, "a generator"), buffer=8, batch_size=4, generator=torch.Generator())
    with pytest.raises(ValueError, match="gives nothing when read again: a generator. Make it from something"):
        for _ in range(20):
            next(batches)


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match="the source gives no activations: nothing"):
        train(TopK(4, 8, 2), Source(lambda: iter(()), "nothing"), progress=False)


def test_nan_in_stored_activations_is_refused_with_its_row() -> None:
    x = torch.zeros(10, 4)
    x[3, 1] = torch.inf
    with pytest.raises(ValueError, match=r"activations at resid_post\.2 hold NaN or infinity, first in row 3"):
        tensor_source(x, site=resid_post[2])


def test_activations_of_a_model_leave_out_bos_and_padding(gpt2: Model, texts: list[str]) -> None:
    rows = torch.cat(list(activations_of(gpt2, texts, resid_post[1], batch_size=3)))
    tokens = gpt2.tokens(texts)
    assert len(rows) == int(tokens.content.sum()) < int(tokens.mask.sum())
    assert torch.allclose(rows, capture(gpt2, texts, resid_post[1]).flat(resid_post[1]), atol=1e-5)


def test_training_on_a_model_records_where_the_autoencoder_belongs(gpt2: Model, texts: list[str]) -> None:
    sae = TopK(gpt2.d_model, 32, k=4)
    train(sae, activations_of(gpt2, texts, resid_post[1]), tokens=256, batch_size=32, progress=False)
    assert sae.site == resid_post[1]
    assert (sae.fingerprint, sae.model_name, sae.dataset) == (gpt2.fingerprint, gpt2.name, f"{len(texts)} texts")


def test_nan_in_a_model_stops_with_its_batch_text_and_token(gpt2: Model, texts: list[str]) -> None:
    def spoil(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[1, 4] = torch.nan  # attention moves it to the whole text
        return changed

    handle = gpt2.hf.transformer.wte.register_forward_hook(spoil)
    token = gpt2.tokenizer.decode([int(gpt2.tokens(texts[2:4]).ids[1, 1])])
    try:
        with pytest.raises(ValueError, match="at resid_post.0 in batch 0, text 1 of the batch, token 1") as caught:
            list(activations_of(gpt2, texts[2:4], resid_post[0]))
    finally:
        handle.remove()
    assert repr(token) in str(caught.value)


def test_another_width_than_the_autoencoders_is_refused_with_the_site(gpt2: Model, texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"reads 5 dimensions at resid_post\.1; it was given 32"):
        train(TopK(5, 32, k=4), activations_of(gpt2, texts, resid_post[1]), progress=False)


def test_training_further_begins_where_training_ended(overcomplete) -> None:
    _, x, sae, _ = overcomplete
    before = evaluate(sae, tensor_source(x)).explained_variance
    train(sae, tensor_source(x), tokens=512, batch_size=512, lr=1e-6, progress=False)
    assert evaluate(sae, tensor_source(x)).explained_variance == pytest.approx(before, abs=1e-3)
