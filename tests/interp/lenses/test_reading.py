"""What is read off each layer, against the distributions written out."""

from dataclasses import replace

import pytest
import torch

from hooks import Model, capture
from hooks.pieces import piece
from hooks.position import everywhere
from hooks.site import resid_post
from interp.lenses import LogitLens, rank, read

TEXTS = ["fog over", "a bay"]


def test_entropy_divergence_and_likeliest_tokens_are_those_of_the_layers_distribution(decoder: Model) -> None:
    found = read(LogitLens(decoder), TEXTS, top=3)
    p = torch.distributions.Categorical(logits=decoder.run(TEXTS).double().detach())
    for i, layer in enumerate(found.layers):
        h = capture(decoder, TEXTS, resid_post[layer])[resid_post[layer]]
        q = torch.distributions.Categorical(logits=decoder.unembed(h).double().detach())
        real = decoder.tokens(TEXTS).mask
        torch.testing.assert_close(found.entropy[i][real].double(), q.entropy()[real], rtol=1e-4, atol=1e-5)
        kl = torch.distributions.kl_divergence(p, q)
        torch.testing.assert_close(found.kl[i][real].double(), kl[real], rtol=1e-3, atol=1e-4)
        best = q.probs.topk(3)
        assert torch.equal(found.top[i][real], best.indices[real])
        torch.testing.assert_close(found.probability[i][real].double(), best.values[real], rtol=1e-4, atol=1e-6)
    assert bool(found.kl[:, ~real].isnan().all()) and bool(found.entropy[:, ~real].isnan().all())


def test_the_mean_divergence_leaves_out_padding_and_the_first_special_token(gpt2: Model) -> None:
    found = read(LogitLens(gpt2), TEXTS)
    each = torch.cat([found.kl[:, 0, 1:], found.kl[:, 1, 1:6]], 1)
    torch.testing.assert_close(found.mean_kl, each.mean(1))
    assert found.words[int(found.top[0, 0, 0, 0])] == gpt2.tokenizer.decode([int(found.top[0, 0, 0, 0])])
    assert found.tokens[0][1:4] == ("f", "o", "g")


def test_the_rank_of_a_token_is_how_many_are_likelier(gpt2: Model) -> None:
    found, real = rank(LogitLens(gpt2), TEXTS, "g").ranks, gpt2.tokens(TEXTS).mask
    token = int(gpt2.tokens("g").ids[0, -1])
    h = capture(gpt2, TEXTS, resid_post[1])[resid_post[1]]
    order = gpt2.unembed(h).argsort(-1, descending=True)
    assert torch.equal(found[1][real], (order == token).int().argmax(-1)[real])
    likeliest = read(LogitLens(gpt2), "fog", top=1)
    word = likeliest.words[int(likeliest.top[2, 0, 3, 0])]
    if len(gpt2.tokens(word).ids[0]) == 2:  # a byte that spells itself
        assert int(rank(LogitLens(gpt2), "fog", word).ranks[2, 0, 3]) == 0


def test_padding_has_no_rank(gpt2: Model) -> None:
    found = rank(LogitLens(gpt2), TEXTS, "g")
    real = gpt2.tokens(TEXTS).mask
    assert not bool(real.all())
    assert torch.equal(found.content, everywhere.mask(gpt2.tokens(TEXTS)))
    assert bool((found.ranks[:, ~real] == -1).all()) and bool((found.ranks[:, real] >= 0).all())


def test_more_tokens_than_there_are_cannot_be_kept(gpt2: Model) -> None:
    with pytest.raises(ValueError, match="top is 0: give a number of tokens from 1 to 257"):
        read(LogitLens(gpt2), "fog", top=0)


def test_a_reading_fits_a_line_and_its_frame_has_a_row_for_each_layer_and_token_of_text(gpt2: Model) -> None:
    found, ranks = read(LogitLens(gpt2), TEXTS), rank(LogitLens(gpt2), TEXTS, "g")
    for result in (found, ranks):
        assert "\n" not in repr(result) and "tensor" not in repr(result) and len(repr(result)) < 200
    frame, ranked = found.to_pandas(), ranks.to_pandas()
    n = int(found.content.sum())
    assert len(frame) == len(ranked) == 3 * n
    assert frame.groupby("layer")["kl"].mean().tolist() == pytest.approx(found.mean_kl.tolist(), rel=1e-5)
    assert ranked["rank"].tolist() == ranks.ranks[:, found.content].flatten().tolist()
    last = frame.iloc[-1]
    assert last["likeliest"] == found.words[int(found.top[2][found.content][-1, 0])]
    for column, of in (
        ("probability", found.probability[2][found.content][-1, 0]),
        ("entropy", found.entropy[2][found.content][-1]),
    ):
        assert last[column] == float(of)


def test_a_reading_prints_the_divergence_of_six_layers_and_says_that_there_are_more(gpt2: Model) -> None:
    found = read(LogitLens(gpt2), TEXTS)

    def printed(n: int) -> str:
        first = [0] * n
        parts = {name: getattr(found, name)[first] for name in ("top", "probability", "entropy", "kl")}
        return repr(replace(found, layers=tuple(range(n)), **parts))

    shown = f"{float(found.mean_kl[0]):.2f}"
    assert printed(6).endswith(f"KL {', '.join([shown] * 6)})") and printed(7).endswith(
        f"KL {', '.join([shown] * 6)}, …)"
    )


def test_a_token_is_ranked_and_has_its_direction_by_its_id_as_by_its_word(gpt2: Model) -> None:
    lens, token = LogitLens(gpt2), int(gpt2.tokens("g").ids[0, -1])
    assert torch.equal(rank(lens, TEXTS, token).ranks, rank(lens, TEXTS, "g").ranks)
    assert rank(lens, TEXTS, token).word == "g"
    assert torch.equal(lens.direction(token, 1).vector, lens.direction("g", 1).vector)


def test_a_reading_prints_what_its_last_layer_says_after_the_last_token_of_the_first_text(decoder: Model) -> None:
    texts = ["fog over", "a bay"]
    found = read(LogitLens(decoder), texts)
    last = int(decoder.run(texts)[0, decoder.tokens(texts).mask[0].nonzero()[-1]].argmax())
    assert f"says {[piece(decoder.tokenizer, last)]}" in repr(found)
