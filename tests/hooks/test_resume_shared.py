"""A pass taken up again is the whole pass under the same change; attention is put back whatever interrupts it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hooks import Model, capture, intervene, load
from hooks.attention import eager_attention
from hooks.errors import InvalidArgument
from hooks.interventions import apply
from hooks.position import everywhere, special
from hooks.resume import _form, hold
from hooks.site import Site, embed, mlp_out, resid_post, resid_pre, z


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_pass_taken_up_again_runs_the_later_calls_of_a_block_that_serves_several_layers(
    hf_model: Callable[..., Any], tokenizer: Any, layer: int
) -> None:
    hf = hf_model("llama", num_hidden_layers=3)
    blocks = hf.model.layers
    hf.model.layers = nn.ModuleList([blocks[0], blocks[1], blocks[1], blocks[2]])
    hf.config.num_hidden_layers, hf.config.use_cache = 4, False
    model = load(hf, tokenizer)
    held, ran = hold(model, "Fog over the bay"), list[nn.Module]()
    for block in blocks:
        block.mlp.register_forward_hook(lambda mlp, *_: ran.append(mlp))
    logits = held.logits(layer, {})
    assert ran == [block.mlp for block in hf.model.layers[layer:]]
    torch.testing.assert_close(logits, model.run("Fog over the bay"))


def test_the_attention_is_put_back_where_its_change_is_interrupted(
    hf_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    hf = hf_model("gpt2")
    hf.set_attn_implementation("sdpa")
    own = type(hf).set_attn_implementation

    def interrupted(self: Any, kind: str) -> None:
        own(self, kind)
        if kind == "eager":
            raise KeyboardInterrupt

    monkeypatch.setattr(type(hf), "set_attn_implementation", interrupted)
    with pytest.raises(KeyboardInterrupt), eager_attention(hf):
        pass
    assert hf.config._attn_implementation == "sdpa"


TEXTS = ["Fog over the bay", "No"]
CHANGES = [(0, embed), (0, z[0]), (1, resid_pre[1]), (1, mlp_out[2]), (2, z[2]), (2, resid_post[2])]


@pytest.mark.parametrize(("layer", "site"), CHANGES, ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_pass_taken_up_again_under_a_change_is_the_whole_pass_under_it(
    request: pytest.FixtureRequest, family: str, layer: int, site: Site
) -> None:
    model: Model = request.getfixturevalue(family)
    end = resid_post[model.n_layers - 1]
    held = hold(model, TEXTS, [z[1]])
    assert torch.equal(held.activations[z[1]], capture(model, TEXTS, z[1])[z[1]])
    assert torch.equal(held.final, capture(model, TEXTS, end)[end])

    def more(a: torch.Tensor) -> torch.Tensor:
        return 1.5 * a + 0.1

    with intervene(model, {site: apply(more, at=everywhere | special)}):
        streams, logits = capture(model, TEXTS, end)[end], model.run(TEXTS)
    real = held.activations.tokens.mask
    torch.testing.assert_close(held.resume(layer, {site: more})[real], streams[real], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(held.logits(layer, {site: more})[real], logits[real], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(held.final[real], streams[real], atol=1e-3)


def test_copies_of_a_text_follow_each_other_and_each_is_changed_by_itself(gpt2: Model) -> None:
    held, scales = hold(gpt2, TEXTS), torch.tensor([0.0, 1.0, 2.0])

    def each(a: torch.Tensor) -> torch.Tensor:
        return a * scales.repeat(2).view(-1, *[1] * (a.ndim - 1))

    together, logits = held.resume(1, {z[1]: each}, times=3), held.logits(1, {z[1]: each}, times=3)
    assert len(together) == len(logits) == 6
    for number, factor in enumerate(scales.tolist()):
        alone = held.resume(1, {z[1]: lambda a, factor=factor: factor * a})
        torch.testing.assert_close(together[number::3], alone, atol=1e-5, rtol=1e-4)
        alone = held.logits(1, {z[1]: lambda a, factor=factor: factor * a})
        torch.testing.assert_close(logits[number::3], alone, atol=1e-4, rtol=1e-4)
    for call in (held.resume, held.logits):
        with pytest.raises(InvalidArgument, match="times is the number of copies of each text, at least 1; got 0"):
            call(1, {}, times=0)


def test_blocks_before_the_one_where_a_pass_is_taken_up_do_not_run_and_are_themselves_again(gpt2: Model) -> None:
    held, ran = hold(gpt2, TEXTS), list[int]()
    inner = [gpt2.blocks[layer].mlp for layer in range(3)]  # type: ignore[attr-defined]
    handles = [part.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, part in enumerate(inner)]
    try:
        for layer in range(3):
            ran.clear()
            held.resume(layer, {})
            assert ran == [*range(layer, 3)]
    finally:
        for handle in handles:
            handle.remove()
    assert not any("forward" in vars(block) for block in gpt2.blocks)


def test_a_model_of_one_block_is_held_too(hf_model: Callable[..., Any], tokenizer: Any) -> None:
    model = load(hf_model("gpt2", num_hidden_layers=1), tokenizer, check=False)
    held = hold(model, TEXTS)
    assert torch.equal(held.final, capture(model, TEXTS, resid_post[0])[resid_post[0]])
    torch.testing.assert_close(held.resume(0, {}), held.final)


def test_a_stream_is_given_the_form_in_which_a_block_returns_it() -> None:
    x, y = torch.ones(1, 2, 3), torch.zeros(1, 2, 3)
    assert _form(y)(x) is x
    for more in range(3):
        passed = _form((y, *[y] * more))(x)
        assert passed[0] is x and passed[1:] == (None,) * more
