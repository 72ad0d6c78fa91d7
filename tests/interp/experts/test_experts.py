"""Experts whose specialisation is planted, and interventions that must change what a block gives."""

from math import log

import pytest
import torch

from hooks import capture, intervene, load
from hooks.errors import InvalidArgument
from hooks.site import expert_choice, mlp_in, mlp_out
from interp.experts import (
    Routing,
    ablate_experts,
    capture_routing,
    cluster_routing,
    find_expert_words,
    force_expert,
    measure_ablation,
    measure_ablation_matrix,
    measure_contributions,
    measure_saturation,
    measure_specialisation,
    measure_usage,
)
from interp.worlds.train import WORLDS

TEXTS = ["The Golden Gate Bridge is red.", "Peru pays with the sol.", "Paris is a city in France.", "The moon is dark."]


@pytest.fixture(scope="module")
def model():  # noqa: ANN201
    torch.manual_seed(0)
    of = WORLDS["experts"]
    return load(of.build(0), of.tokenizer(), check=False)


def made(choice: torch.Tensor, document: torch.Tensor, ids: torch.Tensor | None = None, n_experts: int = 4) -> Routing:
    n = len(choice)
    p = torch.nn.functional.one_hot(choice[:, 0], n_experts).float()
    weights = torch.full(choice.shape, 1 / choice.shape[1])
    return Routing(0, n_experts, choice, weights, p, torch.zeros(n, dtype=torch.long) if ids is None else ids, document)


def test_an_expert_for_each_topic_says_all_of_the_topic_and_permuted_labels_say_nothing() -> None:
    document = torch.arange(80).repeat_interleave(50)
    labels = ["abcd"[i % 4] for i in range(80)]
    found = measure_specialisation(made((document % 4)[:, None], document), labels, permutations=60)
    correction = 9 / (2 * 4000 * log(2))
    assert found.bits + correction == pytest.approx(2.0, abs=1e-6) and found.label_bits == pytest.approx(2.0)
    assert found.given_word == pytest.approx(found.bits) and found.p < 0.05
    random = torch.randint(4, (4000, 1), generator=torch.Generator().manual_seed(0))
    nothing = measure_specialisation(made(random, document), labels, permutations=60)
    assert abs(nothing.bits) < 0.003 and nothing.p > 0.05


def test_tokens_of_one_text_are_not_independent_so_labels_are_permuted_by_text() -> None:
    random = torch.Generator().manual_seed(1)
    document = torch.arange(40).repeat_interleave(100)
    choice = torch.randint(4, (40,), generator=random)[document][:, None]
    found = measure_specialisation(made(choice, document), ["ab"[i % 2] for i in range(40)], permutations=100)
    assert found.p > 0.05, "each text has an expert of its own, and topics have nothing to do with it"
    assert found.shuffled[0] > 10 * (3 / (2 * 4000 * log(2))), "though token by token it would be far beyond chance"


def test_labels_are_as_many_as_texts_and_those_of_texts_without_tokens_are_not_drawn() -> None:
    document = torch.arange(6).repeat_interleave(20)
    routing, labels = made((document % 2)[:, None], document), ["a", "b"] * 3
    assert measure_specialisation(routing, labels, permutations=20).bits > 0.9
    for wrong in (labels * 7, labels[:5], [*labels, "a"]):
        with pytest.raises(InvalidArgument, match=f"{len(wrong)} labels, .* for 6 texts: give one for each text"):
            measure_specialisation(routing, wrong, permutations=20)
    gap = made((document % 2)[:, None], document + (document > 2))
    found = measure_specialisation(gap, [*labels[:3], "c", *labels[3:]], permutations=20)
    assert found == measure_specialisation(routing, labels, permutations=20)


