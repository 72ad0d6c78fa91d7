"""The rank-one update is exact, least and local; covariances are what they say; shrinkage follows the data."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import pytest
import torch

from hooks import Model, capture, intervene, load
from hooks.errors import WrongState
from hooks.interventions import add
from hooks.site import mlp_act, mlp_out, resid_post
from hooks.store import harvest
from interp.lenses import tune
from interp.memory import Covariance, Edit, Fact, Search, covariance, covariances
from interp.memory.editing.change import LowRank, balance_weights, measure_leverage, solve_least_change
from interp.memory.editing.checks import check_targets_likely
from interp.memory.editing.codebook import Codebook
from interp.memory.editing.contexts import prefixes
from interp.memory.editing.covariance import SHRINKAGES, choose_shrinkage, pool_halves, shrink
from interp.memory.editing.datastore import Datastore
from interp.memory.editing.placement import measure_covariances
from interp.memory.editing.prompt_cache import Preamble
from interp.memory.editing.value_search import ValueSearchResult
from interp.memory.editors.alphaedit import find_null_space, solve_confined
from interp.memory.editors.grace import _Entry, _store
from interp.memory.evaluation.control import make_control

D, OUT = 24, 10


def problem(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    keys = torch.randn(200, D, generator=random, dtype=torch.float64)
    k, delta = (torch.randn(n, generator=random, dtype=torch.float64) for n in (D, OUT))
    return k, delta, keys.T @ keys / 200


def draw(n: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0))


def solved(k: torch.Tensor, delta: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    return LowRank(0, solve_least_change(k[None], torch.linalg.solve(c, k)[None]), delta[None]).delta


def test_the_update_maps_the_key_to_the_value_exactly() -> None:
    k, delta, c = problem()
    assert torch.linalg.norm(k @ solved(k, delta, c) - delta) / delta.norm() < 1e-12


def test_of_all_updates_that_do_so_it_moves_other_keys_least() -> None:
    k, delta, c = problem()
    update = solved(k, delta, c)
    cost = torch.trace(update.T @ c @ update)
    random = torch.Generator().manual_seed(1)
    for _ in range(200):
        z = torch.randn(D, OUT, generator=random, dtype=torch.float64)
        feasible = update + z - torch.outer(k, k @ z) / (k @ k)
        assert torch.allclose(k @ feasible, delta)
        assert torch.trace(feasible.T @ c @ feasible) > cost


def test_facts_with_keys_orthogonal_in_the_covariance_do_not_move() -> None:
    random = torch.Generator().manual_seed(2)
    keys = torch.linalg.qr(torch.randn(D, D, generator=random, dtype=torch.float64))[0][:6]
    c = torch.eye(D, dtype=torch.float64)
    memory = keys.T @ torch.randn(6, OUT, generator=random, dtype=torch.float64)
    edited = memory + solved(keys[0], torch.ones(OUT, dtype=torch.float64), c)
    assert torch.allclose(keys[1:] @ edited, keys[1:] @ memory, atol=1e-12)
    assert torch.allclose(keys[0] @ edited, keys[0] @ memory + 1)


def test_one_mean_key_throughout_stays_finite_where_mixing_bare_and_mean_keys_blows_up() -> None:
    bare = torch.zeros(D, dtype=torch.float64)
    bare[0] = 1.0
    mean = torch.zeros(D, dtype=torch.float64)
    mean[1], mean[0] = 1.0, 1e-9
    delta, c = torch.ones(OUT, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    inverse = torch.linalg.solve(c, mean)
    mixed = torch.outer(inverse / (bare @ inverse), delta)
    assert solved(mean, delta, c).norm() < 10 < 1e6 < mixed.norm()


def test_the_covariance_is_the_mean_outer_product_of_the_content_tokens_keys(gpt2: Model) -> None:
    texts = [f"text number {i} of some" for i in range(20)]
    found = covariance(gpt2, texts, 1, batch_size=4)
    k = capture(gpt2, texts, [mlp_act[1]]).flat(mlp_act[1]).double()
    assert found.n_tokens == len(k)
    assert torch.allclose(found.matrix, k.T @ k / len(k), atol=1e-5)


def test_fewer_tokens_than_keys_are_warned_about(gpt2: Model) -> None:
    with pytest.warns(UserWarning, match="10 tokens for 48 keys: the covariance cannot have full rank"):
        covariance(gpt2, ["ab"] * 5, 1, batch_size=1)


def test_as_many_tokens_as_keys_can_have_full_rank_and_are_not_warned_about(gpt2: Model) -> None:
    texts = ["ab"] * 24
    assert capture(gpt2, texts, [mlp_act[1]]).tokens.content.sum() == gpt2.d_mlp == 48
    assert covariance(gpt2, texts, 1, batch_size=8).n_tokens == 48


def test_too_few_texts_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="4 texts in 2 batches of data are too few to hold one out of five: give at"):
        covariance(gpt2, ["some text"] * 4, 1, batch_size=3)


def test_the_batch_size_changes_neither_covariance_nor_shrinkage(gpt2: Model) -> None:
    texts = [f"text number {i} of some that are longer" for i in range(23)]
    one, other = (covariance(gpt2, texts, 1, batch_size=n) for n in (4, 23))
    assert torch.allclose(one.matrix, other.matrix, atol=1e-6)
    assert (one.shrinkage, one.n_tokens) == (other.shrinkage, other.n_tokens)


def test_the_likelihood_of_each_shrinkage_is_that_of_a_gaussian() -> None:
    _, _, seen = problem(4)
    keys = torch.randn(50, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    losses = {
        shrinkage: -torch.distributions.MultivariateNormal(torch.zeros(D).double(), shrink(seen, shrinkage))
        .log_prob(keys)
        .mean()
        for shrinkage in SHRINKAGES
    }
    assert choose_shrinkage(seen, keys.T @ keys / 50) == min(losses, key=losses.__getitem__)


def test_shrinkage_grows_as_data_become_scarce() -> None:
    random = torch.Generator().manual_seed(3)
    factor = torch.diag(torch.linspace(0.3, 2.0, D, dtype=torch.float64))

    def moment(n: int) -> torch.Tensor:
        keys = torch.randn(n, D, generator=random, dtype=torch.float64) @ factor
        return keys.T @ keys / n

    truth = moment(200_000)
    scarce, plenty = (choose_shrinkage(moment(n), truth) for n in (30, 100_000))
    assert scarce >= 0.03 > 1e-3 >= plenty


def test_shrinking_keeps_the_trace() -> None:
    _, _, c = problem()
    assert torch.isclose(shrink(c, 0.3).trace(), c.trace())


def test_a_covariance_solves_with_its_shrunk_matrix_and_decomposes_once() -> None:
    k, _, c = problem()
    whole = Covariance(c, 0.1, 3, 200, "abc")
    keys = torch.stack([k, 2 * k + 1])
    assert torch.allclose(whole.solve(keys) @ shrink(c, 0.1), keys, rtol=1e-9)
    assert whole.spectrum is whole.spectrum
    poor = Covariance(torch.outer(k, k), 0.0, 3, 1, "abc")
    with pytest.raises(ValueError, match="the covariance of layer 3 has rank below 24 at shrinkage 0: estimate it on"):
        poor.solve(k)


def test_a_covariance_is_read_back_as_written(tmp_path: Path) -> None:
    _, _, c = problem()
    whole = Covariance(c, 0.01, 3, 200, "abc")
    whole.save(tmp_path / "c.safetensors")
    read = Covariance.load(tmp_path / "c.safetensors")
    assert torch.equal(read.matrix, c)
    assert (read.shrinkage, read.layer, read.n_tokens, read.fingerprint) == (0.01, 3, 200, "abc")


def test_of_all_updates_that_write_several_values_it_moves_other_keys_least() -> None:
    _, _, c = problem(6)
    random = torch.Generator().manual_seed(7)
    k, r = (torch.randn(3, n, generator=random, dtype=torch.float64) for n in (D, OUT))
    update = LowRank(0, solve_least_change(k, k @ torch.linalg.inv(c)), r).delta
    assert (k @ update - r).norm() / r.norm() < 1e-12
    cost = torch.trace(update.T @ c @ update)
    for _ in range(100):
        z = torch.randn(D, OUT, generator=random, dtype=torch.float64)
        feasible = update + z - torch.linalg.pinv(k) @ (k @ z)
        assert torch.allclose(k @ feasible, r)
        assert torch.trace(feasible.T @ c @ feasible) > cost


def test_the_left_factor_is_that_of_memits_equation() -> None:
    _, _, c = problem(8)
    random = torch.Generator().manual_seed(9)
    k, r = (torch.randn(5, n, generator=random, dtype=torch.float64) for n in (D, OUT))
    for ridge in (1e-3, 1.0, 100.0):
        theirs = torch.linalg.inv(ridge * c + k.T @ k) @ k.T @ r
        ours = LowRank(0, solve_least_change(k, k @ torch.linalg.inv(c), ridge), r).delta
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def test_more_ridge_writes_less_at_the_keys_and_moves_others_less() -> None:
    _, _, c = problem(8)
    random = torch.Generator().manual_seed(9)
    k, r = (torch.randn(5, n, generator=random, dtype=torch.float64) for n in (D, OUT))
    inverse = k @ torch.linalg.inv(c)
    updates = [LowRank(0, solve_least_change(k, inverse, ridge), r).delta for ridge in (0.0, 0.1, 1.0, 10.0, 100.0)]
    missed = [float((k @ u - r).norm()) for u in updates]
    moved = [float(torch.trace(u.T @ c @ u)) for u in updates]
    assert missed == sorted(missed) and moved == sorted(moved, reverse=True)


def test_two_values_at_one_key_are_refused() -> None:
    k, _, c = problem()
    with pytest.raises(ValueError, match="the 2 keys depend on each other, so not every value can be written exactly"):
        solve_least_change(torch.stack([k, 2 * k]), torch.linalg.solve(c, torch.stack([k, 2 * k]).T).T)


def test_the_quiet_directions_are_those_of_the_smallest_eigenvalues_whatever_the_scale_of_the_keys() -> None:
    basis = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(1)).double())[0]
    energy = torch.cat([torch.full((D - 4,), 1.0), torch.full((4,), 1e-4)]).double()
    c = basis @ torch.diag(energy) @ basis.T
    for scale in (1e-6, 1.0, 1e6):
        found = find_null_space(Covariance(scale * c, 0.0, 0, 100, "m"), energy=1e-3)
        assert found.shape == (D, 4)
        assert torch.allclose(found @ found.T, basis[:, -4:] @ basis[:, -4:].T, atol=1e-8)
    with pytest.raises(ValueError, match="every direction of the keys of layer 0 holds more than 0 of their energy"):
        find_null_space(Covariance(c, 0.0, 0, 100, "m"), energy=0.0)


def test_the_standard_error_of_a_covariance_is_how_far_it_is_from_the_truth() -> None:
    random = torch.Generator().manual_seed(3)
    factor = torch.diag(torch.linspace(0.3, 2.0, D, dtype=torch.float64))
    truth = factor @ factor
    for n in (500, 8000):
        seen, held = (torch.randn(m, D, generator=random, dtype=torch.float64) @ factor for m in (4 * n // 5, n // 5))
        found = pool_halves(seen.T @ seen, held.T @ held, (len(seen), len(held)))
        assert found.error == pytest.approx(float((found.matrix - truth).norm() / truth.norm()), rel=0.3)


def test_a_covariance_is_read_from_its_cache_for_the_same_texts_only(gpt2: Model, tmp_path: Path) -> None:
    texts = [f"text number {i} of some" for i in range(20)]
    made = covariances(gpt2, texts, (0, 1), cache=tmp_path)
    below = covariances(gpt2, texts, (0, 1), cache=tmp_path / "of" / "a model")
    assert torch.equal(below[0].matrix, made[0].matrix) and len([*(tmp_path / "of" / "a model").iterdir()]) == 2
    rmtree(tmp_path / "of")
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = covariance(gpt2, texts, 1, cache=tmp_path)
    assert torch.equal(again.matrix, made[1].matrix) and again.error == made[1].error
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == kept and len(kept) == 2
    covariance(gpt2, texts[1:], 1, cache=tmp_path)
    assert len([*tmp_path.iterdir()]) == 3
    by_ids = covariance(gpt2, gpt2.tokens(texts), 1, cache=tmp_path)
    assert torch.equal(by_ids.matrix, covariance(gpt2, gpt2.tokens(texts), 1, cache=tmp_path).matrix)
    assert torch.equal(by_ids.matrix, made[1].matrix) and len([*tmp_path.iterdir()]) == 4


@pytest.mark.usefixtures("unchecked")
def test_a_covariance_measured_under_an_edit_is_kept_apart_from_that_of_the_model_itself(
    fresh: Callable, tmp_path: Path
) -> None:
    model, texts = fresh("gpt2"), [f"text number {i} of some" for i in range(20)]
    with writing(model).applied(model):
        edited = covariance(model, texts, 1, cache=tmp_path)
        assert torch.equal(covariance(model, texts, 1, cache=tmp_path).matrix, edited.matrix)
    plain = covariance(model, texts, 1, cache=tmp_path)
    assert float((plain.matrix - edited.matrix).norm() / plain.matrix.norm()) > 0.1
    assert torch.equal(plain.matrix, covariance(model, texts, 1).matrix)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.* tokens for 48 keys")
def test_what_is_measured_once_for_a_model_is_measured_without_its_edits(fresh: Callable) -> None:
    one, other = fresh("gpt2"), fresh("gpt2")
    with writing(one).applied(one):
        logits = one.run("Rome").detach()
        (under,), said = measure_covariances(one, [1]), prefixes(one)
        assert torch.equal(one.run("Rome").detach(), logits)
    assert not torch.equal(one.run("Rome").detach(), logits)
    (plain,) = measure_covariances(other, [1])
    assert torch.equal(under.matrix, plain.matrix) and said == prefixes(other)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.* tokens for 48 keys")
def test_what_is_measured_once_for_a_model_is_measured_again_once_its_weights_are_others(fresh: Callable) -> None:
    """Written through `.data`, as an optimiser of one's own may do, which no counter of torch notes."""

    def move(model: Model) -> Model:
        for parameter in model.hf.parameters():
            parameter.data.mul_(1.5)
        return model

    one, other = fresh("gpt2"), move(fresh("gpt2"))
    (before,), said = measure_covariances(one, [1]), prefixes(one)
    (after,), (wanted,) = measure_covariances(move(one), [1]), measure_covariances(other, [1])
    assert torch.equal(after.matrix, wanted.matrix)
    assert prefixes(one) == prefixes(other)
    assert not torch.equal(before.matrix, after.matrix)
    assert said != prefixes(one)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.* tokens for 48 keys")
