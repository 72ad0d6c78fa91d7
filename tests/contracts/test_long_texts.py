"""Every reader of texts reads one that is longer than the context as it reads the pieces that fit, and says so."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Direction, Model, capture
from hooks.position import everywhere
from hooks.site import resid_post
from interp import directions, features, lenses, sae
from interp.circuits.edges import mean_ablation
from interp.directions.rows import capture_mean_rows
from interp.features.reading import encode_texts
from interp.memory import covariance, triggers
from interp.memory.evaluation.measurement import measure_reading
from interp.sae import TopK, activations_of, recovery
from interp.steering import measure_damage, measure_projections
from interp.steering.damage import measure_normal_range
from probes import Examples, Logistic, cut_examples, sweep

CONTEXT = 96
LONG = "".join(chr(97 + i * i % 26) for i in range(250))  # one token a letter, and one before them
PIECES = [LONG[i : i + CONTEXT - 1] for i in range(0, len(LONG), CONTEXT - 1)]
SHORT = ["Fog over the bay", "The bridge is red", "A ship in the evening"]
CUT = "longer than the context of 96 tokens and are read as"

Read = Callable[[Model, Sequence[str]], torch.Tensor]


def _dictionary(model: Model) -> TopK:
    made = TopK(model.d_model, 24, k=4, seed=0)
    made.site, made.fingerprint = resid_post[1], model.fingerprint
    return made


def _sums(batches: Any) -> torch.Tensor:
    return sum(batch.double().sum(0) for batch in batches)


READERS: dict[str, Read] = {
    "source": lambda m, t: _sums(activations_of(m, list(t), resid_post[1])),
    "recovery": lambda m, t: torch.tensor(list(vars(recovery(_dictionary(m), m, list(t))).values())),
    "codes": lambda m, t: encode_texts(_dictionary(m), m, t).x.sum(0),
    "evidence": lambda m, t: features.collect_evidence(_dictionary(m), m, t, 3).counts.double(),
    "covariance": lambda m, t: covariance(m, [*t, *SHORT, *SHORT], 1).matrix,
    "triggers": lambda m, t: triggers(m, list(t), 1, top=1).coefficient,
    "perplexity": lambda m, t: torch.tensor(measure_reading(m, t).loss),
    "range": lambda m, t: torch.tensor(measure_normal_range(m, _direction(m), t)),
    "mean ablation": lambda m, t: mean_ablation(m, list(t)).writes,
}


def _direction(model: Model) -> Direction:
    return Direction(torch.linspace(-1, 1, model.d_model), resid_post[1], "by hand", 1.0, model.fingerprint)


@pytest.mark.filterwarnings("ignore:.*tokens for 48 keys")
@pytest.mark.parametrize("reader", READERS)
def test_a_long_text_is_read_as_its_pieces_are(gpt2: Model, reader: str) -> None:
    read = READERS[reader]
    with pytest.warns(UserWarning, match=CUT):
        whole = read(gpt2, [SHORT[0], LONG, *SHORT[1:]])
    torch.testing.assert_close(whole, read(gpt2, [SHORT[0], *PIECES, *SHORT[1:]]), atol=1e-4, rtol=1e-4)


def test_a_training_reads_long_texts_to_its_end(gpt2: Model) -> None:
    made = TopK(gpt2.d_model, 24, k=4, seed=0)
    with pytest.warns(UserWarning, match=CUT):
        source = activations_of(gpt2, [LONG, *SHORT], resid_post[1])
        report = sae.train(made, source, tokens=2000, batch_size=64, progress=False)
    assert report.explained_variance > 0


def test_a_training_on_one_text_says_that_all_of_it_is_that_text(gpt2: Model) -> None:
    made = TopK(gpt2.d_model, 24, k=4, seed=0)
    with pytest.warns(UserWarning, match="all 512 tokens of this training are of one text"):
        sae.train(made, activations_of(gpt2, SHORT[0], resid_post[1]), tokens=512, batch_size=64, progress=False)


def test_an_index_and_an_example_name_the_text_that_was_given(gpt2: Model, tmp_path: Path) -> None:
    made = _dictionary(gpt2)
    texts = [SHORT[0], LONG, SHORT[1]]
    with pytest.warns(UserWarning, match=CUT):
        found = features.index(made, gpt2, texts, tmp_path, top=3)
    assert found.about["texts"] == 3 and found.about["tokens"] == sum(map(len, texts))
    codes = made.encode(capture(gpt2, PIECES, resid_post[1]).flat(resid_post[1])).detach()
    latent = int((codes > 0).sum(0).argmax())
    with pytest.warns(UserWarning, match=CUT):
        seen = features.collect_evidence(made, gpt2, texts, latent)
    assert sorted(example.text for example in seen.examples) == [0, 1, 2]
    (in_long,) = (example for example in seen.examples if example.text == 1)
    assert in_long.activation == pytest.approx(float(codes[:, latent].max()), rel=1e-4)
    for example in seen.examples:
        assert "".join(example.tokens) in texts[example.text]


def test_the_mean_of_a_long_text_is_over_all_of_its_tokens(gpt2: Model) -> None:
    with pytest.warns(UserWarning, match=CUT):
        rows = capture_mean_rows(gpt2, [SHORT[0], LONG], resid_post[1], everywhere)
    parts = capture_mean_rows(gpt2, PIECES, resid_post[1], everywhere)
    lengths = torch.tensor([len(piece) for piece in PIECES]).double()
    torch.testing.assert_close(rows[1], (parts * lengths[:, None]).sum(0) / lengths.sum(), atol=1e-5, rtol=1e-5)


def test_damage_on_a_long_text_is_measured_on_all_of_it(gpt2: Model) -> None:
    texts = [SHORT[0], LONG, SHORT[1], SHORT[2]]
    with pytest.warns(UserWarning, match=CUT):
        found = measure_damage(gpt2, _direction(gpt2), 1.0, texts)
    assert found.kl.value > 0


def test_a_lens_is_tuned_on_long_texts(gpt2: Model) -> None:
    with pytest.warns(UserWarning, match=CUT):
        lens = lenses.tune(gpt2, [LONG], steps=2, batch_size=1, progress=False)
    pieces = lenses.tune(gpt2, [LONG[: CONTEXT - 1]], steps=2, batch_size=1, progress=False)
    assert not torch.equal(lens.A, pieces.A)


def test_pieces_of_a_labelled_text_keep_its_label_and_group(gpt2: Model) -> None:
    examples = Examples(["a bay", LONG, "a fog", "a sea"], [True, False, False, True], [0, 1, 2, 3])
    with pytest.warns(UserWarning, match="1 of 4 texts"):
        cut = cut_examples(gpt2, examples)
    assert "".join(cut.texts[1:4]) == LONG and (cut.texts[0], *cut.texts[4:]) == ("a bay", "a fog", "a sea")
    assert cut.labels == (True, False, False, False, False, True) and cut.groups == (0, 1, 1, 1, 2, 3)
    assert cut_examples(gpt2, cut) is cut


def test_a_sweep_reads_long_examples(gpt2: Model) -> None:
    texts = [f"{'yes' if i % 2 else 'no'} {i} {'ab' * i}" for i in range(10)] + [LONG]
    examples = Examples(texts, [i % 2 == 1 for i in range(11)], list(range(11)))
    with pytest.warns(UserWarning, match=CUT):
        grid = sweep(gpt2, examples, [resid_post[-1]], probe=Logistic(), folds=3, permutations=1)
    assert grid.sites == (resid_post[gpt2.n_layers - 1],)


def test_the_projection_of_a_long_text_is_that_of_all_its_tokens(gpt2: Model) -> None:
    direction = _direction(gpt2)
    with pytest.warns(UserWarning, match=CUT):
        found = measure_projections(gpt2, direction, [SHORT[0], LONG], everywhere)
    parts = measure_projections(gpt2, direction, PIECES, everywhere)
    lengths = torch.tensor([len(piece) for piece in PIECES]).double()
    assert float(found[1]) == pytest.approx(float((parts * lengths).sum() / lengths.sum()), abs=1e-5)


ENDS = "1 of . texts are longer than the context of 96 tokens: their ends are read"


def test_what_is_read_after_the_last_token_of_a_long_text_is_read_from_its_end(gpt2: Model) -> None:
    end = LONG[-(CONTEXT - 1) :]
    generator = torch.Generator().manual_seed(0)
    made = {
        name: Direction(torch.randn(gpt2.d_model, generator=generator), resid_post[1], "drawn", 1.0, gpt2.fingerprint)
        for name in ("one", "two")
    }
    with pytest.warns(UserWarning, match=ENDS):
        long = directions.compare(gpt2, made, [SHORT[0], LONG])
    short = directions.compare(gpt2, made, [SHORT[0], end])
    torch.testing.assert_close(long.effects, short.effects, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(long.strength, short.strength, atol=1e-4, rtol=1e-4)
    marks = [int(gpt2.tokens("e").ids[0, -1])]
    with pytest.warns(UserWarning, match=ENDS):
        found = directions.refusal(gpt2, [SHORT[0], LONG], SHORT[1:], marks, positions=(-1, -2))
    plain = directions.refusal(gpt2, [SHORT[0], end], SHORT[1:], marks, positions=(-1, -2))
    assert found.positive == pytest.approx(plain.positive, abs=1e-4)
    assert [(one.direction.site, one.position) for one in found.candidates] == [
        (one.direction.site, one.position) for one in plain.candidates
    ]
    assert len(found.candidates) == 2 * gpt2.n_layers
