"""How data is cut into batches shows in what is read at once, and in no number."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.tiny_models import tiny_model
from hooks import Images, Model, Network, Processor, capture, intervene, load, stream
from hooks.capture import _alone, read_rows
from hooks.contract.report import Check, ContractReport
from hooks.errors import InvalidArgument
from hooks.gradients import capture_gradients
from hooks.interventions import add
from hooks.position import everywhere, special
from hooks.site import decoder, encoder, pos_embed, resid_post, resid_pre

TEXTS = ["The Golden Gate Bridge", "Fog", "Over the bay.", "A b", "Lights in the evening"]
PIXELS = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def rows_read(model: Model, work: Callable[[], object]) -> list[int]:
    """How many rows each pass of a model read."""
    read: list[int] = []
    handle = model.module(resid_post[0]).register_forward_pre_hook(lambda _m, args: read.append(len(args[0])))
    work()
    handle.remove()
    return read


def spare(model: Model) -> Any:
    """Tokens whose last column is padding in every text."""
    tokens = model.tokens(["Fog", "Bay"])
    column = torch.zeros(2, 1, dtype=torch.long)
    return tokens.extend(column, column.bool(), ~column.bool())


def test_no_pass_reads_more_rows_than_a_batch_has(gpt2: Model) -> None:
    for data in (TEXTS, gpt2.tokens(TEXTS), gpt2.tokens(TEXTS).ids):
        assert rows_read(gpt2, lambda data=data: capture(gpt2, data, resid_post[1], batch_size=2)) == [2, 2, 1]
        assert rows_read(gpt2, lambda data=data: [*stream(gpt2, data, resid_post[1], batch_size=2)]) == [2, 2, 1]
        assert [len(tokens) for tokens in read_rows(gpt2, data, batch_size=2)] == [2, 2, 1]
    assert rows_read(gpt2, lambda: capture(gpt2, TEXTS, resid_post[1])) == [5]
    assert [len(acts.tokens) for acts in stream(gpt2, "Fog", resid_post[1], batch_size=1)] == [1]


def test_texts_longer_than_a_bound_on_rows_are_read_in_several_passes_without_a_bar(
    gpt2: Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hooks.progress.DELAY", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a text is cut
        (acts,) = stream(gpt2, ["ab " * 80], resid_post[1], batch_size=1)
    assert len(acts.tokens) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("size", "batches"), [(2, 3), (5, 1), (1, 5)])
def test_a_bar_counts_the_batches_that_come(
    gpt2: Model, size: int, batches: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hooks.progress.DELAY", 0.0)
    assert len([*stream(gpt2, TEXTS, resid_post[1], batch_size=size, progress=True)]) == batches
    assert f" {batches}/{batches} " in capsys.readouterr().err
    assert len([*stream(gpt2, "Fog", resid_post[1], progress=True)]) == 1
    assert "/" not in capsys.readouterr().err.replace("batch/s", "").replace("s/batch", "")


@pytest.mark.parametrize("size", [1, 2, 32])
def test_ready_tokens_keep_a_column_that_is_padding_in_all_of_them(gpt2: Model, size: int) -> None:
    tokens = spare(gpt2)
    acts = capture(gpt2, tokens, resid_post[1], batch_size=size)
    assert torch.equal(acts.tokens.ids, tokens.ids) and acts[resid_post[1]].shape == (2, 5, 32)
    if size > 1:
        (part,) = stream(gpt2, tokens, resid_post[1], batch_size=size)
        assert torch.equal(part.tokens.ids, tokens.ids)


def test_what_one_pass_gives_is_not_copied_and_a_part_of_it_is(gpt2: Model) -> None:
    made: list[Tensor] = []
    handle = gpt2.module(resid_post[1]).register_forward_hook(lambda _m, _a, out: made.append(out))
    acts = capture(gpt2, "Fog", [resid_post[1], resid_pre[2]], batch_size=1)
    handle.remove()
    assert acts[resid_post[1]].data_ptr() == made[0].data_ptr() == acts[resid_pre[2]].data_ptr()
    tokens = gpt2.tokens(["Fog", "Bay"])
    whole = torch.arange(24.0).view(4, 6)
    for part in (whole[1:3], whole.T[:2], whole[2:, ::2]):
        alone = _alone(part, tokens)
        assert torch.equal(alone, part) and alone.untyped_storage().nbytes() == 4 * part.numel()
    assert _alone(whole[:2].clone(), tokens).shape == (2, 6)
    assert torch.equal(_alone(whole[:1].clone(), tokens), whole[0].expand(2, 6))


def test_a_batch_of_no_rows_is_refused_whatever_is_read(gpt2: Model) -> None:
    for data in ("Fog", TEXTS, gpt2.tokens(TEXTS)):
        with pytest.raises(InvalidArgument, match="batch_size must be at least 1, got 0"):
            capture(gpt2, data, resid_post[0], batch_size=0)


def test_a_model_that_reads_no_batches_reads_texts_one_by_one(fresh: Callable[..., Model]) -> None:
    model = fresh("gpt2")
    wanted = capture(model, TEXTS, resid_post[1])
    broken = Check("batch", "a batch gives what its texts give", 1.0, 0.1, use="batch")
    model.contract = ContractReport("gpt2", "float32", model.fingerprint, (broken,), 0, 0.0)
    with pytest.raises(InvalidArgument, match="refuses batch"):
        capture(model, TEXTS, resid_post[1])
    acts = capture(model, TEXTS, resid_post[1], batch_size=1)
    torch.testing.assert_close(acts.flat(resid_post[1]), wanted.flat(resid_post[1]), atol=1e-5, rtol=1e-4)


def test_columns_of_numbers_may_come_before_that_of_pictures_and_none_at_all_is_refused() -> None:
    datasets, pil = pytest.importorskip("datasets"), pytest.importorskip("PIL.Image")
    arrays = (PIXELS * 255).round().to(torch.uint8)
    pictures = [pil.fromarray(one.permute(1, 2, 0).numpy()) for one in arrays]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    model = load(net, inputs=PIXELS[:1], processor=Processor(), check=False)
    assert isinstance(model, Network)
    wanted = capture(model, Images(arrays / 255), "logits")["logits"]
    data = datasets.Dataset.from_dict({"n": [1, 2, 3], "image": pictures})
    for size in (1, 2, 3):
        got = capture(model, data, "logits", batch_size=size)
        torch.testing.assert_close(got["logits"], wanted)
    with pytest.raises(InvalidArgument, match=r"the dataset has columns \['n'\], expected 'input_ids' or 'text', or"):
        capture(model, data.remove_columns("image"), "logits")


def test_cross_patterns_of_texts_padded_on_the_left_are_at_the_encoders_columns() -> None:
    model = load(tiny_model("t5", "T5ForConditionalGeneration"), check=False)
    random = torch.Generator().manual_seed(0)
    ids, read = (torch.randint(6, 60, (3, n), generator=random) for n in (7, 4))
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, :3] = mask[1, :2] = 0
    given = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": read}
    sites = [decoder.cross_pattern[0], decoder.pattern[0], encoder.pattern[1]]
    whole, parts = capture(model, given, sites), capture(model, given, sites, batch_size=2)
    assert whole[sites[0]].shape == (3, *whole[sites[0]].shape[1:2], 4, 7)
    seen = mask.bool()[:, None, None]
    torch.testing.assert_close(parts[sites[0]] * seen, whole[sites[0]] * seen, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(parts[sites[1]], whole[sites[1]], atol=1e-5, rtol=1e-4)
    both = seen & mask.bool()[:, None, :, None]
    torch.testing.assert_close(parts[sites[2]] * both, whole[sites[2]] * both, atol=1e-5, rtol=1e-4)
    assert not bool((whole[sites[0]] * ~seen).any()) and not bool((parts[sites[0]] * ~seen).any())


def test_as_many_texts_as_each_has_tokens_share_one_embedding_of_places(gpt2: Model) -> None:
    """[1 pos d] with pos texts: neither is taken for the other."""
    tokens = gpt2.tokens(["a", "b"])
    assert tokens.ids.shape == (2, 2)
    site, push = pos_embed, torch.randn(32, generator=torch.Generator().manual_seed(0))
    found = capture_gradients(gpt2, tokens, site, lambda logits: logits[:, -1, 5].sum())
    alone = [capture_gradients(gpt2, one, site, lambda logits: logits[:, -1, 5].sum()) for one in ("a", "b")]
    wanted = torch.cat([one.gradients[site] for one in alone])
    torch.testing.assert_close(found.gradients[site], wanted, atol=1e-6, rtol=1e-4)
    assert capture(gpt2, tokens, site)[site].shape == (2, 2, 32)
    with intervene(gpt2, {site: add(push, at=everywhere | special)}) as receipt:
        both = gpt2.run(tokens)
    assert receipt[site].prefill_tokens == 4
    with intervene(gpt2, {site: add(push, at=everywhere | special)}):
        torch.testing.assert_close(both, torch.cat([gpt2.run("a"), gpt2.run("b")]), atol=1e-5, rtol=1e-4)


def test_a_site_on_which_the_metric_does_not_depend_has_a_gradient_of_zeros() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.aside = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.used(x)

    net, x = Net(), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    model: Any = load(net, inputs=x, check=False)
    found = capture_gradients(model, x, ["module(used)", "module(aside)"], lambda y: y.sum())
    assert torch.equal(found.gradients["module(used)"], torch.ones(2, 1, 3))
    assert torch.equal(found.gradients["module(aside)"], torch.zeros(2, 1, 3))
