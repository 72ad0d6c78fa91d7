"""What the worlds plant is what their rows say: nothing held out is shown, and what is to be copied is there."""

import re

import pytest
import torch

from interp.worlds import clock, experts, induction, ladder, lists, segments, steps
from interp.worlds.train import WORLDS


def texts(name: str, n_steps: int) -> list[str]:
    of = WORLDS[name]
    return [text for step in range(n_steps) for text in of.tokenizer().batch_decode(of.draw(0, step).ids)]


@pytest.mark.parametrize("name", ["lists", "induction-1", "segments", "clock", "steps", "experts", "ladder-32"])
def test_the_same_seed_and_step_give_the_same_rows_and_another_step_gives_others(name: str) -> None:
    of = WORLDS[name]
    first, again, other = of.draw(0, 3), of.draw(0, 3), of.draw(0, 4)
    assert torch.equal(first.ids, again.ids) and torch.equal(first.weights, again.weights)
    assert name == "clock" or not torch.equal(first.ids, other.ids)
    assert first.weights[:, 0].eq(0).all(), "the first token is predicted from nothing"


def test_no_list_has_an_entity_that_is_held_out_of_lists_of_its_relation() -> None:
    true_lists = 0
    for text in texts("lists", 12):
        pairs = re.findall(r"(\S+) : (\S+) ;", text)
        for relation, labels in lists.facts().items():
            if (
                len(pairs) > 2
                and len({*pairs}) == len(pairs)
                and all(labels.get(entity) == label for entity, label in pairs)
            ):
                true_lists += 1
                whole = {entity for entity, _ in pairs} & lists.unseen_entities(relation)
                others = [r for r in lists.facts() if all(lists.facts()[r].get(e) == v for e, v in pairs)]
                assert not whole or len(others) > 1
    assert true_lists > 100


def test_every_word_is_one_token_and_no_word_is_unknown() -> None:
    for name, words in (("lists", lists.list_words()), ("steps", steps.step_words())):
        tokenizer = WORLDS[name].tokenizer()
        assert len(set(words)) == len(words)
        assert all(tokenizer.encode(word)[1:] == [2 + i] for i, word in enumerate(words))


def test_no_row_holds_a_held_out_entity_together_with_its_second_hop_answer() -> None:
    unseen = {
        (entity, second, steps.answer(second, first, entity)) for second, first, entity in steps.combinations()[True]
    }
    asked = [text for text in texts("steps", 40) if re.search(r"of \S+ of", text)]
    assert len(asked) > 1000
    for text in asked:
        second, _, entity = re.findall(r"(\S+) of (\S+) of (\S+)", text)[0]
        assert not any((entity, second) == (e, s) for e, s, _ in unseen)


def test_filler_is_as_long_as_the_steps_it_is_in_place_of() -> None:
    for combination in steps.combinations()[False][::50]:
        written, filled = steps.written_prompt(*combination).split(), steps.filler_prompt(*combination).split()
        assert len(written) == len(filled) and steps.first_hops()[combination[1]][combination[2]] not in filled


@pytest.mark.parametrize("copies", induction.BURSTS)
def test_the_class_that_is_asked_for_is_among_the_pairs_as_often_as_planted(copies: int) -> None:
    ids, label = induction.prompts(50, copies, seed=1, remapped=True)
    shown, labels = ids[:, 1:-1:2], ids[:, 2::2]
    same = shown == ids[:, -1:]
    assert same.sum(1).eq(copies).all()
    assert bool((labels[same] == label[:, None].expand_as(labels)[same]).all())
    own = induction.FIRST_LABEL + induction.planted_labels()[shown - 2]
    assert bool((labels != own).all()), "a remapped label is never the one that is known by heart"


def test_what_can_be_copied_was_there_with_the_word_before_it_at_no_fixed_distance() -> None:
    ids, copied = segments.segments(60, seed=3)
    distances, absolute = set(), set()
    for row, due in zip(ids.tolist(), copied.tolist(), strict=True):
        earlier = {}
        for at in range(1, len(row)):
            if due[at]:
                places = earlier[row[at - 1], row[at]]
                distances |= {at - place for place in places}
                absolute.add(at)
            earlier.setdefault((row[at - 1], row[at]), []).append(at)
    assert len(distances) > 40 and absolute == set(range(18, segments.LENGTH + 1))
    share = float(copied[:, 17:].float().mean())
    assert 0.7 < share < 0.9


def test_the_clock_is_the_sum_and_a_run_sees_two_fifths_of_it() -> None:
    a, b, _, c = (clock.sums() - 2).T
    assert torch.equal((a + b) % clock.HOURS, c)
    assert abs(float(clock.seen_sums(0).float().mean()) - clock.SHARE) < 1e-3


def test_balance_is_measured_layer_by_layer_so_that_collapsed_layers_do_not_pass_for_balanced() -> None:
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    collapsed = [torch.full((32, 4), -20.0).index_fill(1, torch.tensor([layer]), 20.0) for layer in range(4)]
    even = [torch.eye(4).repeat(8, 1) * 40 for _ in range(4)]
    pooled = [float(load_balancing_loss_func(tuple(x), 4, 1)) for x in (collapsed, even)]
    ours = [float(experts.balance_loss(x, chosen=1)) for x in (collapsed, even)]
    assert pooled == pytest.approx([1.0, 1.0], abs=1e-4), "the pooled loss cannot tell them apart"
    assert ours == pytest.approx([4.0, 1.0], abs=1e-4)


def test_the_ladder_asks_for_answers_of_one_to_several_tokens() -> None:
    encode = ladder.read_tokenizer().encode
    lengths = {len(encode(f" {q.answer}").ids) - 1 for q in ladder.list_questions()}
    assert {1, 2, 3, 4} <= lengths
