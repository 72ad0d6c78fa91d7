"""Evolved texts reach the enumerated optimum, are read as their own tokens, and are compared with real ones fairly."""

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hooks import Direction, Model, capture, load
from hooks.errors import InvalidArgument
from hooks.site import embed, resid_post
from interp.visualisation import Objective, along, compare_with_texts, evolve_texts, evolve_texts_for_random, latent
from interp.visualisation.text_evolution import ScoredTexts, find_frontier
from interp.visualisation.text_evolution import _slopes as slopes_of
from interp.visualisation.writer import Writer

WORDS = 100


@pytest.fixture(scope="module")
def words() -> Model:
    """A model of 100 words, each a token."""
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=16, vocab_size=WORDS, n_positions=16, eos_token_id=0, bos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hf = GPT2LMHeadModel(config).eval()
        for weight in hf.parameters():
            if weight.ndim == 2:
                weight.data.mul_(5.0)
    return load(hf, PreTrainedTokenizerFast(tokenizer_object=inner))


def direction(model: Model, site: object = resid_post[0]) -> Direction:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(5))
    return Direction(vector, site, "by hand")  # type: ignore[arg-type]


def measured(model: Model, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """f and CE of texts, from Hugging Face's own outputs."""
    with torch.no_grad():
        out = model.hf(ids, output_hidden_states=True)
        resid = model.hf.transformer.h[0](model.hf.transformer.drop(out.hidden_states[0]))
    resid = resid[0] if isinstance(resid, tuple) else resid
    f = resid[:, -1] @ F.normalize(direction(model).vector, dim=0)
    return f, F.cross_entropy(out.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none").mean(1)


def test_of_two_words_of_a_hundred_the_evolution_finds_the_enumerated_optimum(words: Model) -> None:
    every = torch.cartesian_prod(torch.arange(WORDS), torch.arange(WORDS))
    f, ce = measured(words, every)
    found = 0
    for seed in range(40):
        front = evolve_texts(words, along(direction(words)), length=2, steps=10, choices=32, seed=seed)
        marks = front.values - torch.tensor(front.weights) * front.cross_entropies
        best = torch.stack([(f - weight * ce).max() for weight in front.weights])
        found += bool(marks[4] > best[4] - 1e-3)
        assert front.read < len(every) / 10
    assert found >= 38


def test_values_and_likelihoods_are_those_of_the_model_itself(words: Model) -> None:
    front = evolve_texts(words, along(direction(words)), length=4, steps=10, seed=1)
    f, ce = measured(words, front.ids)
    assert torch.allclose(front.values, f, atol=1e-4)
    assert torch.allclose(front.cross_entropies, ce, atol=1e-4)
    assert front.values.max() > front.begun


def test_the_front_is_monotone_in_the_weight_and_its_texts_are_read_as_their_tokens() -> None:
    model = load("landmark")
    front = evolve_texts(model, along(direction(model, resid_post[2])), length=4, steps=8, children=8)
    assert bool((front.values.diff() <= 0).all()) and bool((front.cross_entropies.diff() <= 0).all())
    assert front.cross_entropies[-1] < front.cross_entropies[0]
    for text, ids in zip(front.texts, front.ids.tolist(), strict=True):
        assert model.tokenizer(text)["input_ids"][1:] == ids


def test_what_the_gradient_promises_of_a_linear_objective_is_what_a_change_gives(words: Model) -> None:
    writer = Writer(words, torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 7, 9]])
    v = F.normalize(direction(words).vector, dim=0)
    promise = writer.promise(torch.stack([torch.zeros_like(v), torch.zeros_like(v), v])[None])[0, -1]
    objective = along(direction(words, embed))
    for token in (1, 50):
        changed = capture(words, torch.tensor([[3, 7, token]]), [embed])[embed][0, -1]
        before = capture(words, ids, [embed])[embed][0, -1]
        assert float(promise[token] - promise[9]) == pytest.approx(float((changed - before) @ v), abs=1e-5)
    front = evolve_texts(words, objective, length=3, steps=60, weights=(0.0,), children=24)
    table = words.hf.get_input_embeddings().weight.detach() @ v
    assert int(front.ids[0, -1]) == int(table[:WORDS].argmax())