def test_what_is_measured_once_for_a_model_is_measured_without_the_interventions_of_an_open_block(
    fresh: Callable,
) -> None:
    one, other = fresh("gpt2"), fresh("gpt2")
    with intervene(one, {resid_post[0]: add(5 * draw(one.d_model))}):
        one.run("Rome")
        (inside,), said = measure_covariances(one, [1]), prefixes(one)
    (plain,) = measure_covariances(other, [1])
    assert torch.equal(inside.matrix, plain.matrix) and said == prefixes(other)
    assert torch.equal(measure_covariances(one, [1])[0].matrix, plain.matrix) and prefixes(one) == said


@pytest.mark.usefixtures("unchecked")
def test_a_text_put_before_all_others_inside_an_open_block_was_not_read_with_its_interventions(fresh: Callable) -> None:
    model = fresh("gpt2")
    edit = Edit((Fact("Rome", "{} is in", "a", "b"),), "in_context", (Preamble(torch.tensor([5, 6, 7])),), "")
    edit = replace(edit, fingerprint=model.fingerprint)
    with edit.applied(model):
        wanted = model.run("Rome").detach()
    with intervene(model, {resid_post[0]: add(5 * draw(model.d_model))}):
        model.run("Rome")
        edit.apply(model)
    assert torch.equal(model.run("Rome").detach(), wanted)
    edit.undo(model)


