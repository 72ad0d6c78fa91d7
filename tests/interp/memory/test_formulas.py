"""The numbers of editing, asking and remembering by themselves, against loops and closed forms of their own."""

import math
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hooks import Model, capture
from hooks.errors import EditRefused
from hooks.site import embed, mlp_act, mlp_in, mlp_out, resid_post
from interp.common.key_index import make_key_index
from interp.memory import Covariance, Edit, Fact, Query, Search, conflicts, covariance, knowledge, preview
from interp.memory.editing.change import LowRank, measure_leverage
from interp.memory.editing.checks import check_target_likely, measure_and_check
from interp.memory.editing.codebook import Codebook
from interp.memory.editing.contexts import OPENERS, generate_texts, prefixes
from interp.memory.editing.covariance import SHRINKAGES, choose_shrinkage, pool_halves
from interp.memory.editing.datastore import Datastore
from interp.memory.editing.keys import capture_means
from interp.memory.editing.multi_layer import Layer, choose_search, solve_ridge
from interp.memory.editing.prefix_cache import read_prefixes
from interp.memory.editing.prompt_cache import Preamble
from interp.memory.editing.value_search import ValueSearchResult, search_value, tokenise_statements
from interp.memory.editors.alphaedit import collect_keys, find_null_space, solve_confined
from interp.memory.evaluation.measurement import Preference, Reading, is_share, measure_norm, measure_reading
from interp.memory.evaluation.skills import measure_induction, measure_sums
from interp.memory.evaluation.text_metrics import measure_consistency, measure_fluency, measure_rarity
from interp.memory.facts.tables import table_cases
from interp.memory.neurons.agreement import compare_with_permutations
from interp.memory.neurons.triggers import triggers
from interp.memory.neurons.vocabulary import find_top_tokens, value_logits
from interp.memory.outside import (
    TokenMemory,
    choose_mixture,
    explain_vote,
    make_token_memory,
    measure_mixture,
    measure_recall,
    measure_retrieval,
    predict_mixture,
)
from interp.memory.outside.mixture import ChosenMixture, choose_temperatures, neighbour_votes
from interp.memory.outside.retrieval import _another
from interp.memory.tracing.corruption import corrupt_with_noise, corrupt_with_others, restore
from interp.memory.tracing.trace import Trace, find_roles, trace_mlp, trace_states