def test_experts_that_go_by_the_word_say_of_the_topic_what_the_word_says_and_no_more() -> None:
    random = torch.Generator().manual_seed(2)
    document = torch.arange(60).repeat_interleave(60)
    topic = document % 2
    ids = torch.randint(8, (3600,), generator=random) + 4 * topic
    found = measure_specialisation(
        made((ids % 4)[:, None], document, ids), ["ab"[i % 2] for i in range(60)], permutations=50
    )
    by_word = measure_specialisation(
        made((ids // 4)[:, None], document, ids), ["ab"[i % 2] for i in range(60)], permutations=50
    )
    assert by_word.bits > 0.3 and by_word.given_word == pytest.approx(0.0, abs=1e-9)
    assert found.given_word == pytest.approx(0.0, abs=1e-9)


def test_every_pair_of_a_tokens_experts_is_together_and_not_only_those_next_to_each_other_in_rank() -> None:
    choice = torch.tensor([[0, 1, 2, 3]]).repeat(10, 1)
    found = measure_usage(made(choice, torch.zeros(10, dtype=torch.long), n_experts=5))
    assert torch.equal(found.together[:4, :4], torch.ones(4, 4).double() - torch.eye(4).double())
    adjacent = {tuple(sorted(pair)) for pair in zip(choice[0].tolist(), choice[0, 1:].tolist(), strict=False)}
    assert len(adjacent) == 3 < int(found.together.triu().sum())


def test_an_experts_words_are_those_it_surely_serves_and_the_word_says_all_of_the_expert() -> None:
    ids = torch.arange(8).repeat(100)
    by_word = find_expert_words(made((ids % 4)[:, None], torch.arange(800) // 100, ids))
    assert [{i for i, _ in of} for of in by_word.words] == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    assert all(share.value == 1.0 for of in by_word.words for _, share in of)
    assert by_word.bits == pytest.approx(2.0 - 3 * 7 / (2 * 800 * log(2)), abs=1e-6) and by_word.token_bits == 3.0
    assert by_word.shuffled[1] < 0.02
    random = torch.randint(4, (800, 1), generator=torch.Generator().manual_seed(0))
    nothing = find_expert_words(made(random, torch.arange(800) // 100, ids))
    assert abs(nothing.bits) < 0.02 and nothing.used.sum() == pytest.approx(1.0)


def test_a_word_that_is_seen_once_is_not_first_though_all_of_it_runs_through_the_expert() -> None:
    ids = torch.tensor([7] + [1] * 99 + [2] * 100)
    choice = torch.tensor([0] + [0] * 95 + [1] * 4 + [1] * 100)[:, None]
    found = find_expert_words(made(choice, torch.arange(200) // 10, ids, n_experts=2))
    assert [i for i, _ in found.words[0]] == [1, 7] and found.words[0][1][1].value == 1.0


def test_a_word_that_one_text_says_often_is_one_case_and_not_first() -> None:
    """Sixty times in one text, and twenty times in 20 texts of which all but one run through the expert."""
    document = torch.cat([torch.zeros(60).long(), 1 + torch.arange(20)])
    ids, choice = (document > 0).long(), (document == 20).long()[:, None]
    (first, often), (second, once) = find_expert_words(made(choice, document, ids, n_experts=2)).words[0]
    assert (first, second) == (1, 0) and (often.n, once.n) == (20, 1) and once.value == 1.0 > often.value


def test_repetition_and_settled_routing_have_texts_for_cases() -> None:
    """Twenty texts, each of which always or never repeats its expert: 1 text more or less is 1 of 20."""
    document, at = torch.arange(20).repeat_interleave(50), torch.arange(50).repeat(20)
    choice = torch.where(document % 2 == 0, 0, at % 4)[:, None]
    found = measure_usage(made(choice, document)).repetition
    assert found.value == 0.5 and found.n == 20 and found.high - found.low > 0.3
    later = torch.where(document % 2 == 0, choice[:, 0], (choice[:, 0] + 1) % 4)[:, None]
    settled = measure_saturation({1: made(choice, document), 2: made(later, document)}).by_step[1]
    assert settled.value == 0.5 and settled.n == 20 and settled.high - settled.low > 0.3


def test_topics_say_nothing_of_experts_that_are_moved_within_a_text_and_the_control_keeps_texts() -> None:
    document = torch.arange(40).repeat_interleave(20)
    ids = document.clone()  # each text has one word of its own, and one expert
    found = find_expert_words(made((document % 4)[:, None], document, ids))
    assert found.bits == pytest.approx(found.shuffled[0]), "what a text fixes is no finding about its words"


def test_an_even_load_has_all_bits_and_a_collapsed_one_none_and_repetition_is_next_to_chance() -> None:
    choice = torch.randint(4, (4000, 1), generator=torch.Generator().manual_seed(3))
    even = measure_usage(made(choice, torch.arange(4000) // 50))
    assert even.entropy == pytest.approx(2.0, abs=0.01) and even.balance == pytest.approx(1.0, abs=0.01)
    assert even.repetition.low < even.repetition_chance < even.repetition.high
    gone = measure_usage(made(0 * choice, torch.zeros(4000, dtype=torch.long)))
    assert gone.entropy == 0.0 and gone.balance == pytest.approx(4.0) and gone.repetition.value == 1.0


def test_routing_is_settled_at_the_end_and_independent_routers_agree_by_chance() -> None:
    random, document = torch.Generator().manual_seed(4), torch.arange(4000) // 50
    draws = [torch.rand(4000, 4, generator=random).topk(2).indices for _ in range(2)]
    found = measure_saturation({1: made(draws[0], document), 9: made(draws[1], document)})
    assert found.by_step[9].value == 1.0 and found.by_step[1].low < found.chance == 0.5 < found.by_step[1].high
    swapped = measure_saturation({1: made(draws[1].flip(1), document), 9: made(draws[1], document)})
    assert swapped.by_step[1].value == 1.0, "the order of the choices is no difference"


def test_what_experts_add_sums_to_what_the_block_gives(model) -> None:  # noqa: ANN001
    found = measure_contributions(model, TEXTS, 1)
    assert found.worst < 1e-5 and float(found.share.sum()) == pytest.approx(1.0)


@torch.no_grad()
def test_a_forced_expert_is_first_for_every_token_and_changes_the_output_where_edited_logits_change_nothing(
    model,
) -> None:  # noqa: ANN001
    tokens = model.tokens(TEXTS)
    plain = model.run(tokens)
    with intervene(model, force_expert(1, 5)) as receipt:
        choice = capture(model, tokens, expert_choice[1])[expert_choice[1]][tokens.content]
        forced = model.run(tokens)
    assert bool((choice == 5).any(1).all()) and float((forced - plain).abs().max()) > 1e-4 and receipt is not None
    gate = model.hf.model.layers[1].mlp.gate
    handle = gate.register_forward_hook(lambda _m, _a, out: (out[0] * 0 + 7.0, *out[1:]))
    try:
        assert torch.equal(model.run(tokens), plain), "today's blocks do not read the logits that their router returns"
    finally:
        handle.remove()


def test_an_expert_that_is_left_out_serves_nobody(model) -> None:  # noqa: ANN001
    with intervene(model, ablate_experts(2, [0, 3])):
        choice = capture_routing(model, TEXTS)[2].choice
    assert not bool(((choice == 0) | (choice == 3)).any())
    load_of = measure_usage(capture_routing(model, TEXTS)[2]).load
    found = measure_ablation(model, TEXTS, ["a", "b", "a", "b"], 2, 0, load_of)
    assert found.other != 0 and set(found.cost) == {"a", "b"} and "without expert 0" in str(found)


def test_an_expert_planted_for_one_topic_costs_that_topic_alone_and_the_matrix_says_so() -> None:
    torch.manual_seed(0)
    of = WORLDS["experts"]
    planted, topics = load(of.build(0), of.tokenizer(), check=False), {"a": " red", "b": " Paris"}
    texts = [word.strip() + word * n for n in range(4, 14) for word in topics.values()]
    labels = [name for _ in range(4, 14) for name in topics]
    acts = capture(planted, texts, [mlp_in[3]], batch_size=len(texts))
    states, real = acts[mlp_in[3]], acts.tokens.content
    kinds = [states[0::2][real[0::2]], states[1::2][real[1::2]], states[:, 0]]  # of a, of b, of where a text begins
    want = torch.cat([100 * torch.eye(3)[i].expand(len(rows), 3) for i, rows in enumerate(kinds)])
    with torch.no_grad():
        gate = planted.hf.model.layers[3].mlp.gate.weight.zero_()
        gate[:6] = torch.linalg.lstsq(torch.cat(kinds), want).solution.T.repeat_interleave(2, 0)
    load_of = measure_usage(capture_routing(planted, texts)[3]).load
    found = measure_ablation_matrix(planted, texts, labels, 3, load_of, permutations=199)
    for row in found.rows:
        for label, estimate in row.cost.items():
            served = row.expert in ((0, 1, 4, 5) if label == "a" else (2, 3, 4, 5))
            assert (abs(estimate.value) > 1e-4) == served, (row.expert, label)
        again = measure_ablation(planted, texts, labels, 3, row.expert, load_of)
        assert again.other == row.other and again.cost["a"].value == pytest.approx(row.cost["a"].value, abs=1e-9)
    table = found.to_pandas()
    assert len(table) == 16 and table["dearest"].sum() == 8
    assert table["cost"][0] == found.rows[0].cost["a"].value
    shuffled = [labels[i] for i in torch.randperm(len(labels), generator=torch.Generator().manual_seed(1)).tolist()]
    chance = measure_ablation_matrix(planted, texts, shuffled, 3, load_of, permutations=199)
    assert float(found.p[:2].max()) < 0.01 < 0.05 / 4 < float(chance.p[:4].min())
    with pytest.raises(InvalidArgument, match="give one for each"):
        measure_ablation_matrix(planted, texts, labels[1:], 3, load_of)


def test_padding_and_beginnings_are_not_counted_and_a_batch_routes_as_single_texts_do(model) -> None:  # noqa: ANN001
    whole = capture_routing(model, TEXTS)[3]
    alone = [capture_routing(model, [text])[3] for text in TEXTS]
    assert len(whole) == sum(map(len, alone)) and 0 not in whole.ids.tolist()
    assert torch.equal(whole.choice, torch.cat([one.choice for one in alone]))


def test_clusters_of_states_route_as_experts_and_a_dense_model_has_none(model) -> None:  # noqa: ANN001
    found = cluster_routing(model, TEXTS, 3)
    assert found.n_experts == 3 and found.choice.shape == (len(found), 1)
    of = WORLDS["lists"]
    with pytest.raises(InvalidArgument, match="has no experts"):
        capture_routing(load(of.build(0), of.tokenizer(), check=False), ["France : Paris"])
    assert mlp_out[0] is not None
