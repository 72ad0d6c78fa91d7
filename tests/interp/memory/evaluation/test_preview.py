"""A preview shows what an edit moves, where it moves it, and nothing for an edit of nothing."""

import pytest
import torch

from hooks import Model, capture
from hooks.site import resid_post
from interp.memory import Edit, Fact, knn_memory, preview
from interp.memory.editing.change import LowRank
from interp.memory.evaluation.preview import _texts
from interp.sae import TopK
from tests.contracts.words import sentences, taught

pytestmark = pytest.mark.usefixtures("unchecked")

ROME = Fact("Rome", "{} is in", "Italy", "Peru")


@pytest.fixture(scope="module")
def model() -> Model:
    return taught("gpt2")


def shifted(model: Model, size: float) -> Edit:
    random = torch.Generator().manual_seed(0)
    key = torch.randn(1, model.d_mlp, generator=random)
    value = size * torch.randn(1, model.d_model, generator=random)
    return Edit((ROME,), "shift", (LowRank(0, key, value),), model.fingerprint)


def test_an_edit_of_nothing_moves_nothing(model: Model) -> None:
    found = preview(model, shifted(model, 0.0), sentences()[:5])
    assert {one.kl for one in found.texts} == {one.change for one in found.memories} == {0.0}
    assert len(found.texts) == 5 and len(found.memories) == 10 and found.latents == ()


def test_the_edited_prompt_is_moved_most_and_says_the_new_object(model: Model) -> None:
    edit = knn_memory(model, ROME, radius=0.02)
    first, *rest = preview(model, edit, [*sentences()[3:9], "Rome is in"], top=3).texts
    assert first.text.replace(" ", "") == "Romeisin"
    assert (first.before.strip(), first.after.strip()) == ("Italy", "Peru")
    assert first.kl > 1.0 > max(one.kl for one in rest)


def test_a_change_of_a_layers_values_moves_memories_of_later_layers_only_and_a_random_one_as_well(model: Model) -> None:
    found = preview(model, shifted(model, 0.05), sentences()[:20], top=model.n_layers * model.d_mlp)
    assert all(m.change == m.control == 0.0 for m in found.memories if m.layer == 0)
    assert all(m.change > 0.0 and m.control > 0.0 for m in found.memories[: model.d_mlp // 2])
    assert [m.change for m in found.memories] == sorted((m.change for m in found.memories), reverse=True)


@torch.no_grad()
def test_latents_change_by_what_encoding_both_streams_gives(model: Model) -> None:
    edit, texts = shifted(model, 0.05), sentences()[:20]
    sae = TopK(model.d_model, 64, k=4)
    sae.site = resid_post[1]
    found = preview(model, edit, texts, sae=sae, top=1)
    plain = sae.encode(capture(model, texts, [resid_post[1]]).flat(resid_post[1]))
    with edit.applied(model):
        moved = sae.encode(capture(model, texts, [resid_post[1]]).flat(resid_post[1]))
    change = (moved - plain).square().mean(0).sqrt()
    (first,) = found.latents
    assert first.latent == int(change.argmax()) and first.change == pytest.approx(float(change.max()), rel=1e-3)
    assert first.before == pytest.approx(float(plain.mean(0)[first.latent]), rel=1e-3, abs=1e-6)


def test_nothing_to_read_or_to_keep_is_refused(model: Model) -> None:
    for texts, top in (([], 3), (["Rome is in"], 0)):
        with pytest.raises(ValueError, match="keep at least one of at least one text"):
            preview(model, shifted(model, 0.1), texts, top=top)
    with pytest.raises(ValueError, match="the autoencoder has no site"):
        preview(model, shifted(model, 0.1), ["Rome is in"], sae=TopK(model.d_model, 64, k=4))


def test_the_token_of_a_moved_text_is_how_many_come_before_it(gpt2: Model) -> None:
    tokens = gpt2.tokens(["fog over the bay"])
    draw = torch.Generator().manual_seed(0)
    plain = torch.randn(1, tokens.ids.shape[1], gpt2.d_vocab, generator=draw)
    edited = plain.clone()
    edited[0, 4] = torch.randn(gpt2.d_vocab, generator=draw)
    (moved,) = _texts(gpt2, tokens, (plain, edited, plain))
    assert moved.token == 3 and moved.text == "fog " and moved.kl > 0 and moved.control == 0