def writing(model: Model) -> Edit:
    """An edit that changes much of what the first layer writes."""
    random = torch.Generator().manual_seed(0)
    key, value = (torch.randn(4, n, generator=random) for n in (model.d_mlp, model.d_model))
    update = LowRank(0, key, value)
    return Edit((Fact("Rome", "{} is in", "a", "b"),), "writing", (update,), model.fingerprint)


def test_the_control_of_alike_keys_and_values_changes_the_weights_by_as_much() -> None:
    random = torch.Generator().manual_seed(1)
    k = torch.randn(1, D, generator=random).double() + 0.1 * torch.randn(6, D, generator=random).double()
    value = torch.randn(1, OUT, generator=random).double() + 0.01 * torch.randn(6, OUT, generator=random).double()
    update = LowRank(0, solve_least_change(k, k), value)
    spoilt = update.control(random)
    assert float(spoilt.delta.norm()) == pytest.approx(float(update.delta.norm()), rel=1e-9)
    assert torch.allclose(spoilt.value.norm(dim=1), value.norm(dim=1)) and spoilt.key is update.key
    assert float((spoilt.value * value).sum(1).abs().max()) < 0.9 * float(value.square().sum(1).min())
    drawn = [LowRank(0, k[:1], value[:1]).control(torch.Generator().manual_seed(seed)).value[0] for seed in range(400)]
    assert float(torch.stack(drawn).mean(0).norm() / value[0].norm()) < 3 / 400**0.5