def test_real_texts_are_read_at_every_token_and_the_piece_ends_at_the_greatest(words: Model) -> None:
    objective = along(direction(words))
    front = evolve_texts(words, objective, length=2, steps=10)
    texts = [" ".join(f"w{(7 * i + j) % WORDS}" for j in range(6)) for i in range(20)]
    found = compare_with_texts(words, front, texts)
    rows = torch.stack([torch.tensor(words.tokenizer(text)["input_ids"]) for text in texts])
    values = capture(words, texts, [resid_post[0]])[resid_post[0]] @ F.normalize(direction(words).vector, dim=0)
    assert found.greatest == pytest.approx(float(values.max()), rel=1e-5)
    row, column = divmod(int(values[:, 1:].argmax()), 5)
    assert found.natural_text == words.tokenizer.decode(rows[row, column : column + 2])
    f, ce = measured(words, rows[row, column : column + 2][None])
    assert found.natural_value == pytest.approx(float(f[0]), rel=1e-4)
    assert found.natural_cross_entropy == pytest.approx(float(ce[0]), rel=1e-4)
    assert found.quantile == pytest.approx(float((values < found.value).double().mean()))
    assert found.exceeds == (found.value > found.greatest and bool(found.cross_entropy <= ce[0] + 2))
    likely = front.frontier.cross_entropies <= ce[0] + 2
    wanted = front.frontier.values[likely].max() if likely.any() else front.frontier.values[0]
    assert found.value == pytest.approx(float(wanted))


def test_the_frontier_is_all_that_no_other_text_beats_in_both(words: Model) -> None:
    random = torch.Generator().manual_seed(0)
    values, ce = (torch.randint(9, (40,), generator=random).double() for _ in range(2))
    found = find_frontier(ScoredTexts(torch.arange(40)[:, None], values, ce))
    wanted = {
        (v, c)
        for v, c in zip(values.tolist(), ce.tolist(), strict=True)
        if not any((w >= v and d <= c) and (w, d) != (v, c) for w, d in zip(values.tolist(), ce.tolist(), strict=True))
    }
    assert set(zip(found.values.tolist(), found.cross_entropies.tolist(), strict=True)) == wanted
    assert len(found.values) == len(wanted) and bool((found.cross_entropies.diff() > 0).all())
    front = evolve_texts(words, along(direction(words)), length=3, steps=10)
    kept = {tuple(row) for row in front.frontier.ids.tolist()}
    lam = torch.tensor(front.weights, dtype=torch.float64)
    hull = (front.frontier.values - lam[:, None] * front.frontier.cross_entropies).amax(1)
    assert torch.allclose(hull, front.values - lam * front.cross_entropies, atol=1e-4)
    assert any(tuple(row) in kept for row in front.ids.tolist())


def test_the_promise_of_a_last_token_is_exact_in_its_own_likelihood(words: Model) -> None:
    """With f of the first tokens alone the last one moves nothing but its own log-probability."""
    writer = Writer(words, torch.Generator().manual_seed(0))
    ids = torch.tensor([[3, 7, 9]])
    objective = Objective("nothing", resid_post[0], lambda acts, grid: 0.0 * acts[:, 0, 0])
    slopes, own = slopes_of(words, objective, writer, ids, torch.tensor([2.0], dtype=torch.float64))
    promise = writer.promise(slopes, own)[0, -1]
    for token in (1, 50):
        _, ce = measured(words, torch.tensor([[3, 7, token], [3, 7, 9]]))
        assert float(promise[token] - promise[9]) == pytest.approx(float(-2 * (ce[0] - ce[1])), abs=1e-4)


def test_the_control_is_a_direction_at_random_at_the_same_site(words: Model) -> None:
    front = evolve_texts(words, along(direction(words)), length=2, steps=3)
    control = evolve_texts_for_random(words, front, steps=3, seed=4)
    vector = torch.randn(16, generator=torch.Generator().manual_seed(4))
    assert control.objective.site == resid_post[0]
    assert torch.allclose(control.objective.vector, F.normalize(vector, dim=0))
    assert control.ids.shape == front.ids.shape


def test_it_begins_from_texts_that_are_given_and_refuses_what_cannot_be_begun(words: Model) -> None:
    objective = latent(lambda a: a, resid_post[0], 3)
    front = evolve_texts(words, objective, length=2, steps=1, children=1, texts=["w5 w6 w7"])
    assert all(int((ids != torch.tensor([5, 6])).sum()) <= 1 for ids in front.ids)
    with pytest.raises(InvalidArgument, match="fewer than 4 tokens"):
        evolve_texts(words, objective, length=4, texts=["w5 w6 w7"])
    with pytest.raises(InvalidArgument, match="give at least one"):
        evolve_texts(words, objective, weights=())
    with pytest.raises(InvalidArgument, match="not below 0"):
        evolve_texts(words, objective, weights=(1.0, float("nan")))
    with pytest.raises(InvalidArgument, match="no text has 4 tokens"):
        compare_with_texts(words, evolve_texts(words, objective, length=4, steps=1), ["w5 w6"])
