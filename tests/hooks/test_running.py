"""A position means the same however the model reads: whole, in pieces, with guesses, beams or samples."""

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hooks import Intervention, Model, Position, Site, Tokens, capture, intervene
from hooks.interventions import add, apply, clamp, mean, project_out, replace, scale, zero
from hooks.position import (
    after,
    everywhere,
    first,
    generated,
    index,
    last,
    prompt,
    slice,
    special,
    substring,
    tokens,
)
from hooks.site import attn_out, embed, logits, mlp_act, mlp_out, pattern, resid_post, resid_pre, z

pytestmark = pytest.mark.usefixtures("unchecked")

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
TEXTS = ["Fog over", "No"]
POSITIONS = [
    everywhere,
    prompt,
    generated,
    last,
    first(2),
    index(0),
    slice(1, -1),
    substring("o"),
    after("o"),
    tokens(range(60, 90)),
    special,
    special | last,
    ~last,
    generated | first(1),
    ~substring("o") & ~generated,
]
Change = Callable[[Tensor, Position], Intervention]
CHANGES: list[Change] = [
    lambda v, at: add(3 * v, at=at),
    lambda v, at: scale(-1.5, at=at),
    lambda v, at: clamp(v, 6.0, at=at),
    lambda v, at: project_out(v, at=at),
    lambda v, at: mean(2 * v, at=at),
    lambda v, at: replace(-2 * v, at=at),
    lambda v, at: zero(at=at),
    lambda v, at: apply(torch.relu, at=at),
]
SITES = [embed, resid_pre[1], resid_post[0], attn_out[1], mlp_act[0], mlp_out[2], z[1]]


@contextmanager
def changed(model: Model, site: Site, change: Change, at: Position) -> Iterator[None]:
    """A block of one change, which may find no token to act on."""
    v = torch.randn(model.tap(site).shape, generator=torch.Generator().manual_seed(5))
    block = ExitStack()
    block.enter_context(intervene(model, {site: change(v, at)}))
    try:
        yield
    finally:
        with suppress(RuntimeError):
            block.close()


def read_again(model: Model, text: str, n: int) -> list[int]:
    """What greedy decoding says when the whole text is read again, without a cache, for every token."""
    read, said = model.tokens(text), []
    for _ in range(n):
        new = model.run(read)[:, -1:].argmax(-1)
        if int(new) == 256:
            break
        said.append(int(new))
        read = read.extend(new, torch.ones_like(new).bool(), torch.zeros_like(new).bool())
    return said


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.sampled_from(SITES), st.sampled_from(CHANGES), st.sampled_from(POSITIONS), st.sampled_from(POSITIONS), st.data()
)
def greedy_with_a_cache_is_without(
    model: Model, site: Site, change: Change, one: Position, other: Position, data: Any
) -> None:
    combined = data.draw(st.sampled_from([one, one | other, one & other, ~one]))
    with changed(model, site, change, combined):
        together = model.generate(TEXTS, max_new_tokens=3)
        alone = [model.tokenizer.decode(read_again(model, text, 3)) for text in TEXTS]
    assert together == alone


def test_greedy_generation_of_a_batch_with_a_cache_is_that_of_each_text_without_token_for_token(decoder: Model) -> None:
    greedy_with_a_cache_is_without(decoder)


PLANS = [
    {resid_post[1]: add(3 * V, at=generated)},
    {resid_post[0]: [scale(-1.0, at=last), add(2 * V, at=tokens(range(100)))]},
    {mlp_out[1]: mean(4 * V, at=substring("o")), resid_pre[2]: clamp(V, 9.0, at=after("g"))},
    {z[0]: zero(at=slice(1, None)), embed: replace(2 * V, at=special | index(-2))},
]


