"""Panels of tuned models and of experts say every figure with its control, and show hostile tokens as text."""

import torch

from hooks.site import resid_post
from interp.common.statistics import Estimate
from interp.context import Transfer
from interp.experts import ExpertWords, Specialisation, Usage
from interp.show import (
    difference_panel,
    expert_words_panel,
    load_panel,
    panels_of,
    predictions_panel,
    raised_words_panel,
    specialisation_panel,
    transfer_panel,
    weights_panel,
)
from interp.tuning import Difference, SiteDivergence, TokenDivergence, WeightDifference, WordsOfDifference
from interp.tuning.weights import MatrixChange
from tests.conftest import tiny_tokenizer

SITES = (resid_post[0], resid_post[1])


def moved(by: float) -> tuple[Difference, SiteDivergence]:
    relative = by * torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    shape = torch.ones(2, 2)
    states = Difference(SITES, torch.ones(2, 2, 4), relative, 0.01 * shape, torch.ones(2), torch.ones(2, 4),
                        torch.ones(2), torch.tensor([9, 9]), ("a", "b"))  # fmt: skip
    held = {site: Estimate(by, by / 2, 2 * by, 9) for site in SITES}
    return states, SiteDivergence(Estimate(by, by / 2, 2 * by, 9), held, held)


def test_states_are_drawn_next_to_the_placebos_and_to_chance() -> None:
    panel = difference_panel(*moved(0.25), moved(0.05))
    drawn = {t.name: [round(y, 6) for y in t.y] for t in panel.body.data if t.name}  # type: ignore[union-attr]
    assert drawn == {"placebo tuning": [5, 10], "this tuning": [25, 50], "by chance at most": [1, 1]}
    assert "most after block 1, 50 %" in panel.caption and "Grey" in panel.control
    assert "No placebo was given" in difference_panel(*moved(0.25)).control


def test_predictions_are_listed_by_how_far_they_are_and_tokens_are_text() -> None:
    kl = (torch.tensor([0.1, 2.0]), torch.tensor([0.5]))
    said = ((("x", "y"), (" fog", "<b>sun</b>")), ((" a", " b"),))
    panel = predictions_panel(TokenDivergence((("The", "<i>bay"), ("sea",)), kl, said), Estimate(0.25, 0.125, 0.5, 2))
    text = panel.body.text  # type: ignore[union-attr]
    assert text.index("·fog") < text.index("·a") and "&lt;b&gt;sun" in text and "<i>bay" not in text
    assert "full colour: 2.0 nats" in panel.caption and "0.250 nats (0.125 to 0.500)" in panel.control


def test_raised_words_are_by_both_heads_and_the_placebos_are_next_to_them() -> None:
    words = WordsOfDifference(resid_post[5], ((" pawn", 4.0), (" king", 3.0)), ((" pawn", 5.0), (" rook", 2.0)))
    placebo = WordsOfDifference(resid_post[5], ((" the", 2.0), (" of", 1.0)), ((" the", 2.0), (" of", 1.0)))
    text = raised_words_panel(words, placebo).body.text  # type: ignore[union-attr]
    assert all(word in text for word in ("·pawn", "·king", "·rook", "·the")) and "4.0" in text
    assert "·the" not in raised_words_panel(words).body.text  # type: ignore[union-attr]


def test_the_matrix_that_moved_most_is_named_next_to_a_random_change() -> None:
    def change(kind: str, layer: int, by: float) -> MatrixChange:
        return MatrixChange(f"{kind}.{layer}", layer, by, torch.ones(2), torch.ones(1, 4), 1.5, 40.0)

    weights = WeightDifference((change("attention", 0, 0.1), change("mlp", 0, 0.2), change("mlp", 1, 0.4)), "a")
    panel = weights_panel(weights)
    assert "feed-forward of block 1, 40.0%, in about 1.5 directions" in panel.caption
    assert "about 40 directions" in panel.control
    assert len(weights_panel(weights, weights).body.data) == 2 * len(panel.body.data)  # type: ignore[union-attr]


def test_a_vectors_row_is_next_to_right_demonstrations_and_to_vectors_that_should_do_nothing() -> None:
    names = ("right demonstrations", "no demonstrations", "function vector", "vector of random heads")
    by = {name: Estimate(v, v / 2, (1 + v) / 2, 40) for name, v in zip(names, (0.75, 0.125, 0.5, 0.25), strict=True)}
    panel = transfer_panel(Transfer("capital", by))
    points = panel.body.data[0]  # type: ignore[union-attr]
    assert [*points.y] == [*names][::-1] and [*points.x] == [25, 50, 12.5, 75]
    assert "with the function vector 50% (25% to 75%)" in panel.caption
    assert "vector of random heads, 25% (12% to 62%)" in panel.control and panels_of(Transfer("capital", by))


def usage(load: list[float]) -> Usage:
    share = torch.tensor(load).double()
    return Usage(share, 1.5, 1.1, 1.2, Estimate(0.3, 0.2, 0.4, 50), 0.25, torch.zeros(4, 4))


def test_loads_are_coloured_by_what_is_above_an_even_share() -> None:
    panel = load_panel({0: usage([0.25, 0.25, 0.25, 0.25]), 1: usage([0.55, 0.15, 0.15, 0.15])})
    cells = panel.body.data[0]  # type: ignore[union-attr]
    assert [round(z, 6) for z in cells.z[1]] == [0.3, -0.1, -0.1, -0.1] and cells.text[1][0] == "55"
    assert "expert 0 of layer 1, 55%" in panel.caption and "25.0% each, 2.00 bits" in panel.control


def test_specialisation_is_next_to_permuted_labels_and_says_where_more_than_the_word_is_left() -> None:
    found = {
        0: Specialisation(0.02, (0.01, 0.03), 0.4, -0.01, (-0.02, 0.0), 0.3, 2.0),
        1: Specialisation(0.5, (0.01, 0.03), 0.01, 0.2, (-0.02, 0.0), 0.01, 2.0),
    }
    panel = specialisation_panel(found, {0: usage([0.25] * 4), 1: usage([0.25] * 4)}, "genre")
    assert "0.500 of the 2.00 bits of genre (layer 1)" in panel.caption and "1 of 2 layers" in panel.caption
    x = [[*t.x] for t in panel.body.data]  # type: ignore[union-attr]
    assert x == [[0.03, 0.03], [0.02, 0.5], [0.0, 0.0], [-0.01, 0.2], [25, 25], [30, 30]]


def test_the_words_of_each_expert_are_next_to_the_share_that_chance_gives() -> None:
    words = (((5, Estimate(0.9, 0.8, 0.95, 50)),), ())
    found = ExpertWords(2, torch.tensor([0.6, 0.4]), words, 0.75, (0.02, 0.03), 5.0)
    panel = expert_words_panel(found, tiny_tokenizer())
    assert "90%" in panel.body.text and "60%" in panel.body.text  # type: ignore[union-attr]
    assert "0.75 bits" in panel.caption and "0.02 bits (95% below 0.03)" in panel.control
    assert found.to_pandas().to_dict("records") == [{"expert": 0, "token": 5, "share": 0.9, "low": 0.8, "high": 0.95}]