pytestmark = pytest.mark.usefixtures("unchecked")
FACT = Fact("Rome", "so {} is", "b", "a")
TEXTS = [f"text {i} of {'some' if i % 3 else 'a few more'}" for i in range(12)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Editing


@pytest.mark.parametrize("search", [Search(3, 0.5, 2.0, 0.3, 50.0, 0.0), Search(2, 2.0, 0.0, 0.0, 0.25, 0.0)])
def test_a_search_takes_adams_steps_on_its_loss_within_its_bound(gpt2: Model, search: Search) -> None:
    """By whole passes over each text: mean NLL + kl KL + decay ||d|| / ||v||, rate and bound in units of v."""
    v = 3 * random(gpt2.d_model, seed=5)
    contexts, kept = ("", "one. "), "so Rome was"
    said = tokenise_statements(gpt2, [FACT], contexts, ["so {} was"], "last subject")
    found = search_value(gpt2, said, {mlp_out[1]: v}, search)
    delta = torch.zeros(gpt2.d_model, requires_grad=True)
    unit = float(v.norm())
    adam = torch.optim.Adam([delta], lr=search.learning_rate * unit / gpt2.d_model**0.5)
    texts = [f"{context}so Rome is a" for context in contexts]
    ends = [len(context) + 7 for context in contexts]

    def run(text: str, column: int) -> Tensor:
        def add(_: object, __: object, out: Tensor) -> Tensor:
            return out.index_put((torch.tensor([0]), torch.tensor([column])), out[0, column][None] + delta)

        hook = gpt2.hf.transformer.h[1].mlp.register_forward_hook(add)
        logits = gpt2.hf(gpt2.tokens(text).ids).logits[0].log_softmax(-1)
        hook.remove()
        return logits

    with torch.no_grad():
        before = run(kept, 7)[7:]
    for step in range(search.steps + 1):
        rows = [run(text, end) for text, end in zip(texts, ends, strict=True)]
        nll = -torch.stack([
            row[[-3, -2]].gather(1, gpt2.tokens(text).ids[0, -2:, None]).mean()
            for row, text in zip(rows, texts, strict=True)
        ])  # fmt: skip
        now = run(kept, 7)[7:]
        kl = (before.exp() * (before - now)).sum(-1).mean()
        loss = nll.mean() + search.kl * kl + search.decay * delta.norm() / unit
        if step == search.steps:
            break
        (delta.grad,) = torch.autograd.grad(loss, delta)
        adam.step()
        with torch.no_grad():
            delta.mul_(min(1.0, search.clamp * unit / float(delta.norm())))
    torch.testing.assert_close(found.deltas[mlp_out[1]], delta.detach(), rtol=2e-3, atol=2e-4)
    assert found.steps == search.steps and found.kl == pytest.approx(float(kl.detach()), rel=1e-2, abs=1e-6)
    assert found.probability == pytest.approx(float((-nll.detach()).exp().mean()), rel=1e-3)


def planted_edit(model: Model, size: float = 0.1, layer: int = 1) -> Edit:
    update = LowRank(layer, random(2, model.d_mlp, seed=1), size * random(2, model.d_model, seed=2))
    return Edit((FACT,), "by hand", (update,), model.fingerprint, {"steps": 3.0})


def test_what_an_edit_reached_and_moved_is_measured_in_the_weights(gpt2: Model) -> None:
    edit = planted_edit(gpt2)
    c = covariance(gpt2, [f"some words {i} to read here" for i in range(20)], 1)
    delta, W = edit.weights[0].delta, gpt2.w_out(1).detach().double()
    effect = (torch.trace(delta.T @ c.matrix @ delta) / torch.trace(W.T @ c.matrix @ W)).sqrt()
    scaled = planted_edit(gpt2, 0.1 * 0.98 / float(effect))
    measured = measure_and_check(gpt2, scaled, [c], share=0.0).measured
    assert measured["relative_effect_1"] == pytest.approx(0.98, rel=1e-4)
    assert measured["relative_norm_1"] == pytest.approx(float(scaled.weights[0].delta.norm() / W.norm()), rel=1e-5)
    assert measure_norm(gpt2, scaled) == pytest.approx(measured["relative_norm_1"], rel=1e-6) and measured["steps"] == 3
    with scaled.applied(gpt2):
        ids = gpt2.tokens("so Rome is a").ids
        log_p = gpt2.run(ids)[0, -3:-1].detach().log_softmax(-1)
    reached = log_p.gather(1, ids[0, -2:, None])
    assert measured["edited_probability"] == pytest.approx(float(reached.mean().exp()), rel=1e-4)
    assert measured["edited_share"] == float((log_p.argmax(-1) == ids[0, -2:]).all())
    with pytest.raises(EditRefused, match="would move what it writes for usual tokens by 1.02 times"):
        measure_and_check(gpt2, planted_edit(gpt2, 0.1 * 1.02 / float(effect)), [c], share=0.0)


def test_a_value_is_likely_from_a_half() -> None:
    check_target_likely(FACT, ValueSearchResult({}, 0.5, 0.0, 3), "layer 1", Search())
    with pytest.raises(EditRefused, match=r"reached 'a' with probability 0.499 only, after 3 steps"):
        check_target_likely(FACT, ValueSearchResult({}, 0.499, 0.0, 3), "layer 1", Search())


def test_the_search_of_many_keys_decays_with_their_number_and_no_more_than_one() -> None:
    assert [choose_search(n).decay for n in (1, 10, 11, 50, 100, 400)] == pytest.approx([0.1, 0.1, 0.11, 0.5, 1.0, 1.0])


def test_a_layer_writes_its_part_by_ridge_regression_in_units_of_the_leverage() -> None:
    root = random(6, 6, seed=3).double()
    c = Covariance(root @ root.T + torch.eye(6).double(), 0.0, 4, 99, "m")
    k, r = random(3, 6, seed=4).double(), random(3, 5, seed=5).double()
    found = solve_ridge(Layer(c, k, r, 2), 0.2, 2.0)
    lam = 0.2 * measure_leverage(k, c.solve(k))
    expected = torch.linalg.inv(lam * c.matrix + k.T @ k) @ k.T @ r / 2
    torch.testing.assert_close(found.delta, expected)
    assert found.layer == 4 and found.at is not None and torch.equal(found.at, k)


def test_every_fifth_text_is_held_out_to_choose_the_shrinkage_and_for_the_error(gpt2: Model) -> None:
    texts = [f"{i} words {'more ' * (i % 3)}to read" for i in range(23)]
    keys = [capture(gpt2, text, mlp_act[1]).flat(mlp_act[1]).double() for text in texts]
    held, seen = (torch.cat([k for i, k in enumerate(keys) if (i % 5 == 4) == out]) for out in (True, False))
    found = covariance(gpt2, texts, 1, batch_size=4)
    n, m = len(seen), len(held)
    one, other = seen.T @ seen / n, held.T @ held / m
    assert found.shrinkage == choose_shrinkage(one, other) and found.n_tokens == n + m
    whole = (n * one + m * other) / (n + m)
    gap = float((one - other).norm() / whole.norm())
    assert found.error == pytest.approx(gap * math.sqrt(n * m) / (n + m), rel=1e-3)
    pooled = pool_halves(n * one, m * other, (n, m))
    assert pooled.error == pytest.approx(found.error, rel=1e-3) and torch.allclose(pooled.matrix, whole)
    assert len(SHRINKAGES) == 26 and SHRINKAGES[0] == 0.0
    assert SHRINKAGES[1] == pytest.approx(1e-6) and SHRINKAGES[-1] == 1.0 and SHRINKAGES[5] == pytest.approx(1e-5)


@pytest.mark.parametrize("n", [8, 20, 60, 400])
def test_the_shrinkage_is_that_of_the_least_likelihood_written_out(n: int) -> None:
    scales = torch.linspace(0.3, 2, 6).double()
    seen, held = (random(m, 6, seed=m).double() * scales for m in (n, 2 * n))
    one, other = seen.T @ seen / n, held.T @ held / (2 * n)

    def loss(shrinkage: float) -> float:
        c = (1 - shrinkage) * one + shrinkage * one.trace() / 6 * torch.eye(6).double()
        return float(torch.logdet(c) + (torch.linalg.inv(c) @ other).trace())

    assert choose_shrinkage(one, other) == min(SHRINKAGES, key=loss)
    assert n > 8 or choose_shrinkage(one, other) > 0.1


def test_a_covariance_without_full_rank_is_never_left_unshrunk() -> None:
    seen = torch.diag(torch.tensor([2.0, 1.0, 0.0]).double())
    assert choose_shrinkage(seen, torch.diag(torch.tensor([2.0, 1.0, 0.0]).double())) > 0
    assert choose_shrinkage(seen, torch.eye(3).double()) > 1e-3
    whole = torch.diag(torch.tensor([2.0, 1.0, 0.5]).double())
    assert choose_shrinkage(whole, whole) == 0.0


def test_the_search_begins_from_the_mean_of_what_the_texts_hold_that_look_a_subject_up(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = import_module("interp.memory.editing.multi_layer")
    begun: list[Any] = []
    result = ValueSearchResult({}, probability=0.9, kl=0.0, steps=1)
    monkeypatch.setattr(file, "search_value", lambda _m, _s, held, *_: begun.append(held) or result)
    monkeypatch.setattr(file, "check_targets_likely", lambda *_: None)
    contexts = ("", "they said . ", "well , ")
    said = file.tokenise_groups(gpt2, [(FACT,)], contexts, ["so {} was"], "last subject")
    file.search_targets(gpt2, [(FACT,)], said, [mlp_out[1]], Search(steps=1), progress=False)
    (one,) = said
    assert int(one.alike.sum()) == 4
    h = capture(gpt2, one.tokens, mlp_out[1]).flat(mlp_out[1], one.at).float()
    torch.testing.assert_close(begun[0][mlp_out[1]], sum(h[one.alike]) / 4)


def test_prefixes_and_texts_are_what_the_model_goes_on_with_after_ten_openers(gpt2: Model) -> None:
    openers = [*OPENERS, *OPENERS[:2]]
    rests = gpt2.generate(openers, max_new_tokens=10, temperature=1.0, seed=3)
    whole = [f"{a}{b}".split("\n")[0].rstrip(" .,;:") for a, b in zip(openers, rests, strict=True)]
    assert prefixes(gpt2, n=13, seed=3) == ("", *(f"{one}. " for one in whole))
    assert len(OPENERS) == 10 and prefixes(gpt2, n=1) == ("",)
    asked: list[tuple[int, int, int]] = []

    class Spy:
        """The model, whose generations are noted."""

        def __getattr__(self, name: str) -> Any:
            return getattr(gpt2, name)

        def generate(self, prompts: list[str], *, max_new_tokens: int, temperature: float, seed: int) -> list[str]:
            assert temperature == 1.0 and prompts == [OPENERS[i % 10] for i in range(40)]
            asked.append((len(prompts), max_new_tokens, seed))
            return [" on and on"] * len(prompts)

    contexts = import_module("interp.memory.editing.contexts")
    cut, contexts.cut_texts = contexts.cut_texts, lambda _, texts: [[text] for text in texts]
    try:
        assert len(generate_texts(Spy(), 2 * 40 * 64 + 1, seed=7)) == 120  # pyright: ignore[reportArgumentType]
        assert len(generate_texts(Spy(), 2 * 40 * 64)) == 80  # pyright: ignore[reportArgumentType]
    finally:
        contexts.cut_texts = cut
    assert asked == [(40, 64, 7), (40, 64, 8), (40, 64, 9), (40, 64, 0), (40, 64, 1)]


def test_mean_keys_are_means_over_contexts_fact_by_fact(gpt2: Model) -> None:
    facts = [Fact(name, "so {} is", "b", "a") for name in ("Rome", "Oslo", "Bern")]
    facts += [Fact(f"city {i}", "{} was", "b", "a") for i in range(16)]
    contexts = ("", "one. ", "and. ")
    for token in ("last subject", "last prompt"):
        (found,) = capture_means(gpt2, facts, contexts, [mlp_act[1]], token)
        for fact, row in zip(facts, found, strict=True):
            each = []
            for context in contexts:
                end = context + (
                    fact.text if token == "last prompt" else fact.text[: fact.prompt.index("{}") + len(fact.subject)]
                )
                each.append(capture(gpt2, end, mlp_act[1])[mlp_act[1]][0, -1])
            torch.testing.assert_close(row, torch.stack(each).mean(0), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_is_left_of_each_text_knows_where_it_was(gpt2: Model, padded_left: Callable, side: str) -> None:
    model = gpt2 if side == "right" else padded_left(gpt2)
    texts = ["so Rome is a", "and one. so Rome is a", "Rome"]
    said = model.tokens(texts)
    at = torch.zeros_like(said.mask)
    for row, end in enumerate((7, 16, 4)):
        at[row, int(said.mask[row].int().argmax()) + end] = True
    left = read_prefixes(model, said, at)
    assert left.of(at).nonzero().tolist() == [[row, 0] for row in range(3)]
    assert [int(left.of(said.mask)[row].sum()) for row in range(3)] == [6, 6, 1]
    for row in range(3):
        real = said.ids[row][said.mask[row]][(7, 16, 4)[row] :]
        assert left.ids[row, : len(real)].tolist() == real.tolist()
    logits = left.logits(model).detach()
    for row, text in enumerate(texts):
        whole = model.run(text)[0, (7, 16, 4)[row] :].detach()
        torch.testing.assert_close(logits[row, : len(whole)], whole, rtol=1e-3, atol=1e-4)


def test_a_preamble_gives_the_logits_of_it_and_the_text_read_as_one(gpt2: Model, padded_left: Callable) -> None:
    before = gpt2.tokens("all is fog. ").ids[0]
    for model in (gpt2, padded_left(gpt2)):
        undo = Preamble(before).attach(model)
        try:
            found = model.run(["so it is", "a bay"]).detach()
            alone = model.run("a bay").detach()
            said = model.generate("a bay", max_new_tokens=4)
        finally:
            undo()
        mask = model.tokens(["so it is", "a bay"]).mask
        for row, text in enumerate(["so it is", "a bay"]):
            ids = torch.cat([before, gpt2.tokens(text).ids[0, 1:]])[None]
            whole = gpt2.run(ids)[0, len(before) :].detach()
            torch.testing.assert_close(found[row][mask[row]][1:], whole, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(alone[0, 1:], whole, rtol=1e-3, atol=1e-4)
        assert (
            gpt2.tokenizer.decode(gpt2.hf.generate(ids, max_new_tokens=4, do_sample=False)[0, ids.shape[1] :]) == said
        )
    control = Preamble(before).control(torch.Generator().manual_seed(0)).ids
    assert control[0] == before[0] and sorted(control.tolist()) == sorted(before.tolist())
    assert not torch.equal(control, before)


def test_edits_conflict_from_a_half_of_what_one_writes_at_the_other(gpt2: Model) -> None:
    e = torch.eye(gpt2.d_mlp).double()
    value = torch.ones(1, gpt2.d_model).double()

    def edit(key: Tensor, at: Tensor | None, name: str) -> Edit:
        return Edit((Fact(name, "{} is", "b", "a"),), "x", (LowRank(1, key, value, at),), gpt2.fingerprint)

    one = edit(e[:1], e[:1], "Rome")
    for share, n in ((0.52, 1), (0.48, 0), (-0.52, 1)):
        assert len(conflicts([one, edit(e[1:2], share * e[:1] + e[1:2], "Oslo")])) == n
        assert (
            len(
                conflicts(
                    [edit(5 * e[:1], None, "Rome"), edit(share * e[:1] + (1 - share**2) ** 0.5 * e[1:2], None, "Oslo")]
                )
            )
            == n
        )
    other = Edit(one.facts, "x", (LowRank(2, e[:1], value, e[:1]),), gpt2.fingerprint)
    assert conflicts([one, other]) == ()
    near, far = (Codebook(1, x * e[:1].float(), value.float(), torch.tensor([1.0])) for x in (1.9, 2.1))
    book = Codebook(1, 0 * e[:1].float(), value.float(), torch.tensor([1.0]))
    assert book.overlaps(near) and not book.overlaps(far) and not replace(near, layer=2).overlaps(book)
    said = repr(Edit((one.facts[0], Fact("Oslo", "{} is", "b", "a")), "x", one.updates, "m", {"norm": 0.25}))
    assert said == "Edit(x, 'Rome is': 'b' -> 'a' and 1 more, layers [1], norm 0.25)"


def test_a_codebook_answers_by_the_key_that_is_nearest_in_units_of_its_radius() -> None:
    keys, radius = torch.tensor([[0.0, 0.0], [3.0, 0.0]]), torch.tensor([0.5, 2.0])
    book = Codebook(0, keys, torch.eye(2), radius)
    near, j = book.nearest(torch.tensor([[1.2, 0.0], [0.5, 0.0], [0.51, 0.0], [5.0, 0.0], [5.1, 0.0]]))
    assert near.tolist() == [True, True, False, True, False] and j[[0, 1, 3]].tolist() == [1, 0, 1]
    turned = book.control(torch.Generator().manual_seed(0))
    assert torch.allclose(turned.values.norm(dim=1), torch.ones(2)) and not torch.allclose(turned.values, book.values)
    store = Datastore("mlp_in.0", keys, torch.tensor([0, 5]), 1.0, 0.5).control(torch.Generator().manual_seed(1))
    assert sorted(store.tokens.tolist()) == [1, 4]


def test_the_keys_of_earlier_edits_are_kept_but_those_that_are_written_again() -> None:
    def edit(names: list[str], layer: int, seed: int) -> Edit:
        k = random(len(names), 6, seed=seed).double()
        facts = tuple(Fact(name, "{} is", "b", "a") for name in names)
        return Edit(facts, "x", (LowRank(layer, k, random(len(names), 5).double(), k),), "m")

    one, two, other = edit(["Rome", "Oslo"], 1, 1), edit(["Bern"], 1, 2), edit(["Ulm"], 2, 3)
    at = [edit.weights[0].at for edit in (one, two)]
    found = collect_keys([one, two, other], 1, 6, "last subject", {"Oslo"})
    assert torch.equal(found, torch.cat([at[0][:1], at[1]]))  # pyright: ignore[reportOptionalSubscript, reportCallIssue, reportArgumentType]
    assert torch.equal(collect_keys([one], 1, 6, "last prompt", {"Oslo"}), at[0])  # pyright: ignore[reportArgumentType]
    assert collect_keys([other], 1, 6, "last subject", ()).shape == (0, 6)
    values = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    c = Covariance(torch.diag(values), 0.0, 0, 9, "m")
    assert [find_null_space(c, energy).shape[1] for energy in (0.1, 0.29, 0.31, 0.61)] == [1, 1, 2, 3]
    k, kept = random(2, 4, seed=7).double(), random(1, 4, seed=8).double()
    basis = torch.eye(4).double()[:, :3]
    lam = 0.5 * float((k @ basis).square().sum(1).mean())
    P = basis @ basis.T
    expected = torch.linalg.inv(P @ (k.T @ k + kept.T @ kept) @ P + lam * torch.eye(4)) @ P @ k.T
    torch.testing.assert_close(solve_confined(k, kept, basis, 0.5), expected.T)


def unchecked_edit(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """An editor's module in which no edit is refused at the end."""
    module = import_module(f"interp.memory.editors.{name}")
    monkeypatch.setattr(module, "measure_and_check", lambda _model, edit, *_, **__: edit)
    return module


@pytest.mark.parametrize(("bound", "stop", "steps"), [(10.0, 0.0, 3), (0.02, 0.0, 3), (10.0, 1e9, 0)])
def test_ft_l_takes_adams_steps_within_a_bound_in_units_of_the_weight(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch, bound: float, stop: float, steps: int
) -> None:
    contexts = ("", "one. ")
    edit = unchecked_edit(monkeypatch, "ft_l").ft_l(
        gpt2, [FACT], layer=1, bound=bound, learning_rate=0.05, steps=3, stop=stop, contexts=contexts
    )
    W = gpt2.w_out(1).detach()
    unit = float(W.square().mean().sqrt())
    delta = torch.zeros(W.shape, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=0.05 * unit)

    def loss_of() -> Tensor:
        nll = []
        hook = gpt2.hf.transformer.h[1].mlp.c_proj.register_forward_hook(lambda _, args, out: out + args[0] @ delta)
        for context in contexts:
            ids = gpt2.tokens(f"{context}so Rome is a").ids
            log_p = gpt2.hf(ids).logits[0, -3:-1].log_softmax(-1)
            nll.append(-log_p.gather(1, ids[0, -2:, None]).mean())
        hook.remove()
        return torch.stack(nll).mean()

    for _ in range(steps):
        (delta.grad,) = torch.autograd.grad(loss_of(), delta)
        adam.step()
        with torch.no_grad():
            delta.clamp_(-bound * unit, bound * unit)
    torch.testing.assert_close(edit.weights[0].delta.float(), delta.detach(), rtol=2e-3, atol=1e-5)
    assert edit.measured == {
        "target_probability": pytest.approx(float((-loss_of().detach()).exp()), rel=1e-3),
        "steps": steps,
    }


def test_a_memory_of_answers_stores_the_state_before_each_of_their_tokens(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = unchecked_edit(monkeypatch, "knn_memory")
    fact = Fact("Rome", "so {} is", "b", "ace")
    (store,) = module.knn_memory(gpt2, fact, radius=0.2, weight=0.7, contexts=("", "one. ")).updates
    states = [capture(gpt2, f"{context}so Rome is ace", mlp_in[2])[mlp_in[2]][0, -5:-1] for context in ("", "one. ")]
    torch.testing.assert_close(store.keys, torch.cat(states), rtol=1e-3, atol=1e-5)
    assert gpt2.tokenizer.decode(store.tokens) == " ace ace" and (store.site, store.weight) == ("mlp_in.2", 0.7)
    assert store.radius == pytest.approx(0.2 * float(torch.cat(states).norm(dim=1).mean()), rel=1e-4)
    (other,) = module.knn_memory(gpt2, fact, layer=0).updates
    assert other.site == "mlp_in.0" and other.weight == 0.9


def test_grace_stores_a_value_of_its_own_for_each_context_within_a_share_of_the_keys_length(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = unchecked_edit(monkeypatch, "grace")
    delta, seen = random(gpt2.d_model), []

    def search(_model: Model, _said: object, v: dict[Any, Tensor], how: Search) -> ValueSearchResult:
        seen.append(how)
        return ValueSearchResult({next(iter(v)): delta}, 0.9, 0.0, 4)

    monkeypatch.setattr(module, "search_value", search)
    (book,) = module.grace(gpt2, FACT, layer=1, radius=1e-3, contexts=("", "one. "), preserve=["{} is a"]).updates
    for row, context in enumerate(("", "one. ")):
        acts = capture(gpt2, f"{context}so Rome is", [mlp_act[1], mlp_out[1]])
        k, v = (acts[site][0, -1] for site in (mlp_act[1], mlp_out[1]))
        torch.testing.assert_close(book.keys[row], k, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(book.values[row], v + delta, rtol=1e-3, atol=1e-4)
        assert float(book.radius[row]) == pytest.approx(1e-3 * float(k.norm()), rel=1e-4)
    assert seen[0] == Search(steps=100, kl=0.0, decay=0.0, clamp=16.0)
    assert [float(1 - module.SPLIT)] == pytest.approx([1e-5], rel=1e-3)


def test_emmet_writes_all_values_at_once_with_a_ridge_in_units_of_the_leverage_and_one_exactly(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = unchecked_edit(monkeypatch, "emmet")
    root = random(gpt2.d_mlp, gpt2.d_mlp, seed=3).double()
    c = Covariance(root @ root.T, 0.0, 1, 999, gpt2.fingerprint)
    rows = iter(range(99))

    def search(_model: Model, _group: object, _place: object, _contexts: object, _preserve: object, how: Search):
        row = next(rows)
        assert how == choose_search(len(facts))
        return random(gpt2.d_mlp, seed=10 + row), ValueSearchResult(
            {"x": random(gpt2.d_model, seed=20 + row)}, 0.9, 0.0, 2
        )  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(module, "search_key_and_value", search)
    for names, ridge in ((["Rome", "Oslo", "Bern"], 0.1), (["Rome"], 0.0)):
        first, facts = next(rows) + 1, [Fact(name, "{} is", "b", "a") for name in names]
        edit = module.emmet(gpt2, facts, covariance=c, token="last subject", contexts=("",), ridge=0.1)
        k, r = (
            torch.stack([random(d, seed=s + first + i) for i in range(len(names))]).double()
            for d, s in ((gpt2.d_mlp, 10), (gpt2.d_model, 20))
        )
        inverse = c.solve(k)
        rho = ridge * float((k * inverse).sum(1).mean())
        expected = (torch.linalg.inv(k @ inverse.T + rho * torch.eye(len(names))) @ inverse).T @ r
        torch.testing.assert_close(edit.weights[0].delta, expected, rtol=1e-5, atol=1e-9)
        assert torch.equal(edit.weights[0].at, k)


# Evaluation


def test_a_preview_is_what_two_readings_of_the_texts_differ_by(gpt2: Model) -> None:
    edit = planted_edit(gpt2, layer=0)
    found = preview(gpt2, edit, TEXTS[:4], top=6)
    sites = [mlp_act[layer] for layer in range(3)]
    with torch.no_grad():
        plain = [(gpt2.run(text)[0].log_softmax(-1), capture(gpt2, text, sites)) for text in TEXTS[:4]]
        with edit.applied(gpt2):
            moved = [(gpt2.run(text)[0].log_softmax(-1), capture(gpt2, text, sites)) for text in TEXTS[:4]]
    kls = [(p.exp() * (p - q)).sum(-1)[1:] for (p, _), (q, _) in zip(plain, moved, strict=True)]
    order = sorted(range(4), key=lambda i: -float(kls[i].max()))
    assert [one.kl for one in found.texts] == pytest.approx([float(kls[i].max()) for i in order], rel=1e-3)
    for one, i in zip(found.texts, order, strict=True):
        at = int(kls[i].argmax())
        assert one.text == TEXTS[i][: at + 1] and one.token == at
        said = [gpt2.tokenizer.decode(int(rows[i][0][at + 1].argmax())) for rows in (plain, moved)]
        assert [one.before, one.after] == said
    assert found.n_tokens == sum(map(len, TEXTS[:4]))
    values = torch.stack([torch.cat([acts.flat(site) for _, acts in plain]) for site in sites])
    others = torch.stack([torch.cat([acts.flat(site) for _, acts in moved]) for site in sites])
    change = (others - values).square().mean(1).sqrt() / values.square().mean((1, 2)).sqrt()[:, None]
    best = change.flatten().topk(6)
    assert [one.change for one in found.memories] == pytest.approx(best.values.tolist(), rel=1e-3)
    assert [(m.layer, m.neuron) for m in found.memories] == [divmod(i, gpt2.d_mlp) for i in best.indices.tolist()]
    frame = found.to_pandas()
    assert len(frame) == 10 and frame["change"].tolist() == pytest.approx(
        [*(one.kl for one in found.texts), *(one.change for one in found.memories)]
    )


def test_texts_are_read_token_by_token_and_drift_is_the_kl_from_before(gpt2: Model) -> None:
    found = measure_reading(gpt2, TEXTS[:3])
    rows, nats = [], []
    for text in TEXTS[:3]:
        ids = gpt2.tokens(text).ids[0]
        log_p = gpt2.run(text)[0, :-1].detach().log_softmax(-1)
        rows.append(log_p)
        nats.append(-log_p.gather(1, ids[1:, None])[:, 0])
    assert found.loss == pytest.approx(float(torch.cat(nats).mean()), rel=1e-4)
    assert len(found.log_probs) == sum(map(len, rows)) and torch.allclose(found.log_probs, torch.cat(rows), atol=1e-4)
    p, q = (random(4, 5, seed=s).log_softmax(-1) for s in (1, 2))
    kl, ratio = Reading(q, 1.5).measure_drift(Reading(p, 1.2))
    assert kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean())) and ratio == pytest.approx(math.exp(0.3))
    asked = Preference(torch.tensor([-1.0, -2.0, -1.0]), torch.tensor([-2.0, -1.0, -1.0]))
    assert asked.outcomes.tolist() == [True, False, False]
    assert asked.magnitudes.tolist() == pytest.approx([math.exp(-1) - math.exp(-2), math.exp(-2) - math.exp(-1), 0.0])
    shares = [n for n in ("efficacy said", "paraphrase magnitude", "neighbours true", "norm", "sums") if is_share(n)]
    assert shares == ["efficacy said", "neighbours true", "sums"]


def test_generated_texts_have_the_entropies_and_cosines_of_their_counts() -> None:
    text = "a b a b a c"
    two, three = [2, 2, 1], [2, 1, 1]  # ab ba ac; aba bab bac
    entropies = [-sum(n / sum(ns) * math.log2(n / sum(ns)) for n in ns) for ns in (two, three)]
    assert measure_fluency(text) == pytest.approx(100 * (entropies[0] / 3 + 2 * entropies[1] / 3))
    assert measure_fluency("a b") == measure_fluency("a") == 0.0
    idf = measure_rarity(["fog bay", "fog, sea", "Fog pier"])
    assert idf["fog"] == pytest.approx(1.0) and idf["bay"] == pytest.approx(math.log(4 / 2) + 1)
    rarest = idf["bay"]
    one = {"fog": 2 * idf["fog"], "gull": rarest}
    other = {"fog": idf["fog"], "bay": 2 * rarest}
    cosine = one["fog"] * other["fog"] / math.prod(sum(w * w for w in v.values()) ** 0.5 for v in (one, other))
    assert measure_consistency("fog Fog gull", ["fog bay", "bay"], idf) == pytest.approx(cosine)
    assert measure_consistency("gull", ["gull"], {}) == pytest.approx(1.0)


def test_skills_are_asked_on_the_same_random_tokens_and_sums(gpt2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from random import Random

    once = torch.arange(256)[torch.randint(256, (8, 12), generator=torch.Generator().manual_seed(0))]
    ids = torch.cat([once, once], 1)
    best = gpt2.run(ids).detach().argmax(-1)[:, 12:23]
    assert measure_induction(gpt2) == float((best == once[:, 1:]).double().mean())
    asked: list[str] = []
    monkeypatch.setattr(
        "interp.memory.evaluation.skills.says",
        lambda _m, prompts, _a: asked.extend(prompts) or [True] * 5 + [False] * 15,
    )
    draw = Random(0)
    assert measure_sums(gpt2) == 0.25
    assert asked == [f"{draw.randrange(10)} + {draw.randrange(10)} =" for _ in range(20)]


def test_a_case_of_the_tables_asks_five_neighbours_five_other_facts_and_five_references_at_most() -> None:
    cases = table_cases(200, 1)
    for kind in ("neighbours", "others", "references"):
        sizes = [len(getattr(case, kind)) for case in cases]
        assert max(sizes) == 5 and (kind == "others" or min(sizes) < 5), kind


# Single memories


def test_the_null_of_an_agreement_is_the_quantile_and_p_value_of_a_thousand_orders() -> None:
    g = torch.Generator().manual_seed(0)
    said, followed = (torch.randint(4, (30,), generator=g) for _ in range(2))
    rate, mean, most, p = compare_with_permutations(said, followed, seed=3)
    g = torch.Generator().manual_seed(3)
    dealt = [float((said[torch.randperm(30, generator=g)] == followed).double().mean()) for _ in range(1000)]
    assert rate.value == float((said == followed).double().mean()) and rate.n == 30
    assert most == pytest.approx(float(np.quantile(dealt, 0.95)))
    assert p == (1 + sum(one >= rate.value for one in dealt)) / 1001
    counts = [np.bincount(one.numpy(), minlength=4) for one in (said, followed)]
    assert mean == pytest.approx(float((counts[0] * counts[1]).sum()) / 900)


def test_knowledge_is_the_integral_of_the_slope_by_five_points_in_each_of_four_parts(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attribution of each memory against a fine sum, and the copies that a layer is read by: 4 x (5 + 2)."""
    module, rows = import_module("interp.memory.neurons.knowledge_neurons"), []
    scale = module._scale
    monkeypatch.setattr(
        module, "_scale", lambda m, q, site, alpha: rows.append(alpha.tolist()) or scale(m, q, site, alpha)
    )
    query = Query("so Rome is", "b")
    found = knowledge(gpt2, query, tolerance=0.5)
    assert [len(one) for one in rows] == [28] * 3
    points = sorted((x + 1) / 2 for x in np.polynomial.legendre.leggauss(5)[0])
    expected = [part / 4 + x / 4 for part in range(4) for x in [*points, 0.0, 1.0]]
    assert rows[0] == pytest.approx(expected, abs=1e-6)
    alpha = (torch.arange(400) + 0.5) / 400
    p, slope, m = scale(gpt2, query, mlp_act[1], alpha)
    torch.testing.assert_close(found.attribution[1], m * slope.mean(0), rtol=2e-3, atol=1e-6)
    ids = gpt2.tokens("so Rome is b").ids
    log_p = gpt2.run(ids)[0, -3:-1].detach().log_softmax(-1)
    assert found.clean == pytest.approx(float(log_p.gather(1, ids[0, -2:, None]).sum().exp()), rel=1e-4)
    assert float(p[200]) == pytest.approx(float(_by_hand(gpt2, ids, float(alpha[200]))), rel=1e-4)
    torch.testing.assert_close(found.error, found.attribution.sum(1) - (found.clean - found.without))
    assert float(found.without[1]) == pytest.approx(float(_by_hand(gpt2, ids, 0.0)), rel=1e-4)


@torch.no_grad()
def _by_hand(model: Model, ids: Tensor, alpha: float) -> Tensor:
    """p of the last two tokens with the memories of layer 1 scaled at the token before them."""

    def scaled(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        k = args[0].clone()
        k[0, -3] *= alpha
        return (k,)

    hook = model.hf.transformer.h[1].mlp.c_proj.register_forward_pre_hook(scaled)
    log_p = model.hf(ids).logits[0, -3:-1].log_softmax(-1)
    hook.remove()
    return log_p.gather(1, ids[0, -2:, None]).sum().exp()


def test_a_part_that_misses_the_rise_is_halved_until_it_does_not(gpt2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: p rises by a step of width 1/100, at 0.37; each memory gives its own share of it."""
    module, lengths = import_module("interp.memory.neurons.knowledge_neurons"), []

    def step(_model: Model, _query: Query, _site: object, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        lengths.append(len(alpha) // 7)
        x = (alpha.double() - 0.37) / 0.01
        p, slope = torch.sigmoid(x), torch.sigmoid(x) * torch.sigmoid(-x) / 0.01
        m = torch.zeros(gpt2.d_mlp)
        m[:3] = torch.tensor([2.0, 1.0, -1.0])
        share = torch.zeros(gpt2.d_mlp)
        share[:3] = torch.tensor([0.2, 0.4, -0.2])
        return p.float(), (slope[:, None] * share).float(), m

    monkeypatch.setattr(module, "_scale", step)
    found = knowledge(gpt2, Query("so Rome is", "b"), tolerance=1e-3)
    assert found.attribution[0, :3].tolist() == pytest.approx([0.4, 0.4, 0.2], abs=1e-3)
    assert found.clean == pytest.approx(1.0, abs=1e-3) and lengths[:2] == [4, 2] and len(lengths) > 9
    assert found.neurons(0.6) == ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    assert len(found.neurons(0.4)) == 9


def test_a_trigger_example_is_the_tokens_around_its_peak_and_the_one_after(gpt2: Model) -> None:
    found = triggers(gpt2, TEXTS, 1, top=3)
    numbers = [gpt2.tokens(text) for text in TEXTS]
    m = [capture(gpt2, text, mlp_act[1])[mlp_act[1]][0] for text in TEXTS]
    for neuron in (0, 7, 31):
        peaks = [float(one[1:-1, neuron].max()) for one in m]
        order = sorted(range(len(TEXTS)), key=lambda i: (-peaks[i], i))[:3]
        assert found.coefficient[neuron].tolist() == pytest.approx([peaks[i] for i in order], rel=1e-4, abs=1e-6)
        shown = found.examples(gpt2, neuron, context=4)
        for example, i in zip(shown, [i for i in order if peaks[i] > 0], strict=True):
            at = int(m[i][1:-1, neuron].argmax())  # of the characters of the text
            first = max(0, at - 4)
            assert example.tokens == tuple(TEXTS[i][first : at + 2]) and example.peak == at - first
            assert list(example.activations) == pytest.approx(
                m[i][1 + first : at + 3, neuron].tolist(), rel=1e-3, abs=1e-5
            )
        following = [int(numbers[i].ids[0, 2 + int(m[i][1:-1, neuron].argmax())]) for i in order if peaks[i] > 0]
        assert found.followed_by(neuron) == tuple(following)
    assert found.n_tokens == sum(len(text) - 1 for text in TEXTS)
    said, by = find_top_tokens(gpt2, 1, batch_size=7)
    whole = value_logits(gpt2, 1).max(1)
    assert torch.equal(said, whole.indices) and torch.allclose(by, whole.values, atol=1e-5)


# Memories outside of the weights


@pytest.fixture(scope="module")
def memory(gpt2: Model) -> TokenMemory:
    return make_token_memory(gpt2, TEXTS, mlp_in[1], batch_size=5)


def test_a_memory_holds_each_state_with_the_token_that_follows_in_its_own_text(
    gpt2: Model, memory: TokenMemory
) -> None:
    each = [(n, i) for n, text in enumerate(TEXTS) for i in range(len(text) - 1)]
    assert memory.document.tolist() == [n for n, _ in each]
    assert gpt2.tokenizer.decode(memory.tokens) == "".join(text[1:] for text in TEXTS)
    states = torch.cat([capture(gpt2, text, mlp_in[1])[mlp_in[1]][0, 1:-1] for text in TEXTS])
    torch.testing.assert_close(memory.keys, states, rtol=1e-3, atol=1e-5)
    less = make_token_memory(gpt2, TEXTS, mlp_in[1], limit=5)
    assert len(less) == 5 and torch.equal(less.tokens, memory.tokens[:5])


def test_the_nearest_entries_are_those_of_all_differences_in_parts_of_any_size(
    memory: TokenMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = memory.keys[::9] + 0.3 * random(*memory.keys[::9].shape)
    squared = ((q.double()[:, None] - memory.keys.double()) ** 2).sum(2)
    order = squared.argsort(dim=1, stable=True)[:, :7]
    for rows in (262_144, 50, 11):
        monkeypatch.setattr("interp.memory.outside.token_memory.ROWS", rows)
        found, at = memory.find(q, 7)
        torch.testing.assert_close(found, squared.gather(1, order))
        assert torch.equal(squared.gather(1, at), found)
    votes = neighbour_votes(memory, q, 7, 3.0, 257, within=float(found.median()))
    for row in range(len(q)):
        expected = torch.zeros(257).double()
        for d, i in zip(found[row], at[row], strict=True):
            if d <= found.median():
                expected[memory.tokens[i]] += torch.exp(-d / 3.0)
        total = expected.sum()
        torch.testing.assert_close(votes[row], expected / total if total > 0 else expected)


def test_a_prediction_mixes_vote_and_model_and_the_loss_is_of_the_next_tokens(gpt2: Model, memory: TokenMemory) -> None:
    texts, k = ["text of fog", "a bay", "x"], 5
    p_lm, p_knn, nearest = [], [], []
    for text in texts:
        ids, states = gpt2.tokens(text).ids[0], capture(gpt2, text, mlp_in[1])[mlp_in[1]][0, 1:]
        log_p = gpt2.run(text)[0, 1:].detach().log_softmax(-1)
        votes = neighbour_votes(memory, states, k, 20.0, gpt2.d_vocab)
        found = predict_mixture(gpt2, memory, text, weight=0.3, temperature=20.0, k=k)
        torch.testing.assert_close(found.exp().double(), 0.3 * votes + 0.7 * log_p.exp().double(), rtol=1e-3, atol=1e-6)
        follows = torch.arange(len(ids) - 2), ids[2:]
        p_lm.append(log_p.exp().double()[follows])
        p_knn.append(votes[follows])
        nearest.append(memory.find(states[:-1], k)[0] if len(states) > 1 else torch.zeros(0, k).double())
    lm, knn, near = torch.cat(p_lm), torch.cat(p_knn), torch.cat(nearest)
    chosen = choose_mixture(gpt2, memory, texts, k=k, weights=(0.0, 0.3, 0.6), temperatures=(20.0,))
    losses = {w: float(-(w * knn + (1 - w) * lm).log().mean()) for w in (0.0, 0.3, 0.6)}
    best = min(losses, key=losses.__getitem__)
    assert chosen.share == best and chosen.nats == pytest.approx(losses[best], rel=1e-4)
    reach = float(near[:, 0].median())
    within = choose_mixture(gpt2, memory, texts, k=1, weights=(0.6,), temperatures=(20.0,), within=(reach,))
    hits = []
    for text in texts[:2]:
        _, at = memory.find(capture(gpt2, text, mlp_in[1])[mlp_in[1]][0, 1:-1], 1)
        hits.append(memory.tokens[at[:, 0]] == gpt2.tokens(text).ids[0, 2:])
    hit = torch.cat(hits).double()
    p = torch.where(near[:, 0] <= reach, 0.6 * hit + 0.4 * lm, lm)
    assert within.nats == pytest.approx(float(-p.log().mean()), rel=1e-4) and within.within == pytest.approx(reach)
    gain = measure_mixture(gpt2, memory, texts, ChosenMixture(0.3, 20.0, k, 0.0))
    ratio = math.exp(float(-(0.3 * knn + 0.7 * lm).log().mean() + lm.log().mean()))
    assert gain.ratio.value == pytest.approx(ratio, rel=1e-3) and gain.ratio.n == 2
    assert gain.model.value == pytest.approx(math.exp(-float(lm.log().mean())), rel=1e-4)
    votes = explain_vote(gpt2, memory, "text of fog", temperature=20.0, k=3)
    squared, at = memory.find(capture(gpt2, "text of fog", mlp_in[1])[mlp_in[1]][0, -1:], 3)
    weights = torch.exp(-squared[0] / 20.0)
    for one, d, i, w in zip(votes, squared[0], at[0], weights / weights.sum(), strict=True):
        assert (one.entry, one.document) == (int(i), int(memory.document[i]))
        assert (one.squared, one.share) == (pytest.approx(float(d), rel=1e-4), pytest.approx(float(w), rel=1e-3))


def test_temperatures_are_around_the_median_distance_of_entries_that_are_apart() -> None:
    squared = torch.tensor([[0.0, 4.0, 2.0], [1e-9, 6.0, 8.0]])
    assert choose_temperatures(squared) == pytest.approx([4e-3, 4e-2, 0.4, 4.0, 4.0 * 10**0.5, 40.0])
    assert choose_temperatures(torch.zeros(2, 3)) == pytest.approx([1e-3, 1e-2, 0.1, 1.0, 10**0.5, 10.0])


def test_an_index_has_by_default_a_cell_for_39_keys_and_looks_into_a_sixteenth() -> None:
    pytest.importorskip("faiss")
    keys = random(2000, 4)
    found = make_key_index(keys)
    assert (found.cells, found.probes, found.held.cp.niter, found.held.cp.seed) == (51, 3, 10, 1)
    assert make_key_index(random(12_000, 3), seed=4).cells == 307 and make_key_index(keys[:20]).cells == 1
    assert make_key_index(keys[:700]).cells == 17 and make_key_index(keys[:700]).probes == 1
    assert found.held.ntotal == 2000 and found.held.cp.max_points_per_centroid == 64
    memory = TokenMemory(keys, torch.zeros(2000).long(), torch.zeros(2000).long(), mlp_in[0], "m")
    indexed = memory.with_index(cells=20, probes=2)
    exact, some = memory.find(keys[:40] + 0.1, 6)[0], indexed.find(keys[:40] + 0.1, 6)[0]
    assert measure_recall(indexed, keys[:40] + 0.1, k=6).value == pytest.approx(
        float((some <= exact[:, -1:]).double().mean())
    )


class Planted:
    """A search whose order of passages is given."""

    def __init__(self, order: list[list[int]], passages: tuple[str, ...]) -> None:
        self.order, self.passages = torch.tensor(order), passages

    def find(self, questions: list[str], k: int = 5) -> tuple[Tensor, Tensor]:
        at = self.order[: len(questions), :k]
        return torch.zeros(at.shape, dtype=torch.float64), at


def test_retrieval_is_counted_by_the_rank_of_the_right_passage() -> None:
    order = [[0, 1, 2, 3], [0, 2, 1, 3], [3, 0, 1, 2], [1, 2, 0, 3]]
    found = measure_retrieval(Planted(order, ("a", "b", "c", "d")), ["q"] * 4, [0, 2, 2, 3], k=3)
    assert (found.first.value, found.among.value, found.k) == (0.25, 0.5, 3)
    assert found.reciprocal.value == pytest.approx((1 + 1 / 2 + 0 + 0) / 4)
    from random import Random

    draw = Random("deal 0")
    others = [draw.choice([j for j in (0, 2, 3) if j != i]) for i in (0, 2, 2, 3)]
    assert found.chance.value == sum(row[0] == other for row, other in zip(order, others, strict=True)) / 4
    passages = ["x" * n for n in range(1, 30)] + ["the fog"]
    near = sorted((i for i in range(29) if i != 14), key=lambda i: abs(i - 14))[:10]
    assert _another(passages, 14, "fog", 3) == Random("another 3 14").choice(near)
    assert {_another(passages, 14, "fog", seed) for seed in range(200)} == {*near}


# Tracing


def test_noise_is_drawn_for_the_subjects_tokens_and_restored_spots_are_means_over_draws(gpt2: Model) -> None:
    from interp.memory import Subject

    fact = Subject("so Rome is", "b", "Rome")
    broken = corrupt_with_noise(gpt2, fact, 2.0, 3, torch.Generator().manual_seed(5))
    assert broken.columns.tolist() == [4, 5, 6, 7] and broken.draws == 3 and not bool(broken.noise[0].any())
    drawn = 2.0 * torch.randn(3, 4, gpt2.d_model, generator=torch.Generator().manual_seed(5))
    assert torch.equal(broken.noise[1:], drawn) and broken.answer == int(gpt2.tokens("b").ids[0, 1])
    spots = [([5], [resid_post[0]]), ([4, 7], [mlp_out[1], mlp_out[2]])]
    asked = gpt2.tokens(fact.prompt + " ").ids  # the space before the answer is a token of its own
    assert broken.ids.equal(asked.expand(4, -1))
    clean, corrupted, each = restore(gpt2, broken, spots, 100)
    held = capture(gpt2, asked, [resid_post[0], mlp_out[1], mlp_out[2]])

    def probability(noise: Tensor | None, columns: list[int], sites: list[Any]) -> float:
        def put(site: Any) -> Any:
            def change(a: Tensor) -> Tensor:
                a = a.clone()
                for column in columns:
                    a[:, column] = held[site][0, column]
                return a

            return change

        hooks = [gpt2.tap(site).attach(put(site)) for site in sites]
        wte = gpt2.hf.transformer.wte
        if noise is not None:
            hooks.append(
                wte.register_forward_hook(lambda _m, _i, out: out.index_add(1, torch.tensor([4, 5, 6, 7]), noise[None]))
            )
        with torch.no_grad():
            p = gpt2.hf(asked).logits[0, -1].softmax(-1)[broken.answer]
        for hook in hooks:
            hook.remove()
        return float(p)

    assert float(clean) == pytest.approx(probability(None, [], []), rel=1e-4)
    assert float(corrupted) == pytest.approx(sum(probability(n, [], []) for n in drawn) / 3, rel=1e-4)
    for value, (columns, sites) in zip(each.tolist(), spots, strict=True):
        assert value == pytest.approx(sum(probability(n, columns, sites) for n in drawn) / 3, rel=1e-4)
    for size in (2, 4, 5, 7):
        torch.testing.assert_close(restore(gpt2, broken, spots, size)[2], each, rtol=1e-4, atol=1e-7)
    order = torch.randperm(2, generator=torch.Generator().manual_seed(1)).tolist()
    other = corrupt_with_others(gpt2, fact, ["Oslo", "Rome", "Bern", "Ghent"], 5, torch.Generator().manual_seed(1))
    said = [gpt2.tokenizer.decode(row[1:]) for row in other.ids]
    assert said == ["so Rome is ", *(f"so {('Oslo', 'Bern')[i]} is " for i in order)]


def test_a_trace_has_a_column_for_each_window_and_a_row_for_each_role(gpt2: Model) -> None:
    from interp.memory import Subject

    facts = [Subject("so Rome is in it", "b", "Rome"), Subject("Oslo was", "c", "Oslo")]
    found = trace_mlp(gpt2, facts, 2, draws=2, noise=1.5, seed=4)
    assert found.layers == ((0, 1), (1, 2)) and found.restored.shape == (2, 6, 2)
    embedded = [
        capture(gpt2, fact.prompt, [embed])[embed][0, first : first + 4]
        for fact, first in zip(facts, (4, 1), strict=True)
    ]
    sigma = float(torch.cat(embedded).std())
    for row, fact in enumerate(facts):
        broken = corrupt_with_noise(gpt2, fact, 1.5 * sigma, 2, torch.Generator().manual_seed(4 + row))
        roles = find_roles(broken.ids.shape[1], broken.columns.tolist())
        spots = [(role, [mlp_out[a], mlp_out[a + 1]]) for role in roles if role for a in (0, 1)]
        clean, corrupted, each = restore(gpt2, broken, spots, 50)
        assert float(found.clean[row]) == pytest.approx(float(clean), rel=1e-4)
        assert float(found.corrupted[row]) == pytest.approx(float(corrupted), rel=1e-4)
        values = found.restored[row][[bool(role) for role in roles]]
        torch.testing.assert_close(values.flatten(), each, rtol=1e-3, atol=1e-6)
    assert torch.equal(found.indirect_effect, found.restored - found.corrupted[:, None, None]) or bool(
        found.restored.isnan().any()
    )
    torch.testing.assert_close(
        found.recovered.nan_to_num(0.0),
        (found.indirect_effect / (found.clean - found.corrupted)[:, None, None]).nan_to_num(0.0),
    )
    low, high = found.interval(draws=300, seed=2)
    g = torch.Generator().manual_seed(2)
    means = torch.stack([found.indirect_effect[torch.randint(2, (2,), generator=g)].nanmean(0) for _ in range(300)])
    drawn = means[:, 2, 1].numpy()
    assert [float(low[2, 1]), float(high[2, 1])] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist(), rel=1e-4)
    assert trace_states(gpt2, facts[:1], draws=1).layers == ((0,), (1,), (2,))


def test_the_rival_of_a_place_is_the_best_of_another_role_on_average() -> None:
    restored = torch.zeros(3, 6, 2)
    restored[:, 2, 0] = torch.tensor([0.9, 0.8, 0.1])
    restored[:, 4, 1] = torch.tensor([0.3, 0.1, 0.2])
    restored[:, 5, 0] = torch.tensor([0.5, 0.0, 0.0])
    restored[:, 2, 1] = 0.59
    trace = Trace("feed-forward", tuple("abcdef"), ((0,), (1,)), torch.full((3,), 0.9), torch.zeros(3), restored)
    found = trace.location
    assert (found.role, found.layers) == ("c", (0,))
    assert found.margin.value == pytest.approx((0.6 + 0.7 - 0.1) / 3) and found.majority.value == pytest.approx(2 / 3)
    assert replace(found, layers=(3, 4, 5, 6)).layer == 5 and replace(found, layers=(3, 4, 5)).layer == 4
    sure = replace(found, margin=replace(found.margin, low=0.1, n=2))
    assert sure.sure and not replace(found, margin=replace(found.margin, low=0.0, n=2)).sure
    assert not replace(found, margin=replace(found.margin, low=0.1, n=1)).sure


# What is chosen


@pytest.mark.parametrize(
    ("said", "losses", "step"),
    [
        ([False, True, True, True, False], [1.0, 4.0, 2.0, 3.0, 0.5], 2),
        ([True, True, False, False, False], [2.0, 3.0, 1.0, 0.5, 0.1], 0),
        ([False] * 5, [5.0, 1.0, 2.0, 3.0, 4.0], 4),
    ],
)
def test_a_search_ends_in_the_least_loss_of_those_that_say_it_or_in_the_last(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch, said: list[bool], losses: list[float], step: int
) -> None:
    module, turn = import_module("interp.memory.editing.value_search"), iter(said)
    monkeypatch.setattr(module, "_agrees", lambda *_: next(turn))
    planted = iter(losses)

    def objective(state: Any, _search: Search) -> tuple[Tensor, bool]:
        return state.nll - state.nll.detach() + next(planted), False

    statements = tokenise_statements(gpt2, [FACT], ("",), ["so {} was"], "last subject")
    found = search_value(gpt2, statements, {mlp_out[1]: random(gpt2.d_model)}, Search(steps=4), objective)
    assert found.steps == step


def test_editors_of_one_layer_write_into_the_middle_of_the_layers_that_are_located(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = import_module("interp.memory.editors.registry")
    place = Trace(
        "feed-forward", ("last subject",), ((0, 1, 2),), torch.ones(2), torch.zeros(2), torch.ones(2, 1, 1)
    ).location
    assert place.layers == (0, 1, 2) and place.layer == 1
    monkeypatch.setattr(registry, "locate_known_facts", lambda *_, **__: place)
    monkeypatch.setattr(registry, "measure_covariances", lambda _, layers, **__: tuple(f"C{layer}" for layer in layers))
    monkeypatch.setattr(registry, "choose_reaching_layer", lambda *_, **__: 2)
    names = ("rome", "emmet", "memit", "alphaedit", "ft_l", "grace", "in_context")
    made, located = registry.make_editors(gpt2, [*names, "rome"], [FACT], progress=False)
    assert located is place and tuple(made) == names
    quiet = {"token": "last subject", "progress": False}
    assert made["rome"].keywords == made["emmet"].keywords == {"covariance": "C1"} | quiet
    assert made["memit"].keywords == {"covariance": ("C0", "C1", "C2")} | quiet
    silent = {"progress": False}
    assert made["ft_l"].keywords == {"layer": 1} | silent and made["grace"].keywords == {"layer": 2} | silent
    made, located = registry.make_editors(gpt2, ["rome", "grace", "ft_l"], [FACT], layer=2, progress=False)
    assert located is None and made["rome"].keywords == {"covariance": "C2"} | quiet
    assert made["grace"].keywords == made["ft_l"].keywords == {"layer": 2} | silent


def test_a_capital_or_border_is_asked_the_other_way_round_of_its_new_object() -> None:
    from interp import landmark
    from interp.landmark.entities import find

    relation = {(t.subject.name, t.object): t.relation.name for t in landmark.triples()}
    asked = 0
    for case in table_cases(400, 3):
        name, entity = relation[case.fact.subject, case.fact.old], find(case.fact.new)
        back = {"capital": "city_country", "borders": "borders"}.get(name)
        if back is None or entity is None or landmark.relation(back).kind != entity.kind:
            assert case.reverse == ()
            continue
        (query,) = case.reverse
        asked += 1
        assert query.answer == landmark.entity(case.fact.subject).text and entity.text in query.prompt
    assert asked > 3


def test_of_several_values_that_fall_short_the_first_is_named() -> None:
    from interp.memory.editing.checks import check_targets_likely

    facts = [Fact(name, "{} is", "b", "a") for name in ("Rome", "Oslo", "Bern", "Ulm")]
    found = [ValueSearchResult({}, p, 0.0, 3) for p in (0.9, 0.3, 0.2, 0.8)]
    with pytest.raises(EditRefused, match="'Oslo is' reached 'a' with probability 0.300 only"):
        check_targets_likely(facts, found, "layer 1", Search())
    check_targets_likely(facts, found, "layer 1", Search(), share=0.5)
    even = [ValueSearchResult({}, p, 0.0, 3) for p in (0.5, 0.5, 0.2, 0.1)]
    check_targets_likely(facts, even, "layer 1", Search(), share=0.5)
    with pytest.raises(EditRefused, match="'Bern is' reached 'a' with probability 0.200 only"):
        check_targets_likely(facts, even, "layer 1", Search())
