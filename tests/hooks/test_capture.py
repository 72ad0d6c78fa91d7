"""Capture reads what a plain forward pass computes, no more of it than asked for, and leaves no trace."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Activations, Model, capture, intervene, stream
from hooks.interventions import scale
from hooks.position import last, substring
from hooks.site import (
    attn_out,
    embed,
    ln_final_scale,
    logits,
    mlp_act,
    mlp_out,
    pattern,
    pos_embed,
    q,
    resid_mid,
    resid_post,
    resid_pre,
    z,
)

TEXTS = ["The Golden Gate Bridge", "Fog", "Over the bay.", "A b", "Lights in the evening, far off"]


def hooks_on(model: Model) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.hf.modules())


def test_a_batch_gives_the_rows_its_texts_give_alone(model: Model, padded_left: Callable[[Model], Model]) -> None:
    sites = [site for site in model.sites if site.name != "pattern" and site.layer in (None, 0, 2)]
    for one in (model, padded_left(model)):
        together = capture(one, TEXTS[:3], sites)
        for row, text in enumerate(TEXTS[:3]):
            alone = capture(one, text, sites)
            real = together.tokens.mask[row]
            for site in sites:
                torch.testing.assert_close(together[site][row][real], alone[site][0], atol=2e-5, rtol=1e-4)


def test_patterns_of_a_padded_batch_are_those_of_its_texts(
    decoder: Model, padded_left: Callable[[Model], Model]
) -> None:
    for model in (decoder, padded_left(decoder)):
        together = capture(model, TEXTS[:3], pattern[1])
        for row, text in enumerate(TEXTS[:3]):
            real = together.tokens.mask[row]
            part = together[pattern[1]][row][:, real][:, :, real]
            torch.testing.assert_close(part, capture(model, text, pattern[1])[pattern[1]][0], atol=1e-5, rtol=1e-4)


def test_many_small_batches_give_what_one_large_batch_gives(
    model: Model, padded_left: Callable[[Model], Model]
) -> None:
    for one in (model, padded_left(model)):
        whole, parts = capture(one, TEXTS, one.sites), capture(one, TEXTS, one.sites, batch_size=2)
        assert torch.equal(whole.tokens.ids, parts.tokens.ids)
        assert parts.tokens.texts == tuple(TEXTS)
        for site in one.sites:
            if site.name != "pattern":
                torch.testing.assert_close(parts.flat(site), whole.flat(site), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(parts.flat(pattern[0]), whole.flat(pattern[0]), atol=2e-5, rtol=1e-4)


def test_ready_tokens_keep_their_columns(gpt2: Model, padded_left: Callable[[Model], Model]) -> None:
    tokens = padded_left(gpt2).tokens(TEXTS)
    acts = capture(gpt2, tokens, resid_post[1], batch_size=2)
    assert torch.equal(acts.tokens.ids, tokens.ids)
    assert torch.equal(acts.tokens.mask, tokens.mask)
    expected = capture(gpt2, TEXTS, resid_post[1]).flat(resid_post[1])
    torch.testing.assert_close(acts.flat(resid_post[1]), expected, atol=1e-5, rtol=1e-4)


def test_a_stream_gives_the_batches_of_a_capture_in_order(gpt2: Model) -> None:
    batches = list(stream(gpt2, TEXTS, mlp_act[1], batch_size=2))
    assert [len(batch.tokens) for batch in batches] == [2, 2, 1]
    streamed = torch.cat([batch.flat(mlp_act[1]) for batch in batches])
    torch.testing.assert_close(streamed, capture(gpt2, TEXTS, mlp_act[1]).flat(mlp_act[1]), atol=1e-5, rtol=1e-4)


def test_texts_ids_tokens_and_datasets_give_the_same(gpt2: Model) -> None:
    import datasets

    site, text = resid_post[1], TEXTS[:3]
    expected = capture(gpt2, text, site).flat(site)
    ids = [gpt2.tokens(one).ids[0].tolist() for one in text]
    same = [
        gpt2.tokens(text),
        datasets.Dataset.from_dict({"text": text}),
        datasets.Dataset.from_dict({"input_ids": ids}),
        datasets.Dataset.from_dict({"text": ["wrong"] * 3, "input_ids": ids}),
    ]
    for data in same:
        torch.testing.assert_close(capture(gpt2, data, site).flat(site), expected)
    lazily = datasets.Dataset.from_dict({"text": text}).to_iterable_dataset()
    rows = [batch.flat(site) for batch in stream(gpt2, lazily, site, batch_size=2)]
    torch.testing.assert_close(torch.cat(rows), expected, atol=1e-5, rtol=1e-4)
    row = torch.tensor(ids[0])
    torch.testing.assert_close(capture(gpt2, row, site)[site], capture(gpt2, text[0], site)[site])


def test_nothing_runs_after_the_last_site_asked_for(model: Model) -> None:
    ran: list[str] = []
    blocks = [model.module(resid_post[i]) for i in range(3)]
    handles = [
        part.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for block, at in zip(blocks, "012", strict=True)
        for name, part in ((f"{at}.{inner}", part) for inner, part in block.named_modules())
    ]
    try:
        capture(model, "Fog", [mlp_act[1], embed])
    finally:
        for handle in handles:
            handle.remove()
    after = ran[ran.index("1.") :]
    output = next(name for name, part in blocks[1].named_modules() if part is model.module(mlp_act[1]))
    assert after[-1] == f"1.{output}"
    assert not [name for name in ran if name.startswith("2.")]


def test_the_order_of_the_sites_does_not_matter(gpt2: Model) -> None:
    forwards, backwards = capture(gpt2, "Fog", gpt2.sites), capture(gpt2, "Fog", gpt2.sites[::-1])
    assert all(torch.equal(forwards[site], backwards[site]) for site in gpt2.sites)
    assert capture(gpt2, "Fog", ["resid_post.1", resid_post[1]]).sites == (resid_post[1],)


def test_a_glob_asks_for_every_site_that_it_matches(gpt2: Model) -> None:
    acts = capture(gpt2, "Fog", ["resid_post.*", "blocks.*.hook_resid_post", mlp_act[1]])
    assert acts.sites == (*(resid_post[i] for i in range(gpt2.n_layers)), mlp_act[1])
    assert capture(gpt2, "Fog", ["resid_post.[01]", "resid_p?st.1"]).sites == (resid_post[0], resid_post[1])
    with pytest.raises(ValueError, match=r"no site is called 'resid_pots\.\*'; did you mean .*resid_post"):
        capture(gpt2, "Fog", "resid_pots.*")


def test_tensors_are_kept_not_copied(gpt2: Model) -> None:
    made: list[Tensor] = []
    handle = gpt2.module(resid_post[1]).register_forward_hook(lambda _m, _a, out: made.append(out))
    acts = capture(gpt2, "Fog", [resid_post[1], resid_pre[2]])
    handle.remove()
    assert acts[resid_post[1]].data_ptr() == acts[resid_pre[2]].data_ptr() == made[0].data_ptr()


def test_a_captured_part_does_not_keep_the_whole_alive(model: Model) -> None:
    for site, value in capture(model, TEXTS[:2], [q[1], z[0]]).values.items():
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), site


def test_patterns_are_distributions_and_the_attention_kernel_is_put_back(decoder: Model) -> None:
    before = decoder.hf.config._attn_implementation
    acts = capture(decoder, TEXTS[:2], [pattern[0], pattern[2]])
    assert decoder.hf.config._attn_implementation == before
    torch.testing.assert_close(acts.flat(pattern[2]).sum(-1), torch.ones(1).expand(acts.flat(pattern[2]).shape[:-1]))
    assert not bool(acts[pattern[0]][0].triu(1).any())


def test_captured_tensors_carry_no_graph_and_may_enter_one(gpt2: Model) -> None:
    with torch.enable_grad():
        value = capture(gpt2, "Fog", mlp_out[1])[mlp_out[1]]
    assert not value.requires_grad
    weight = torch.ones(32, requires_grad=True)
    (value @ weight).sum().backward()
    torch.testing.assert_close(weight.grad, value.sum(dim=(0, 1)))


def test_rows_at_a_position_are_those_of_its_tokens(gpt2: Model) -> None:
    acts = capture(gpt2, TEXTS, [resid_post[1], z[1]])
    ends = acts.tokens.mask.sum(dim=1) - 1
    assert torch.equal(acts.flat(resid_post[1], at=last), acts[resid_post[1]][torch.arange(5), ends])
    one = capture(gpt2, TEXTS[0], z[1])
    assert torch.equal(one.flat(z[1], at=substring("Gate")), one[z[1]][0, 12:16])
    assert acts.flat(resid_post[1]).shape == (sum(map(len, TEXTS)), 32)


def test_activations_and_receipts_are_read_by_name(gpt2: Model) -> None:
    with intervene(gpt2, {"mlp_act[0]": scale(2.0)}) as receipt:
        acts = capture(gpt2, TEXTS, ["resid_post[1]", "pattern.0"])
    assert receipt["mlp_act.0"] == receipt[mlp_act[0]]
    assert torch.equal(acts.flat("resid_post.1"), acts.flat(resid_post[1]))
    assert torch.equal(acts.flat("pattern.0"), acts.flat(pattern[0]))
    with pytest.raises(KeyError, match=r"nothing intervenes at mlp_act\.1; the nearest site is 'mlp_act\.0'"):
        _ = receipt["mlp_act.1"]


def test_activations_come_back_from_disk_bit_for_bit(gpt2: Model, tmp_path: Path) -> None:
    acts = capture(gpt2, TEXTS, [resid_post[1], pos_embed, ln_final_scale, pattern[0]])
    acts.save(tmp_path / "acts.safetensors")
    back = Activations.load(tmp_path / "acts.safetensors")
    assert back.sites == tuple(sorted(acts.sites, key=back.sites.index))
    assert set(back.sites) == set(acts.sites)
    assert back.fingerprint == acts.fingerprint == gpt2.fingerprint
    assert back.tokens.texts == acts.tokens.texts
    assert torch.equal(back.tokens.ids, acts.tokens.ids)
    for site in acts.sites:
        assert torch.equal(back[site], acts[site])


def test_a_file_of_something_else_is_no_activations(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="holds no activations: expected a file written by Activations.save"):
        Activations.load(tmp_path / "a.safetensors")


def test_capture_leaves_no_hooks_not_even_after_a_failure(model: Model) -> None:
    before = hooks_on(model)
    capture(model, TEXTS, [resid_post[1], pattern[0]])
    assert hooks_on(model) == before
    broken = model.module(mlp_out[1]).register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        capture(model, TEXTS, [resid_post[2], pattern[0]])
    broken.remove()
    assert hooks_on(model) == before
    assert model.hf.config._attn_implementation != "eager" or model.hf.config.model_type == "gemma2"


def test_the_way_to_the_logits_is_unembed(decoder: Model) -> None:
    acts = capture(decoder, TEXTS, [resid_post[2], logits])
    with torch.no_grad():
        torch.testing.assert_close(decoder.unembed(acts[resid_post[2]]), acts[logits])


def test_the_output_projection_maps_memory_coefficients_to_what_is_written(model: Model) -> None:
    acts = capture(model, TEXTS, [mlp_act[1]])
    written: list[Tensor] = []
    handle = model.module(mlp_act[1]).register_forward_hook(lambda _m, _a, out: written.append(out))
    model.run(TEXTS)
    handle.remove()
    bias = getattr(model.module(mlp_act[1]), "bias", None)
    product = acts[mlp_act[1]] @ model.w_out(1) + (0 if bias is None else bias)
    torch.testing.assert_close(product, written[0], atol=1e-5, rtol=1e-4)
    assert model.w_out(1).shape == (model.d_mlp, model.d_model)


def test_changing_the_view_of_the_output_projection_changes_the_model(fresh: Any) -> None:
    for family in ("gpt2", "llama"):
        model = fresh(family)
        before = model.run("Fog")
        with torch.no_grad():
            model.w_out(1)[3] += 1.0
        assert not torch.equal(model.run("Fog"), before)


ERRORS = [
    ("Fog", "resid_pots.1", r"no site is called 'resid_pots\.1'; did you mean 'resid_post\.1'"),
    ("Fog", resid_post[3], r"resid_post\.3 is out of range: .* has 3 layers, so the last is resid_post\.2"),
    ("Fog", [], "no sites were asked for: name at least one"),
    ([], resid_post[0], "got no texts: pass a text or a non-empty list of texts"),
]
LONG = ("x" * 96, resid_post[0], "97 tokens do not fit into the context of 96: shorten or split the text")


@pytest.mark.parametrize(("data", "sites", "said"), [*ERRORS, LONG], ids=[said[:24] for *_, said in [*ERRORS, LONG]])
def test_a_mistake_is_reported_before_anything_runs(gpt2: Model, data: Any, sites: Any, said: str) -> None:
    ran: list[int] = []
    streamed = lambda *args: list(stream(*args))  # noqa: E731
    handle = gpt2.module(embed).register_forward_hook(lambda *_: ran.append(1))
    try:
        for call in (capture,) if data is LONG[0] else (capture, streamed):  # a stream cuts what is too long
            with pytest.raises(ValueError, match=said):
                call(gpt2, data, sites)
    finally:
        handle.remove()
    assert not ran


def test_more_mistakes_are_reported(gpt2: Model) -> None:
    import datasets

    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        capture(gpt2, TEXTS, resid_post[0], batch_size=0)
    with pytest.raises(ValueError, match=r"the dataset has columns \['prose'\], expected 'input_ids' or 'text'"):
        capture(gpt2, datasets.Dataset.from_dict({"prose": TEXTS}), resid_post[0])
    with pytest.raises(ValueError, match="got no texts: the dataset is empty"):
        capture(gpt2, datasets.Dataset.from_dict({"text": []}), resid_post[0])
    with pytest.raises(KeyError, match=r"resid_post\.2 was not captured; the nearest that was: 'resid_post\.1'"):
        capture(gpt2, "Fog", resid_post[1])[resid_post[2]]


def test_a_parallel_block_has_no_middle_and_says_so(fresh: Any) -> None:
    model = fresh("gpt_neox")
    with pytest.raises(ValueError, match=r"\(GPTNeoXForCausalLM\) has no resid_mid\.1: .* in parallel.*use resid_pre"):
        capture(model, "Fog", resid_mid[1])
    acts = capture(model, "Fog", model.sites)
    total = acts[resid_pre[1]] + acts[attn_out[1]] + acts[mlp_out[1]]
    torch.testing.assert_close(acts[resid_post[1]], total)


def test_a_site_of_another_family_is_answered_with_the_nearest_there_are(llama: Model) -> None:
    with pytest.raises(ValueError, match=r"has no pos_embed; the nearest are 'embed'.*`model\.sites` lists every site"):
        capture(llama, "Fog", pos_embed)