def test_the_control_of_changes_one_by_one_is_of_their_sum() -> None:
    random = torch.Generator().manual_seed(2)
    k, value = torch.ones(3, D) + 0.1 * torch.randn(3, D, generator=random), torch.ones(3, OUT)
    updates = tuple(LowRank(0, k[i : i + 1], value[i : i + 1], k[i : i + 1]) for i in range(3))
    edit = Edit((Fact("Rome", "{} is in", "a", "b"),), "rome", updates, "m")
    (spoilt,) = make_control(edit).weights
    assert float(spoilt.delta.norm()) == pytest.approx(float(sum(u.delta for u in updates).norm()), rel=1e-6)
    assert spoilt.at is not None and len(spoilt.at) == 3


@pytest.mark.parametrize("n", [10, 20, 100])
def test_a_tenth_of_values_that_do_not_reach_their_objects_is_let_pass_and_one_more_is_not(n: int) -> None:
    fact = Fact("Rome", "{} is in", "a", "b")
    found = [ValueSearchResult({}, 0.9, 0.0, 3)] * (n - n // 10) + [ValueSearchResult({}, 0.1, 0.0, 3)] * (n // 10)
    check_targets_likely([fact] * n, found, "layer 0", Search())
    with pytest.raises(RuntimeError, match=r"reached 'b' with probability 0.100 only, after 3 steps at layer 0"):
        check_targets_likely([fact] * n, [*found[1:], found[-1]], "layer 0", Search())


def test_the_vote_of_a_datastore_is_the_papers_mixture() -> None:
    random = torch.Generator().manual_seed(4)
    keys, q, logits = (torch.randn(*n, generator=random) for n in ((3, 4), (1, 2, 4), (1, 2, 6)))
    q[0, 1] = keys[0] + 0.1
    store = Datastore("mlp_in.0", keys, torch.tensor([5, 2, 5]), float((keys[0] - keys[1]).norm()) + 0.5, 0.7)
    q[0, 0] = keys.mean(0) + 100.0
    after = store.vote(q, logits)
    assert after is not None and torch.equal(after[0, 0], logits[0, 0])
    expected = 0.3 * logits[0, 1].softmax(0)
    near = [(j, float((q[0, 1] - keys[j]).norm())) for j in range(3)]
    votes = {j: math.exp(-((d / store.radius) ** 2)) for j, d in near if d <= store.radius}
    for j, vote in votes.items():
        expected[store.tokens[j]] += 0.7 * vote / sum(votes.values())
    assert len(votes) >= 2 and torch.allclose(after[0, 1].exp(), expected, atol=1e-6)


def test_a_near_key_widens_the_entry_of_its_object_and_halves_the_way_to_that_of_another() -> None:
    def entry(at: float, label: str) -> _Entry:
        return _Entry(torch.tensor([at, 0.0]), torch.zeros(2), 1.0, label)

    entries = [entry(0.0, "Rome")]
    _store(entries, entry(1.5, "Rome"))
    assert [e.radius for e in entries] == [1.5]
    _store(entries, entry(2.0, "Oslo"))
    assert [e.radius for e in entries] == pytest.approx([1.0, 1.0], rel=1e-4) and entries[0].radius < 1.0
    _store(entries, entry(9.0, "Rome"))
    assert [e.radius for e in entries][2] == 1.0
    _store(entries, entry(11.0, "Rome"))  # no farther than the two radii
    assert [e.radius for e in entries][2:] == [2.0]


def test_a_codebook_answers_within_its_radius_and_leaves_every_bit_outside(gpt2: Model) -> None:
    k = capture(gpt2, "some text", [mlp_act[1]])[mlp_act[1]][0]
    value = torch.arange(gpt2.d_model, dtype=torch.float32)
    detach = Codebook(1, k[4:5], value[None], torch.tensor([1e-3])).attach(gpt2)
    after = capture(gpt2, "some text", [mlp_out[1]])[mlp_out[1]][0]
    detach()
    before = capture(gpt2, "some text", [mlp_out[1]])[mlp_out[1]][0]
    assert torch.equal(after[4], value)
    assert torch.equal(torch.cat([after[:4], after[5:]]), torch.cat([before[:4], before[5:]]))


def test_what_an_earlier_edit_wrote_moves_less_when_its_keys_are_kept_and_nothing_leaves_the_quiet_space() -> None:
    random = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(D, D, generator=random, dtype=torch.float64))[0][:, :14]
    earlier, own = torch.randn(2, 1, D, generator=random, dtype=torch.float64)
    k, r = 0.7 * earlier + 0.7 * own, torch.randn(1, OUT, generator=random, dtype=torch.float64)
    blind, careful = (
        LowRank(0, solve_confined(k, kept, basis, ridge=1e-3), r).delta
        for kept in (torch.zeros(0, D).double(), earlier)
    )
    for update in (blind, careful):
        assert (k @ update - r).norm() < 0.02 * r.norm()
        assert (update - basis @ basis.T @ update).norm() < 1e-10 * update.norm()
    assert (earlier @ careful).norm() < 0.05 * (earlier @ blind).norm()


