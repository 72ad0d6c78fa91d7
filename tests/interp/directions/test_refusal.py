"""Selection of a direction on a model whose behaviour hangs on one direction at one position, by construction."""

from collections.abc import Callable

import pytest
import torch

from hooks import Model, intervene
from hooks.interventions import apply
from hooks.position import everywhere, special
from hooks.site import resid_mid, resid_post, resid_pre
from interp.directions import Selection, refusal

HARMFUL, HARMLESS = [f"{c}{d}h" for c in "abcd" for d in "xy"], [f"{c}{d}o" for c in "dcba" for d in "yx"]


@pytest.fixture(scope="module")
def planted(fresh: Callable[..., Model]) -> tuple[Model, torch.Tensor, int]:
    """A stream that only holds the embeddings; after an h, whose embedding has u in it, it says R."""
    model = fresh("gpt2")
    letters = {c: model.tokenizer.convert_tokens_to_ids(c) for c in "hoR"}
    u = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    u = (u - u.mean()) / (u - u.mean()).norm()
    with torch.no_grad():
        for block in model.hf.transformer.h:
            for part in (block.attn.c_proj, block.mlp.c_proj):
                part.weight.zero_(), part.bias.zero_()
        rows = model.hf.transformer.wte.weight
        rows -= torch.outer(rows @ u, u)
        model.hf.transformer.wpe.weight.zero_()
        rows[letters["h"]] = rows[letters["o"]] + 3.0 * u
        model.hf.transformer.ln_f.weight.fill_(1.0), model.hf.transformer.ln_f.bias.zero_()
        rows[letters["R"]] = 6.0 * u
    return model, u, letters["R"]


@pytest.fixture(scope="module")
def selection(planted: tuple[Model, torch.Tensor, int]) -> Selection:
    model, _, mark = planted
    return refusal(model, HARMFUL, HARMLESS, [mark], positions=(-1, -2))


def test_the_planted_direction_is_selected_at_the_planted_position(
    selection: Selection, planted: tuple[Model, torch.Tensor, int]
) -> None:
    best = selection.best
    assert best.position == -1
    assert float(best.direction.unit @ planted[1]) > 0.9
    assert best.direction.site.layer < 0.8 * 3


def test_without_it_the_behaviour_is_gone_and_with_it_there(selection: Selection) -> None:
    assert selection.positive > 2 > -2 > selection.negative
    assert selection.best.bypass < -2 and selection.best.induce > 0
    others = [c for c in selection.candidates if c.position == -2]
    assert len(others) == 3 and all(c.bypass > 2 and not c.admitted for c in others)


def test_late_layers_are_not_admitted_however_well_they_do(selection: Selection) -> None:
    late = [c for c in selection.candidates if c.direction.site.layer == 2]
    assert late and not any(c.admitted for c in late)


def test_the_log_odds_are_those_of_the_marks_against_all_else(
    selection: Selection, planted: tuple[Model, torch.Tensor, int]
) -> None:
    model, _, mark = planted
    odds = []
    for text in HARMFUL[1::2]:
        p = model.run(text)[0, -1].detach().double().softmax(-1)[mark]
        odds.append(float((p / (1 - p)).log()))
    assert selection.positive == pytest.approx(sum(odds) / len(odds), rel=1e-5)


def test_where_nothing_shows_the_behaviour_no_candidate_is_best(planted: tuple[Model, torch.Tensor, int]) -> None:
    model, _, mark = planted
    nothing = refusal(model, ["ab", "cd", "eb", "fd"], ["bd", "db", "ad", "cb"], [mark], positions=(-1,))
    with pytest.raises(ValueError, match="none of 3 candidates induces the behaviour"):
        nothing.best  # noqa: B018


def test_candidates_are_judged_on_the_other_texts_at_every_token_and_admitted_and_ordered_by_the_rule(
    gpt2: Model,
) -> None:
    yes = ["fog over", "a red sun", "the bay", "cold sea", "I saw it", "grey"]
    no = ["xyz", "QRS 1", "no, 2", "UVW", "77 8", "##"]
    marks = list(range(0, 257, 2))
    made = refusal(gpt2, yes, no, marks, positions=(-1, -2)).candidates

    def odds(texts: list[str]) -> float:
        p = [gpt2.run(text)[0, -1].detach().double().softmax(-1)[marks].sum() for text in texts]
        return float(torch.stack([(one / (1 - one)).log() for one in p]).mean())

    streams = [resid_pre[0], *(site[layer] for layer in range(3) for site in (resid_mid, resid_post))]
    for one in made:
        u, r = one.direction.unit, one.direction.vector
        gone = apply(lambda x, u=u: x - torch.outer(x @ u, u), at=everywhere | special)
        with intervene(gpt2, dict.fromkeys(streams, gone)):
            assert one.bypass == pytest.approx(odds(yes[1::2]), abs=1e-4)
        with intervene(gpt2, {one.direction.site: apply(lambda x, r=r: x + r)}):
            assert one.induce == pytest.approx(odds(no[1::2]), abs=1e-4)
        admitted = one.induce > 0 and one.kl <= 0.1 and one.direction.site.layer < int(0.8 * 3)
        assert one.admitted == admitted
    assert any(one.induce > 0 and one.kl > 0.1 and one.direction.site.layer < 2 for one in made)
    assert list(made) == sorted(made, key=lambda one: (not one.admitted, one.bypass)) and made[1].admitted


def test_a_text_given_twice_does_not_judge_the_candidates_it_was_read_for(
    planted: tuple[Model, torch.Tensor, int], selection: Selection
) -> None:
    twice = [[text for text in texts for _ in range(2)] for texts in (HARMFUL, HARMLESS)]
    found = refusal(planted[0], *twice, [planted[2]], positions=(-1, -2))
    assert [(one.bypass, one.induce, one.kl) for one in found.candidates] == [
        (one.bypass, one.induce, one.kl) for one in selection.candidates
    ]
    assert (found.positive, found.negative) == (selection.positive, selection.negative)
    with pytest.raises(ValueError, match="1 different positive, 2 negative texts"):
        refusal(planted[0], ["a", "a "], ["b", "c"], [3])


@pytest.mark.parametrize("marks", [[-1], [3, 99999]])
def test_marks_outside_the_vocabulary_are_refused(gpt2: Model, marks: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"the marks \[{marks[-1]}\] are no tokens of .*: give ids from 0 to 256"):
        refusal(gpt2, ["a", "b"], ["c", "d"], marks)


def test_marks_and_two_texts_of_each_kind_are_needed(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="give two texts of each kind"):
        refusal(gpt2, ["a"], ["b", "c"], [3])