def read_in_pieces(model: Model, given: Tokens, pieces: Sequence[Tensor]) -> Tensor:
    """The logits of a text read piece by piece with one cache."""
    cache, parts = None, []
    with model.running.reading(given):
        for piece in pieces:
            output = model.hf(piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            parts.append(output.logits)
    return torch.cat(parts, dim=1)


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.sampled_from(PLANS), st.lists(st.integers(1, 13), max_size=4, unique=True))
def pieces_give_what_the_whole_gives(model: Model, plan: Any, cuts: list[int]) -> None:
    given = model.tokens("Fog over")
    new = torch.tensor([[40, 71, 103, 9, 256]])
    whole = given.extend(new, torch.ones_like(new).bool(), new == 256)
    with intervene(model, plan):
        expected = model.run(whole)
    with intervene(model, plan):
        got = read_in_pieces(model, given, whole.ids.tensor_split(sorted(cuts), dim=1))
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-3)


def test_a_text_read_in_pieces_wherever_they_are_cut_gives_the_logits_of_the_whole(gpt2: Model, llama: Model) -> None:
    """Pieces may end inside the prompt, or hold its end and several guesses at what follows."""
    for model in (gpt2, llama):
        pieces_give_what_the_whole_gives(model)


def test_guesses_that_were_rejected_leave_nothing(llama: Model) -> None:
    given = llama.tokens("Fog over")
    guessed, taken = torch.tensor([[40, 71, 103]]), torch.tensor([[40, 99, 98]])
    whole = given.extend(taken, torch.ones_like(taken).bool(), torch.zeros_like(taken).bool())
    plan = {resid_post[1]: add(3 * V, at=generated), mlp_out[0]: scale(3.0, at=tokens(99))}
    with intervene(llama, plan):
        expected = llama.run(whole)
    with intervene(llama, plan), llama.running.reading(given):
        cache = llama.hf(torch.cat([given.ids, guessed], dim=1), use_cache=True).past_key_values
        cache.crop(-2)
        got = llama.hf(taken[:, 1:], past_key_values=cache).logits
    torch.testing.assert_close(got, expected[:, -2:], atol=2e-4, rtol=1e-3)


WAYS: list[dict[str, Any]] = [
    {"use_cache": False},
    {"prompt_lookup_num_tokens": 3},
    {"prefill_chunk_size": 3},
    {"cache_implementation": "static"},
    {"assistant": 1},
]


def by_hugging_face(model: Model, text: str, ways: dict[str, Any], **more: Any) -> list[str]:
    """Continuations as Hugging Face's own `generate` makes them, from ids alone."""
    ids = model.tokens(text).ids
    rest = {name: value for name, value in ways.items() if name != "assistant"}
    said = model.hf.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, pad_token_id=256, **rest, **more
    )
    return [model.tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True) for row in said]


@pytest.mark.parametrize("ways", WAYS, ids=lambda ways: next(iter(ways)))
def test_every_way_hugging_face_decodes_is_intervened_on_alike(
    llama: Model, hf_model: Callable[..., Any], ways: dict[str, Any]
) -> None:
    """An assistant and a look-up hand over several guesses at once, the first ones together with the prompt."""
    assistant = {"assistant_model": hf_model("llama", seed=1)} if "assistant" in ways else {}
    for at in (generated, last, prompt, ~last | index(0), generated & tokens(range(0, 256, 2))):
        with changed(llama, resid_post[1], CHANGES[0], at):
            expected = llama.generate("Fog over fog over fog", max_new_tokens=6)
            said = by_hugging_face(llama, "Fog over fog over fog", ways, do_sample=False, **assistant)
        assert said == [expected], at


@pytest.mark.parametrize("settings", [{"num_beams": 3}, {"num_return_sequences": 3, "do_sample": True}], ids=str)
def test_beams_and_samples_with_a_cache_are_those_without(llama: Model, settings: dict[str, Any]) -> None:
    for at in (generated, last, substring("o"), after("g")):
        made = []
        for ways in ({}, {"use_cache": False}):
            torch.manual_seed(0)
            with (
                changed(llama, resid_post[1], CHANGES[0], at),
                llama.running.reading(llama.tokens("Fog on")),
            ):
                made.append(by_hugging_face(llama, "Fog on", ways, **settings))
        assert made[0] == made[1], at