def test_the_confined_factor_is_that_of_alphaedits_equation() -> None:
    random = torch.Generator().manual_seed(6)
    basis = torch.linalg.qr(torch.randn(D, D, generator=random, dtype=torch.float64))[0][:, :14]
    k, kept = torch.randn(2, D, generator=random).double(), torch.randn(5, D, generator=random).double()
    p = basis @ basis.T
    scale = 0.1 * float((k @ p).square().sum(1).mean())
    theirs = torch.linalg.solve(p @ (k.T @ k + kept.T @ kept) + scale * torch.eye(D).double(), p @ k.T).T
    assert torch.allclose(solve_confined(k, kept, basis, ridge=0.1), theirs, rtol=1e-8)


def test_what_is_written_at_the_even_mean_is_the_flattest_reading_over_the_texts_and_whole_at_the_mean() -> None:
    random = torch.Generator().manual_seed(7)
    root = torch.randn(D, D, generator=random, dtype=torch.float64)
    c = root @ root.T + 0.1 * torch.eye(D)
    k = torch.randn(5, D, generator=random, dtype=torch.float64) + 2.0
    inverse = torch.linalg.solve(c, k.T).T
    w = balance_weights(k, inverse)
    (u,) = solve_least_change((w @ k)[None], (w @ inverse)[None])
    rho = 0.1 * float((k * inverse).sum(1).mean())
    flattest = torch.linalg.solve(k.T @ k + rho * c, k.sum(0))
    assert torch.cosine_similarity(u, flattest, dim=0) == pytest.approx(1.0, abs=1e-9)
    assert float(w.sum()) == pytest.approx(1.0) and float(w @ (k @ u)) == pytest.approx(1.0)


