"""The kNN-LM is its formula: brute force, both ends of λ, T and k, deletion, and controls that gain nothing."""

import numpy as np
import pytest
import torch

from hooks import Model, load
from hooks.errors import InvalidArgument, OutOfRange, WrongModel
from hooks.position import index
from hooks.site import mlp_in
from hooks.store import harvest, separate
from interp.memory.outside import (
    TokenMemory,
    choose_mixture,
    explain_vote,
    flip_weight,
    make_token_memory,
    measure_mixture,
    predict_mixture,
    read_token_memory,
)
from interp.memory.outside.mixture import neighbour_votes

SITE = mlp_in[7]
FACTS = [
    "The harbour of Vell is red and the tower of Vell is green.",
    "My uncle Borim keeps seven goats near the old mill of Tarn.",
    "In Quorra every door is blue, and the bells ring at noon.",
]
OTHERS = ["The fog came in over the bay.", "She played an old guitar for an hour before dinner."]


@pytest.fixture(scope="module")
def model() -> Model:
    return load("landmark")


@pytest.fixture(scope="module")
def memory(model: Model) -> TokenMemory:
    return make_token_memory(model, FACTS, SITE)


def small(seed: int = 0) -> TokenMemory:
    random = torch.Generator().manual_seed(seed)
    return TokenMemory(
        100 + torch.randn(40, 6, generator=random),
        torch.randint(9, (40,), generator=random),
        torch.arange(40) // 10,
        SITE,
        "none",
    )


def test_the_vote_is_the_formula_by_brute_force_also_where_states_have_a_large_mean() -> None:
    memory, q = small(), 100 + torch.randn(5, 6, generator=torch.Generator().manual_seed(9))
    found = neighbour_votes(memory, q, 7, 2.0, 9)
    keys, tokens = memory.keys.double().numpy(), memory.tokens.numpy()
    for row, one in enumerate(q.double().numpy()):
        squared = ((keys - one) ** 2).sum(1)
        near = np.argsort(squared, kind="stable")[:7]
        expected = np.zeros(9)
        for i in near:
            expected[tokens[i]] += np.exp(-squared[i] / 2.0)
        assert np.allclose(found[row].numpy(), expected / expected.sum(), atol=1e-12)


def test_a_weight_of_nothing_is_the_model_bit_for_bit(model: Model, memory: TokenMemory) -> None:
    plain = model.run(FACTS[0])[0, 1:].log_softmax(-1)
    assert torch.equal(predict_mixture(model, memory, FACTS[0], weight=0.0, temperature=1.0), plain)


def test_a_state_that_no_entry_is_near_enough_to_is_left_to_the_model_bit_for_bit(
    model: Model, memory: TokenMemory
) -> None:
    plain = model.run(OTHERS[1])[0, 1:].log_softmax(-1)
    far = predict_mixture(model, memory, OTHERS[1], weight=0.9, temperature=1.0, within=1e-3)
    assert torch.equal(far, plain)
    near = predict_mixture(model, memory, FACTS[1], weight=0.99, temperature=1.0, within=1e-3)
    ids = model.tokens(FACTS[1]).ids[0, 1:]
    assert torch.equal(near[:-1].argmax(-1), ids[1:])
    mixed = predict_mixture(model, memory, OTHERS[1], weight=0.9, temperature=1.0)
    assert torch.equal(mixed, predict_mixture(model, memory, OTHERS[1], weight=0.9, temperature=1.0, within=1e9))
    assert not torch.equal(mixed, plain)


def test_how_near_is_chosen_by_the_loss_of_what_it_does(model: Model, memory: TokenMemory) -> None:
    texts, reaches = [*FACTS, *OTHERS], (1e-3, 1e9)
    chosen = choose_mixture(model, memory, texts, weights=(0.9,), temperatures=(1.0,), within=reaches)
    assert chosen.within == 1e-3, "others are left alone and facts are said"
    nats = []
    for text in texts:
        log_p = predict_mixture(model, memory, text, weight=0.9, temperature=1.0, within=1e-3)[:-1]
        nats.append(-log_p.gather(1, model.tokens(text).ids[0, 2:, None])[:, 0])
    assert chosen.nats == pytest.approx(float(torch.cat(nats).mean()), rel=1e-4)


def test_its_own_key_alone_votes_for_its_token_alone(model: Model, memory: TokenMemory) -> None:
    said = predict_mixture(model, memory, FACTS[1], weight=1.0, temperature=1e-6, k=1)
    ids = model.tokens(FACTS[1]).ids[0, 1:]
    assert torch.equal(said[:-1].exp().argmax(-1), ids[1:]) and float(said[:-1].max(-1).values.min()) > -1e-4


def test_all_entries_at_an_endless_temperature_are_the_counts_of_tokens() -> None:
    memory = small()
    found = neighbour_votes(memory, torch.zeros(1, 6), len(memory), 1e12, 9)[0]
    assert torch.allclose(found, torch.bincount(memory.tokens, minlength=9).double() / len(memory), atol=1e-6)