def test_beams_are_changed_by_what_changes_their_tokens(llama: Model) -> None:
    plain = by_hugging_face(llama, "Fog on", {}, num_beams=3)
    with intervene(llama, {resid_post[1]: add(9 * V, at=generated)}) as receipt:
        assert by_hugging_face(llama, "Fog on", {}, num_beams=3) != plain
    assert receipt[resid_post[1]].prefill_tokens == 0
    assert receipt[resid_post[1]].decode_tokens == 3 * 5


def test_two_texts_decoded_in_turns_do_not_mix(llama: Model) -> None:
    plan = {resid_post[1]: [add(3 * V, at=generated), scale(2.0, at=substring("o"))]}
    texts, new = ["Fog over", "Lo"], torch.tensor([[40, 71, 103]])
    caches, got = [], []
    with intervene(llama, plan):
        for text in texts:
            given = llama.tokens(text)
            with llama.running.reading(given):
                caches.append(llama.hf(given.ids, use_cache=True).past_key_values)
        for i in range(3):
            got += [llama.hf(new[:, i : i + 1], past_key_values=cache).logits for cache in caches]
        for j, text in enumerate(texts):
            whole = llama.tokens(text).extend(new, torch.ones_like(new).bool(), torch.zeros_like(new).bool())
            torch.testing.assert_close(torch.cat(got[j::2], dim=1), llama.run(whole)[:, -3:], atol=2e-4, rtol=1e-3)


def test_a_cache_from_elsewhere_is_refused_whatever_ran_inside_the_block(gpt2: Model) -> None:
    filled = gpt2.hf(torch.tensor([[1, 2]]), use_cache=True).past_key_values
    message = "a KV cache was filled outside the block: start the generation inside it"
    with intervene(gpt2, {resid_post[0]: scale(2.0)}):
        gpt2.run("Fog over the bay")
        with pytest.raises(ValueError, match=message):
            gpt2.hf(torch.tensor([[3]]), past_key_values=filled)
    with intervene(gpt2, {resid_post[0]: scale(2.0)}):
        inside = gpt2.hf(torch.tensor([[1, 2]]), use_cache=True).past_key_values
        with pytest.raises(ValueError, match="the KV cache holds 1 texts, and 2 are continued: continue each"):
            gpt2.hf(torch.tensor([[3], [4]]), past_key_values=inside)


def test_a_part_of_the_model_run_alone_is_refused_also_after_the_whole(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[0]: scale(2.0)}):
        gpt2.run("Fog")
        with pytest.raises(RuntimeError, match=r"resid_post\.0 was reached outside the model's own forward"):
            gpt2.hf.transformer(torch.tensor([[1, 2]]))


def test_a_second_turn_has_a_prompt_of_its_own(llama: Model) -> None:
    """A conversation goes on in the cache of its first turn: what was generated then is now given."""
    one = llama.tokens("Fog over")
    new = torch.tensor([[40, 71]])
    two = llama.tokens(torch.cat([one.ids, new], dim=1))
    with intervene(llama, {resid_post[1]: add(V, at=last)}) as receipt:
        cache = llama.hf(one.ids, use_cache=True).past_key_values
        assert receipt[resid_post[1]].prefill_tokens == 1
        llama.hf.generate(two.ids, attention_mask=two.mask, past_key_values=cache, max_new_tokens=3, pad_token_id=256)
    assert (receipt[resid_post[1]].prefill_tokens, receipt[resid_post[1]].decode_tokens) == (2, 0)


def test_logits_picked_column_by_column_are_not_changed_at_the_wrong_ones(llama: Model) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with intervene(llama, {logits: zero(at=last)}):
        assert not bool(llama.hf(ids, logits_to_keep=1).logits.any())
        with pytest.raises(ValueError, match="logits_to_keep picks columns one by one, .*: pass how many"):
            llama.hf(ids, logits_to_keep=torch.tensor([0, 2]))
    with intervene(llama, {resid_post[0]: scale(2.0)}):
        torch.testing.assert_close(llama.hf(ids, logits_to_keep=torch.tensor([0, 2])).logits, llama.run(ids)[:, [0, 2]])