def test_a_key_unlike_the_others_reads_what_is_written_at_the_even_mean_and_hardly_at_the_plain_one() -> None:
    c = torch.eye(D, dtype=torch.float64)
    k = torch.cat([c[:1] + 0.05 * c[2:10], c[1:2]])
    (even,), (plain,) = (solve_least_change(mean[None], mean[None]) for mean in (balance_weights(k, k) @ k, k.mean(0)))
    assert float((k @ plain)[-1]) < 0.2 and float((k @ even).min()) > 0.8
    alike = c[:1].expand(4, -1)
    assert torch.allclose(balance_weights(alike, alike), torch.full((4,), 0.25, dtype=torch.float64))


def test_saving_a_model_with_an_edit_next_to_its_weights_warns_and_after_undo_does_not(
    gpt2: Model, tmp_path: Path
) -> None:
    near = Codebook(1, torch.ones(1, gpt2.d_mlp), torch.ones(1, gpt2.d_model), torch.tensor([1e-3]))
    edit = Edit((Fact("Anna", "{} lives in", "Paris", "Oslo"),), "grace", (near,), gpt2.fingerprint)
    with edit.applied(gpt2), pytest.warns(UserWarning, match="1 edits of .* by grace work next to its weights"):
        gpt2.hf.save_pretrained(tmp_path / "with")
    gpt2.hf.save_pretrained(tmp_path / "without")
    assert "save_pretrained" not in vars(gpt2.hf)


