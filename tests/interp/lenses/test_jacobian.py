"""The Jacobian lens: TransformerLens's estimate and file, what interventions measure, and exact where linear."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model, capture, intervene
from hooks.interventions import add
from hooks.position import index
from hooks.site import resid_post
from interp.lenses import JacobianLens, fit_jacobian
from interp.lenses.jacobian import _matrices
from tests.interp.circuits.handmade import linear_gpt2

PROMPTS = ["fog over the bay", "the bridge is"]


@pytest.fixture
def linear(hf_model: Callable[..., Any], tokenizer: Any) -> Model:
    return linear_gpt2(hf_model, tokenizer)


def test_the_lens_is_transformer_lenss_and_each_reads_the_others_file(
    hf_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, fresh: Callable[..., Model]
) -> None:
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.tools.analysis import JacobianLens as Reference

    hf_model("gpt2").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    theirs = Reference.fit(bridge, PROMPTS, corpus="none", skip_first_positions=3, dim_batch=8, show_progress=False)
    model = fresh("gpt2")
    ours = fit_jacobian(model, PROMPTS, skip=3, batch_size=12)
    assert [*ours.J] == theirs.source_layers == [0, 1]
    for layer, J in ours.J.items():
        torch.testing.assert_close(J, theirs.jacobians[layer], rtol=1e-4, atol=1e-5)
    theirs.save(str(tmp_path / "theirs.pt"))
    ours.save(tmp_path / "ours.pt")
    read, written = JacobianLens.load(tmp_path / "theirs.pt", model), Reference.load(str(tmp_path / "ours.pt"))
    for layer, J in ours.J.items():
        torch.testing.assert_close(read.J[layer], J, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(written.jacobians[layer], J, rtol=2e-3, atol=2e-3)
    assert read.n_prompts == written.n_prompts == 2
    v = theirs.lens_vectors(bridge, int(model.tokens("g").ids[0, -1]), 1)[0]
    torch.testing.assert_close(ours.direction("g", 1).vector, v, rtol=1e-4, atol=1e-4)


def test_on_a_linear_network_it_is_the_mean_effect_that_interventions_have_on_later_tokens(linear: Model) -> None:
    """Add u at one token, sum what changes at the end, average over where it was added: that is J u exactly."""
    text, skip = "fog over the bay", 4
    lens, tokens = fit_jacobian(linear, [text], skip=skip), linear.tokens("fog over the bay")
    last, u = resid_post[2], torch.randn(32, generator=torch.Generator().manual_seed(3))
    V, clean = range(skip, tokens.ids.shape[1] - 1), capture(linear, text, last)[last][0]
    for layer in (0, 1):
        moved = torch.zeros(32)
        for t in V:
            with intervene(linear, {resid_post[layer]: add(u, at=index(t - 1))}):  # positions count without BOS
                moved += (capture(linear, text, last)[last][0] - clean)[V.start : V.stop].sum(0) / len(V)
        torch.testing.assert_close(lens.J[layer] @ u, moved, rtol=1e-3, atol=1e-3)


def test_on_a_linear_network_whose_tokens_do_not_mix_it_says_exactly_what_the_model_says(linear: Model) -> None:
    with torch.no_grad():
        for block in linear.blocks:
            block.get_submodule("attn.c_proj").get_parameter("weight").zero_()
            for name, parameter in block.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
    lens = fit_jacobian(linear, PROMPTS[:1], skip=2)
    acts = capture(linear, ["so it goes"], [resid_post[layer] for layer in range(3)])
    with torch.no_grad():
        for layer in range(3):
            said = lens.read(acts[resid_post[layer]], layer)
            torch.testing.assert_close(said, linear.run(["so it goes"]), rtol=1e-4, atol=1e-4)
    assert float((lens.J[0] - torch.eye(32)).abs().max()) > 0.1


def test_the_lens_of_several_texts_is_the_mean_of_theirs_whatever_the_batch(llama: Model) -> None:
    both = fit_jacobian(llama, PROMPTS, skip=3, batch_size=7)
    each = [fit_jacobian(llama, [prompt], skip=3, batch_size=32) for prompt in PROMPTS]
    for layer in (0, 1):
        torch.testing.assert_close(both.J[layer], (each[0].J[layer] + each[1].J[layer]) / 2, rtol=1e-4, atol=1e-5)


def test_running_sums_are_read_as_transformer_lens_reads_them_and_another_target_is_refused(
    gpt2: Model, tmp_path: Path
) -> None:
    from transformer_lens.tools.analysis import JacobianLens as Reference

    sums = {layer: torch.randn(32, 32, generator=torch.Generator().manual_seed(layer)) for layer in (0, 1)}
    held = {"jacobian_sum": sums, "n_done": 4, "next_idx": 4, "source_layers": [0, 1], "skip_first": 16}
    torch.save({**held, "target_layer": 2}, tmp_path / "sums.pt")
    ours, theirs = JacobianLens.load(tmp_path / "sums.pt", gpt2), Reference.load(str(tmp_path / "sums.pt"))
    assert ours.n_prompts == theirs.n_prompts == 4
    for layer, J in ours.J.items():
        torch.testing.assert_close(J, theirs.jacobians[layer])
    torch.save(held, tmp_path / "unsaid.pt")  # a file that does not say its target is of the last layer
    assert torch.equal(JacobianLens.load(tmp_path / "unsaid.pt", gpt2).J[0], ours.J[0])
    torch.save({**held, "target_layer": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is of effects on layer 1, and the last of .* is 2"):
        JacobianLens.load(tmp_path / "other.pt", gpt2)
    torch.save({**held, "n_done": 0}, tmp_path / "none.pt")
    with pytest.raises(ValueError, match="holds no Jacobian lens"):
        JacobianLens.load(tmp_path / "none.pt", gpt2)


def test_layers_that_were_not_fitted_and_files_that_do_not_belong_are_refused(
    gpt2: Model, llama: Model, tmp_path: Path
) -> None:
    lens = fit_jacobian(gpt2, PROMPTS[:1], layers=[1], skip=3, max_tokens=9)
    with pytest.raises(ValueError, match=r"does not read layer 0 of .*: take one of \[1, 2\]"):
        lens.read(torch.zeros(32), 0)
    lens.save(tmp_path / "lens.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    for run, message in (
        (lambda: JacobianLens.load(tmp_path / "lens.pt", llama), "was made with other weights"),
        (lambda: JacobianLens.load(tmp_path / "other.pt", gpt2), "holds no Jacobian lens"),
        (lambda: JacobianLens(gpt2, {5: torch.eye(32)}, 1), "for layers 0 to 1, got .* for layer 5"),
        (lambda: fit_jacobian(gpt2, ["fog"], skip=16), "'fog' has 4 tokens, and 18 are needed"),
        (lambda: fit_jacobian(gpt2, PROMPTS, layers=[2]), "is fitted for 0 to 1"),
        (lambda: fit_jacobian(gpt2, []), "0 texts"),
    ):
        with pytest.raises(ValueError, match=message):
            run()


def test_matrices_too_large_for_half_precision_are_not_written(gpt2: Model, tmp_path: Path) -> None:
    lens = JacobianLens(gpt2, {0: torch.eye(32), 1: 7e4 * torch.eye(32)}, 1)
    with pytest.raises(ValueError, match="layer 1 holds 7e\\+04, and float16, which such files hold, ends at 65504"):
        lens.save(tmp_path / "lens.pt")
    assert not (tmp_path / "lens.pt").exists()


def test_a_model_that_reads_both_ways_is_refused(fresh: Callable[..., Model]) -> None:
    with pytest.raises(ValueError, match="reads in both directions, so effects on later tokens are not all there are"):
        fit_jacobian(fresh("bert"), PROMPTS, skip=3)


def test_sums_over_a_single_text_are_its_lens() -> None:
    sums = {"n_done": 1, "jacobian_sum": {0: torch.eye(3)}}
    matrices, n = _matrices(sums)
    assert n == 1 and torch.equal(matrices[0], torch.eye(3))
    assert _matrices({"n_done": 0, "jacobian_sum": {}}) == ({}, 0)
    halves, n = _matrices({"n_done": 2, "jacobian_sum": {1: torch.eye(3)}})
    assert n == 2 and torch.equal(halves[1], torch.eye(3) / 2)


def test_token_ids_are_fitted_as_their_texts_are(llama: Model) -> None:
    by_text = fit_jacobian(llama, PROMPTS[:1], skip=3, batch_size=32)
    by_ids = fit_jacobian(llama, [llama.tokens(PROMPTS[0]).ids[0]], skip=3, batch_size=32)
    for layer in (0, 1):
        assert torch.equal(by_text.J[layer], by_ids.J[layer])