def test_a_mask_that_does_not_cover_the_cache_is_refused(llama: Model) -> None:
    with (
        pytest.raises(ValueError, match=r"mask of shape \(1, 2\) does not cover 1 texts of 4 tokens, those in the KV"),
        intervene(llama, {resid_post[0]: scale(2.0)}),
    ):
        cache = llama.hf(torch.tensor([[1, 2]]), use_cache=True).past_key_values
        llama.hf(torch.tensor([[3, 4]]), past_key_values=cache, attention_mask=torch.ones(1, 2).long())
    with (
        pytest.raises(ValueError, match=r"the attention mask hides the padding: pass one of \[batch pos\]"),
        intervene(llama, {resid_post[0]: scale(2.0)}),
    ):
        llama.hf(torch.tensor([[1, 2]]), attention_mask=torch.zeros(1, 1, 2, 2))


def test_the_model_run_by_an_intervention_does_not_disturb_the_pass_it_is_in(gpt2: Model) -> None:
    def by_another_text(a: Tensor) -> Tensor:
        return a + capture(gpt2, "Bay to see", mlp_act[0])[mlp_act[0]].mean()

    with intervene(gpt2, {resid_post[0]: apply(by_another_text, at=last), resid_post[1]: add(3 * V, at=last)}):
        nested = gpt2.run("Fog over")
    value = capture(gpt2, "Bay to see", mlp_act[0])[mlp_act[0]].mean()
    with intervene(
        gpt2, {resid_post[0]: add(torch.full((32,), float(value)), at=last), resid_post[1]: add(3 * V, at=last)}
    ):
        torch.testing.assert_close(gpt2.run("Fog over"), nested)


def test_an_inner_block_may_change_what_the_whole_model_returns(gpt2: Model) -> None:
    with intervene(gpt2, {resid_post[1]: add(V)}):
        once = gpt2.run("Fog over")
        with intervene(gpt2, {logits: scale(2.0, at=everywhere | special)}):
            torch.testing.assert_close(gpt2.run("Fog over"), 2 * once)


def test_generate_is_the_models_own_again_after_the_block(gpt2: Model, fresh: Callable[..., Model]) -> None:
    with intervene(gpt2, {resid_post[0]: scale(2.0)}):
        assert "generate" in vars(gpt2.hf)
        gpt2.run("Fog")
    assert "generate" not in vars(gpt2.hf)
    assert gpt2.running.current is None
    bert = fresh("bert")
    with intervene(bert, {resid_post[0]: scale(2.0)}):
        assert "generate" not in vars(bert.hf)  # which does not generate
        bert.run("Fog")


def test_at_rest_the_model_is_as_if_no_block_were_open(model: Model) -> None:
    plain = model.run("Fog")
    with intervene(model, {resid_post[0]: scale(2.0)}) as receipt:
        with model.running.at_rest():
            assert torch.equal(model.run("Fog"), plain)
        assert receipt.passes == 0
        assert not torch.equal(model.run("Fog"), plain)


def test_two_threads_capture_what_each_alone_captures(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sites, texts = [resid_post[0], resid_post[2], pattern[1]], ["Fog over the bay", "Bay"]
    alone = {text: capture(llama, text, sites) for text in texts}
    wrong = []

    def work(text: str) -> None:
        for _ in range(20):
            acts = capture(llama, text, sites)
            if not all(torch.equal(acts[site], alone[text][site]) for site in sites):
                wrong.append(text)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(work, texts))
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_a_copy_of_a_model_gives_what_the_model_gives(fresh: Callable[..., Model]) -> None:
    model = fresh("gpt2")
    for twin in (copy.deepcopy(model), copy.copy(model)):
        assert torch.equal(twin.run("Fog"), model.run("Fog"))


