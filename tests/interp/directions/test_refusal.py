"""Selection of a direction on a model whose behaviour hangs on one direction at one position, by construction."""

from collections.abc import Callable

import pytest
import torch

from hooks import Model
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


def test_where_nothing_carries_the_behaviour_no_candidate_is_best(planted: tuple[Model, torch.Tensor, int]) -> None:
    model, _, mark = planted
    nothing = refusal(model, ["ab", "cd", "eb", "fd"], ["bd", "db", "ad", "cb"], [mark], positions=(-1,))
    with pytest.raises(ValueError, match="none of 3 candidates induces the behaviour"):
        nothing.best  # noqa: B018


def test_marks_and_two_texts_of_each_kind_are_needed(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="give two texts of each kind"):
        refusal(gpt2, ["a"], ["b", "c"], [3])