@pytest.mark.parametrize("method", ["grace", "in_context"])
def test_nothing_is_kept_as_the_models_own_while_an_edit_that_its_weights_do_not_show_is_applied(
    method: str, fresh: Callable, tmp_path: Path
) -> None:
    model, texts = fresh("gpt2"), ["Rome is in", "Anna lives in Oslo"]
    near = Codebook(1, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model), torch.tensor([1e-3]))
    update = near if method == "grace" else Preamble(torch.tensor([5, 6, 7]))
    edit = Edit((Fact("Anna", "{} lives in", "Paris", "Oslo"),), method, (update,), model.fingerprint)
    kept: list[Callable[[], object]] = [
        lambda: harvest(model, texts, [resid_post[1]], tmp_path / "store"),
        lambda: covariances(model, texts, [1], cache=tmp_path / "covariance"),
        lambda: tune(model, texts, steps=1, checkpoint=tmp_path / "lens"),
    ]
    with edit.applied(model):
        for keep in kept:
            with pytest.raises(
                WrongState, match=f"edits by {method} work next to the model's weights, and what is kept"
            ):
                keep()
        assert load(model.hf, model.tokenizer).contract is not None, "a model may be read and checked as it is"
    assert not any(tmp_path.iterdir())
    kept[0]()


def test_the_leverage_of_keys_is_the_mean_of_their_squares_by_the_inverse_covariance() -> None:
    k, C = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[2.0, 0.5], [0.5, 1.0]])
    expected = sum(float(one @ C.inverse() @ one) for one in k) / 2
    assert measure_leverage(k, k @ C.inverse()) == pytest.approx(expected)