def test_a_memory_of_the_test_texts_takes_perplexity_to_one(model: Model, memory: TokenMemory) -> None:
    mixture = choose_mixture(model, memory, FACTS, weights=(0.999,), temperatures=(1e-3,), k=4)
    found = measure_mixture(model, memory, FACTS, mixture)
    assert found.ratio.value * found.model.value == pytest.approx(1.0, abs=0.01)
    assert found.shuffled.value > 1 and found.random.value > 1
    assert len(found.to_pandas()) == 3 and "random keys" in repr(found)


def test_the_temperatures_tried_are_of_the_distances_also_where_every_state_is_held(
    model: Model, memory: TokenMemory
) -> None:
    states = make_token_memory(model, FACTS, SITE).keys
    squared, _ = memory.find(states, 8)
    tried = choose_mixture(model, memory, FACTS, weights=(0.5,), k=8).temperature
    assert float(squared[:, 0].median()) < 1e-3, "every state is its own nearest entry"
    assert 1e-4 * float(squared[:, 1:].min()) < tried < 100 * float(squared.max())


def test_no_entry_crosses_from_one_document_to_the_next(model: Model, memory: TokenMemory) -> None:
    lengths = [len(model.tokens(text).ids[0]) - 2 for text in FACTS]
    assert len(memory) == sum(lengths)
    assert torch.bincount(memory.document).tolist() == lengths
    followed = [model.tokens(text).ids[0, 2:] for text in FACTS]
    assert torch.equal(memory.tokens, torch.cat(followed))


def test_a_store_gives_the_memory_of_its_texts(model: Model, memory: TokenMemory, tmp_path) -> None:
    store = harvest(model, FACTS, SITE, tmp_path / "store", packing=separate(), dtype=torch.float32)
    read = read_token_memory(store, SITE)
    assert torch.equal(read.tokens, memory.tokens) and torch.equal(read.document, memory.document)
    assert torch.allclose(read.keys, memory.keys, atol=1e-3)
    assert len(read_token_memory(store, SITE, limit=5)) == 5


def test_a_store_of_some_tokens_gives_no_memory_as_its_next_row_is_not_the_next_token(model: Model, tmp_path) -> None:
    some = index(0) | index(3)
    store = harvest(model, FACTS, SITE, tmp_path / "store", packing=separate(), at=some)
    with pytest.raises(InvalidArgument, match=r"holds .*index\(0\).* of each text, and a memory needs every token"):
        read_token_memory(store, SITE)


def test_a_fact_flips_exactly_above_its_weight(model: Model, memory: TokenMemory) -> None:
    prompt = "The harbour of Vell is"
    p, q = (predict_mixture(model, memory, prompt, weight=w, temperature=1.0)[-1].double().exp() for w in (0.0, 1.0))
    old, new = int(p.argmax()), int(q.argmax())
    assert old != new
    star = flip_weight(float(p[old]), float(p[new]), float(q[old]), float(q[new]))
    for weight, first in ((star - 0.01, old), (star + 0.01, new)):
        said = predict_mixture(model, memory, prompt, weight=weight, temperature=1.0)[-1]
        assert float(said[first]) == max(float(said[old]), float(said[new]))
    assert flip_weight(0.5, 0.1, 0.2, 0.1) is None


def test_forgetting_the_entries_of_one_document_undoes_its_facts_and_no_other(
    model: Model, memory: TokenMemory
) -> None:
    less = memory.without(memory.document == 0)
    for text, kept in ((FACTS[0], False), (FACTS[1], True), (FACTS[2], True)):
        ids = model.tokens(text).ids[0, 1:]
        said = predict_mixture(model, less, text, weight=1.0, temperature=1e-6, k=1)
        assert torch.equal(said[:-1].argmax(-1), ids[1:]) == kept
    assert len(memory.without(torch.tensor([], dtype=torch.long))) == len(memory)
    with pytest.raises(OutOfRange, match="entries are 0 to"):
        memory.without(torch.tensor([len(memory)]))


def test_the_voters_are_named_with_shares_that_sum_to_one(model: Model, memory: TokenMemory) -> None:
    votes = explain_vote(model, memory, "The harbour of Vell is", temperature=1.0, k=10)
    assert sum(vote.share for vote in votes) == pytest.approx(1.0)
    assert votes[0].document == 0 and votes[0].token == " red" and votes[0].squared < 1e-4
    assert [vote.squared for vote in votes] == sorted(vote.squared for vote in votes)


def test_what_does_not_fit_is_refused(model: Model, memory: TokenMemory) -> None:
    with pytest.raises(WrongModel, match="make it again"):
        predict_mixture(model, small(), "Fog", weight=0.5, temperature=1.0)
    with pytest.raises(InvalidArgument, match="shares from 0 to 1"):
        choose_mixture(model, memory, OTHERS, weights=(1.5,))
    with pytest.raises(InvalidArgument, match="numbers above 0"):
        choose_mixture(model, memory, OTHERS, temperatures=(0.0,))
    with pytest.raises(InvalidArgument, match="two tokens"):
        make_token_memory(model, ["a"], SITE)