def test_blocks_left_in_any_order_leave_the_others_and_then_nothing(gpt2: Model) -> None:
    plain = gpt2.run("Fog")
    plans = [{resid_post[0]: add(V)}, {resid_post[1]: add(V)}, {resid_post[1]: scale(2.0)}]
    expected = {}
    for left in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)):
        with ExitStack() as stack:
            for one in left:
                stack.enter_context(intervene(gpt2, plans[one]))
            expected[left] = gpt2.run("Fog")
    for order in itertools.permutations(range(3)):
        blocks = [intervene(gpt2, plan) for plan in plans]
        for block in blocks:
            block.__enter__()
        gpt2.run("Fog")
        left = list(range(3))
        for one in order:
            blocks[one].__exit__(None, None, None)
            left.remove(one)
            assert torch.equal(gpt2.run("Fog"), expected[tuple(left)])
        assert torch.equal(gpt2.run("Fog"), plain) and not gpt2.running.active
        assert "generate" not in vars(gpt2.hf) and not gpt2.hf._forward_hooks and not gpt2.hf._forward_pre_hooks


def test_a_cache_of_an_earlier_block_is_refused_and_one_of_the_outer_block_goes_on(gpt2: Model) -> None:
    ids, new, plan = torch.tensor([[1, 2]]), torch.tensor([[3]]), {resid_post[0]: scale(2.0)}
    with intervene(gpt2, plan):
        cache = gpt2.hf(ids, use_cache=True).past_key_values
        with intervene(gpt2, {resid_post[1]: scale(1.0)}):
            went_on = gpt2.hf(new, past_key_values=cache).logits
        torch.testing.assert_close(went_on, gpt2.run(torch.cat([ids, new], dim=1))[:, -1:])
    with intervene(gpt2, plan):
        gpt2.run(ids)
        with pytest.raises(ValueError, match="a KV cache was filled outside the block"):
            gpt2.hf(new, past_key_values=cache)


def test_a_pass_that_failed_has_ended(gpt2: Model) -> None:
    failing = gpt2.module(mlp_out[1]).register_forward_hook(lambda *_: 1 / 0)
    with intervene(gpt2, {resid_post[0]: scale(2.0)}):
        with pytest.raises(ZeroDivisionError):
            gpt2.hf(torch.tensor([[1, 2]]))
        assert gpt2.running.current is None
        failing.remove()
        with pytest.raises(RuntimeError, match="outside the model's own forward"):
            gpt2.hf.transformer(torch.tensor([[1, 2]]))
        gpt2.run("Fog")


def test_a_generate_of_ones_own_is_used_inside_a_block_and_is_there_after_it(fresh: Callable[..., Model]) -> None:
    hf, called = (model := fresh("gpt2")).hf, list[str]()

    def mine(*_: Any, **__: Any) -> str:
        called.append("mine")
        return "said"

    hf.generate = mine
    with intervene(model, {resid_post[0]: scale(2.0)}):
        assert hf.generate(torch.tensor([[1, 2]])) == hf.generate(input_ids=torch.tensor([[1, 2]])) == "said"
        model.run("Fog")
    assert hf.generate is mine and called == ["mine", "mine"]
    del hf.generate
    with intervene(model, {resid_post[0]: scale(2.0)}):
        model.run("Fog")
        hf.generate = mine
    assert hf.generate is mine


def test_a_turn_that_takes_up_a_cropped_cache_has_the_prompt_that_is_read_then(llama: Model) -> None:
    one, guessed = llama.tokens("Fog over"), torch.tensor([[40, 71, 103]])
    two = llama.tokens(torch.cat([one.ids, guessed[:, :1], torch.tensor([[9, 8]])], dim=1))
    with intervene(llama, {resid_post[1]: add(V, at=last)}) as receipt:
        with llama.running.reading(one):
            cache = llama.hf(torch.cat([one.ids, guessed], dim=1), use_cache=True).past_key_values
        assert receipt[resid_post[1]].prefill_tokens == 1
        cache.crop(-2)
        with llama.running.reading(two):
            llama.hf(two.ids[:, one.ids.shape[1] + 1 :], past_key_values=cache)
    assert (receipt[resid_post[1]].prefill_tokens, receipt[resid_post[1]].decode_tokens) == (2, 0)
