"""Whether a direction matters: one the model reads, one it cannot read, and random ones that move as far."""

from collections.abc import Sequence

import pytest
import torch

from hooks import Direction, Model, capture
from hooks.position import last
from hooks.site import resid_post
from probes import does_it_matter, logit_difference
from probes.causal import _effect

pytestmark = pytest.mark.usefixtures("unchecked")

TEXTS = ["the fog", "a bridge", "two towers", "the sea at night", "red"]
TOP = resid_post[2]
behaviour = logit_difference("x", "y")


def read(model: Model) -> Direction:
    """What the unembedding reads the difference of two letters by."""
    x, y = (int(model.tokens(letter).ids[0, -1]) for letter in "xy")
    row = model.hf.get_output_embeddings().weight.detach()
    norm = model.hf.transformer.ln_f.weight.detach()
    vector = (row[x] - row[y]) * norm
    return Direction(vector - vector.mean(), TOP, "the unembedding", 1.0, model.fingerprint)


def unread(model: Model) -> Direction:
    """Along all ones: the final norm subtracts the mean, so nothing after it sees this direction."""
    return Direction(torch.ones(model.d_model), TOP, "all ones", 3.0, model.fingerprint)


def test_the_direction_the_unembedding_reads_matters(gpt2: Model) -> None:
    found = does_it_matter(read(gpt2), gpt2, TEXTS, behaviour, at=last)
    assert found.used
    assert found.reflected.p_value == pytest.approx(1 / 40)
    assert found.added.change > 0
    assert "the model uses it" in str(found)


def test_a_direction_that_can_be_read_and_is_not_used_is_recognised(gpt2: Model) -> None:
    found = does_it_matter(unread(gpt2), gpt2, TEXTS, behaviour, at=last)
    assert not found.used
    for effect in (found.erased, found.added, found.reflected):
        assert effect.size == pytest.approx(0, abs=1e-4)
        assert effect.p_value == 1
        assert float(effect.random.min()) > 1e-3
    assert "is not seen to use it" in str(found)


def test_each_change_is_what_its_formula_says_on_the_stream(gpt2: Model) -> None:
    direction = read(gpt2)
    plain = capture(gpt2, TEXTS, [TOP]).flat(TOP, last)
    along = plain @ direction.unit
    expected = {
        "erased": plain + torch.outer(along.mean() - along, direction.unit),
        "added": plain + direction.scale * direction.unit,
        "reflected": plain + 2 * torch.outer(along.mean() - along, direction.unit),
    }
    found = does_it_matter(direction, gpt2, TEXTS, behaviour, at=last)
    x, y = (int(gpt2.tokens(letter).ids[0, -1]) for letter in "xy")
    for name, rows in expected.items():
        logits = gpt2.unembed(rows).detach()
        change = logits[:, x] - logits[:, y] - found.baseline
        assert getattr(found, name).change == pytest.approx(float(change.mean()), abs=1e-4)
        assert getattr(found, name).size == pytest.approx(float(change.abs().mean()), abs=1e-4)


def test_random_directions_move_every_token_as_far(gpt2: Model) -> None:
    seen: list[torch.Tensor] = []

    def watch(model: Model, texts: Sequence[str]) -> torch.Tensor:
        seen.append(capture(model, list(texts), [TOP]).flat(TOP, last))
        return torch.arange(float(len(texts)))

    does_it_matter(read(gpt2), gpt2, TEXTS, watch, at=last)
    moved = torch.stack([(rows - seen[0]).norm(dim=1) for rows in seen[1:]]).reshape(3, 40, len(TEXTS))
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-4)


def test_the_difference_is_taken_after_the_last_token_whichever_side_is_padded(gpt2: Model, padded_left) -> None:
    assert torch.allclose(behaviour(gpt2, TEXTS), behaviour(padded_left(gpt2), TEXTS), atol=1e-4)
    alone = gpt2.run("red")[0, -1].detach()
    x, y = (int(gpt2.tokens(letter).ids[0, -1]) for letter in "xy")
    assert float(behaviour(gpt2, TEXTS)[-1]) == pytest.approx(float(alone[x] - alone[y]), abs=1e-4)


def test_one_text_may_be_given_without_its_list(gpt2: Model) -> None:
    assert torch.equal(behaviour(gpt2, "red"), behaviour(gpt2, ["red"]))
    found, listed = (does_it_matter(read(gpt2), gpt2, text, behaviour, at=last) for text in ("red", ["red"]))
    assert torch.equal(found.baseline, listed.baseline)


def test_an_answer_without_a_token_is_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="the answer '' has no token: give a word"):
        logit_difference("", "y")(gpt2, TEXTS)


def test_the_interval_of_an_effect_is_two_standard_errors_either_way() -> None:
    change = torch.randn(400, generator=torch.Generator().manual_seed(0)) + 5
    found, error = _effect(change, torch.zeros(39), 0), float(change.std()) / 20
    assert found.size == pytest.approx(float(change.abs().mean()))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_answers_that_begin_alike_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="'true' and 'truly' begin with one token"):
        logit_difference("true", "truly")(gpt2, TEXTS)


def test_too_few_draws_and_odd_behaviours_are_refused(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="draws is 10; with fewer than 39"):
        does_it_matter(read(gpt2), gpt2, TEXTS, behaviour, draws=10)
    with pytest.raises(ValueError, match="it must give one finite number per text"):
        does_it_matter(read(gpt2), gpt2, TEXTS, lambda m, t: torch.full((len(t),), torch.nan))


def test_a_direction_of_another_model_is_refused(gpt2: Model) -> None:
    stranger = Direction(torch.ones(gpt2.d_model), TOP, "elsewhere", 1.0, "another")
    with pytest.raises(ValueError, match="found in another model"):
        does_it_matter(stranger, gpt2, TEXTS, behaviour)
