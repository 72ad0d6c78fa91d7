"""Loading takes a model from wherever it is and knows it again."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hooks import Model, capture, load
from hooks.fingerprint import count_writes, fingerprint, fingerprint_now, is_of
from hooks.load import _find_bundled
from hooks.site import logits, resid_post

STORIES = Path(__file__).resolve().parents[3] / "shared" / "models" / "stories260K"


def test_a_folder_gives_the_model_that_was_saved(hf_model: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> None:
    saved = hf_model("llama", seed=3)
    saved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours, theirs = load(tmp_path), load(saved, tokenizer)
    assert ours.fingerprint == theirs.fingerprint
    assert torch.equal(ours.run("Fog"), theirs.run("Fog"))
    assert ours.name == str(tmp_path)
    assert load(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_model_in_half_precision_rotates_by_the_frequencies_it_has_in_float32(
    hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    import transformers

    hf_model("llama").save_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    ids = torch.arange(96)[None]
    for source in (tmp_path, hf_model("llama")):
        ours = load(source, dtype=torch.bfloat16, check=False)
        assert {parameter.dtype for parameter in ours.hf.parameters()} == {torch.bfloat16}
        assert torch.equal(ours.hf.model.rotary_emb.inv_freq, hf_model("llama").model.rotary_emb.inv_freq)
        assert torch.equal(ours.run(ids), theirs(ids).logits)


def test_what_is_loaded_computes_gpt2s_gelu_by_one_kernel_and_what_is_in_memory_stays(
    hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    own = hf_model("gpt2")
    own.save_pretrained(tmp_path)
    loaded, kept = load(tmp_path, check=False), load(own, check=False)
    kernels = [type(block.mlp.act).__name__ for model in (loaded, kept) for block in model.hf.transformer.h]
    assert kernels == ["GELU"] * loaded.n_layers + ["NewGELUActivation"] * kept.n_layers
    x = torch.linspace(-20, 20, 4001)
    got, wanted = (model.hf.transformer.h[0].mlp.act(x) for model in (loaded, kept))
    torch.testing.assert_close(got, wanted, rtol=0, atol=3e-6)
    assert loaded.hf.config.activation_function == "gelu_new" and loaded.fingerprint == kept.fingerprint


def test_a_folder_without_a_tokenizer_gives_a_model_that_reads_ids(
    hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    hf_model("gpt2").save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.tokenizer is None
    assert model.run(torch.tensor([1, 2])).shape == (1, 2, 257)


def test_a_model_knows_its_dimensions(model: Model) -> None:
    assert (model.n_layers, model.n_heads, model.d_model, model.d_mlp, model.d_vocab) == (3, 4, 32, 48, 257)
    assert model.d_head == (16 if model.hf.config.model_type == "gemma2" else 8)
    acts = capture(model, "Fog", model.sites)
    for site in model.sites:
        if site.name != "pattern":
            assert acts[site].shape[2:] == model.tap(site).shape


def test_dropout_is_off_whatever_the_model_was(hf_model: Callable[..., Any], tokenizer: Any) -> None:
    model = load(hf_model("gpt2", resid_pdrop=0.5).train(), tokenizer)
    assert torch.equal(model.run("Fog"), model.run("Fog"))


def test_the_fingerprint_is_that_of_the_weights_and_the_shape(hf_model: Callable[..., Any], tokenizer: Any) -> None:
    one = load(hf_model("gpt2"), tokenizer)
    assert one.fingerprint == load(hf_model("gpt2"), tokenizer).fingerprint
    others = [hf_model("gpt2", seed=1), hf_model("llama"), hf_model("gpt2", layer_norm_epsilon=1e-4)]
    edited = hf_model("gpt2")
    with torch.no_grad():
        edited.transformer.h[1].mlp.c_proj.weight += torch.outer(torch.ones(48), torch.ones(32))
    prints = [load(other, tokenizer).fingerprint for other in (*others, edited)]
    assert len({one.fingerprint, *prints}) == 5


def test_the_fingerprint_changes_with_any_one_number_of_any_weight_and_comes_back_with_it(
    hf_model: Callable[..., Any],
) -> None:
    hf = hf_model("gpt2", n_inner=192, n_layer=1)
    before = fingerprint(hf)
    draw = torch.Generator().manual_seed(0)
    for name, weight in hf.named_parameters():
        numbers = weight.data.view(-1)  # as `.data`, which leaves no version
        for place in torch.randint(len(numbers), (3,), generator=draw).tolist():
            kept = numbers[place].clone()
            numbers[place] += 1e-3
            assert fingerprint(hf) != before, (name, place)
            numbers[place] = kept
    assert fingerprint(hf) == before


def test_the_fingerprint_reads_saved_buffers_and_not_the_type_that_holds_the_same_numbers(
    hf_model: Callable[..., Any],
) -> None:
    hf = hf_model("llama").bfloat16()
    before = fingerprint(hf)
    assert fingerprint(hf.float()) == before == fingerprint(hf.double())
    with torch.no_grad():
        hf.lm_head.weight[3, 3] += 1e-12  # which float32 does not hold
    assert fingerprint(hf) != before
    hf.float().model.layers[0].register_buffer("scalar", torch.ones(1))
    scaled = fingerprint(hf)
    hf.model.layers[0].scalar.mul_(2)
    assert len({before, scaled, fingerprint(hf)}) == 3


def test_the_fingerprint_stays_what_it_was_when_loaded(fresh: Callable[..., Model]) -> None:
    model = fresh("gpt2")
    before = model.fingerprint
    with torch.no_grad():
        model.w_out(0)[0] += 1
    assert model.fingerprint == before


def layer(*numbers: float) -> nn.Module:
    """A module of one weight, of so many numbers."""
    module = nn.Module()
    module.register_parameter("weight", nn.Parameter(torch.tensor(numbers)))
    return module


def test_a_weight_of_zeros_and_a_count_are_no_part_of_the_fingerprint_and_one_number_after_many_zeros_is() -> None:
    plain, biased, counting, far = (layer(1.0, 2.0) for _ in range(4))
    biased.register_parameter("bias", nn.Parameter(torch.zeros(200)))
    counting.register_buffer("steps", torch.tensor(7))
    far.register_parameter("bias", nn.Parameter(torch.zeros(200)))
    with torch.no_grad():
        far.get_parameter("bias")[150] = 1.0
    for one in (plain, biased, counting, far):
        one.config = Said({"width": 2})  # type: ignore[assignment]
    assert fingerprint(plain) == fingerprint(biased) == fingerprint(counting) != fingerprint(far)
    with torch.no_grad():
        far.get_parameter("bias").zero_()[3] = 1.0
    assert fingerprint(far) != fingerprint(plain)


class Said:
    """A configuration that says this."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def to_dict(self) -> dict[str, Any]:
        return self.fields


def test_the_fingerprint_minds_no_order_of_a_configuration_and_no_name_in_it() -> None:
    def of(**fields: Any) -> str:
        module = layer(1.0)
        module.config = Said(fields)  # type: ignore[assignment]
        return fingerprint(module)

    assert of(width=2, heads=1) == of(heads=1, width=2) == of(heads=1, width=2, id2label={0: "fog"}, dtype="float16")
    assert of(width=2, heads=1) != of(width=2, heads=2) and of(width=2, heads=1) != of(width=2)


def test_the_fingerprint_now_is_read_again_where_torch_counted_a_write() -> None:
    module = layer(1.0, 2.0)
    first = fingerprint_now(module)
    assert first == fingerprint(module)
    module.get_parameter("weight").data[0] = 3.0  # which torch does not count
    assert fingerprint_now(module) == first
    second = fingerprint(module)
    assert second != first and fingerprint_now(module) == second
    with torch.no_grad():
        module.get_parameter("weight")[0] = 1.0
    assert fingerprint_now(module) == first
    twin = layer(1.0, 2.0)
    with torch.no_grad():
        twin.get_parameter("weight")[1] = 5.0
    assert fingerprint_now(twin) == fingerprint(layer(1.0, 5.0))


def test_writes_are_not_counted_where_a_weight_is_elsewhere_or_was_made_in_inference() -> None:
    whole = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    assert count_writes(whole) is not None
    apart = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2, device="meta"))
    assert count_writes(apart) is None
    with torch.inference_mode():
        made = torch.ones(2)
    whole.register_buffer("made", made)
    assert count_writes(whole) is None


def test_what_was_made_with_a_model_is_of_it_with_the_weights_it_was_loaded_with_or_has_now(
    fresh: Callable[..., Model],
) -> None:
    model = fresh("gpt2")
    loaded = model.fingerprint
    assert is_of(model, loaded) and is_of(model, None) and not is_of(model, "another")
    with torch.no_grad():
        model.w_out(0)[0] += 1
    assert is_of(model, loaded) and is_of(model, fingerprint(model.hf)) and not is_of(model, "another")


def test_a_transformer_bridge_gives_the_model_inside_it(
    hf_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, recwarn: Any
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    saved = hf_model("llama")
    saved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bridge = TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    ids = torch.tensor([[256, 5, 6]])
    through_bridge = bridge(ids)
    model, plain = load(bridge), load(saved, tokenizer)
    assert {type(part) for part in model.hf.modules()} == {type(part) for part in saved.modules()}
    assert model.sites == plain.sites
    assert model.fingerprint == plain.fingerprint
    assert model.tokenizer is bridge.tokenizer
    torch.testing.assert_close(model.run(ids), plain.run(ids), atol=1e-5, rtol=1e-4)
    capture(model, ids, resid_post[0])
    assert torch.equal(bridge(ids), through_bridge)
    names = [resid_post[1].transformer_lens_name]
    _, cache = bridge.run_with_cache(ids, names_filter=names)
    torch.testing.assert_close(cache[names[0]], capture(model, ids, resid_post[1])[resid_post[1]])
    recwarn.clear()


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2"])
def test_every_site_is_what_a_transformer_bridge_caches_under_its_name(
    family: str, hf_model: Callable[..., Any], tokenizer: Any, tmp_path: Path, recwarn: Any
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    own = hf_model(family)
    own.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, ids = load(own, tokenizer, check=False), torch.tensor([[256, 5, 6, 9, 33, 70]])
    with torch.no_grad():
        _, cache = TransformerBridge.boot_transformers(str(tmp_path), device="cpu").run_with_cache(ids)
    acts = capture(model, ids, model.sites)
    for site in model.sites:
        theirs = cache[site.transformer_lens_name]
        if site == logits and family == "gemma2":
            theirs = 30 * (theirs / 30).tanh()
        torch.testing.assert_close(acts[site], theirs.reshape(acts[site].shape), atol=1e-4, rtol=1e-4)
    recwarn.clear()


def test_loading_leaves_logging_and_warnings_as_they_were(hf_model: Callable[..., Any]) -> None:
    import logging
    import warnings

    level, filters = logging.getLogger("transformers").level, list(warnings.filters)
    load(hf_model("gpt2"))
    assert logging.getLogger("transformers").level == level
    assert warnings.filters == filters


def test_what_is_nowhere_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model at '.*nowhere'.*pass a folder, a hub id, a model in memory"):
        load(tmp_path / "nowhere")


def test_an_architecture_that_no_adapter_knows_is_served_what_tracing_finds() -> None:
    import transformers

    class Gpt2LMHeadModell(transformers.GPT2LMHeadModel):
        base_model_prefix = "none"

        def get_output_embeddings(self) -> Any:
            return self.lm_head

    sizes = {"n_layer": 2, "n_head": 1, "n_embd": 8, "vocab_size": 19, "bos_token_id": 1, "eos_token_id": 1}
    model = load(Gpt2LMHeadModell(transformers.GPT2Config(**sizes)))
    assert {"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"} <= {site.name for site in model.sites}
    ids, got = torch.tensor([[1, 2, 3]]), []
    model.hf.transformer.h[1].mlp.register_forward_hook(lambda _m, _a, out: got.append(out.detach()))
    model.run(ids)
    assert torch.equal(capture(model, ids, "mlp_out.1")["mlp_out.1"], got[-1])


@pytest.mark.filterwarnings("ignore")  # torch.compile itself warns of torch.jit
def test_a_compiled_model_is_the_model_inside_it(hf_model: Callable[..., Any]) -> None:
    hf = hf_model("llama")
    model = load(torch.compile(hf), check=False)
    assert model.hf is hf


def test_how_to_read_a_model_is_handed_on_and_refused_for_one_in_memory(
    hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    hf_model("llama").save_pretrained(tmp_path)
    assert load(tmp_path, attn_implementation="eager", check=False).hf.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="revision says how to read a model from a folder or the hub"):
        load(hf_model("llama"), revision="main")


def test_a_model_of_another_kind_is_reported() -> None:
    import transformer_lens

    bridge = transformer_lens.model_bridge.TransformerBridge.boot_native(
        {"n_layers": 1, "d_model": 4, "n_ctx": 4, "d_head": 2, "n_heads": 2, "d_vocab": 5, "act_fn": "relu"}
    )
    with pytest.raises(TypeError, match=r"load takes a transformers.PreTrainedModel .*got TransformerBridge around "):
        load(bridge)
    with pytest.raises(TypeError, match=r"load takes a transformers.PreTrainedModel .*got Linear: put"):
        load(torch.nn.Linear(2, 2), tokenizer=object())


def test_the_bundled_model_is_looked_for_without_importing_its_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "interp" / "landmark" / "model"
    (tmp_path / "interp").mkdir()
    (tmp_path / "interp" / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.delitem(sys.modules, "interp", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"the bundled model 'landmark' is not at .*interp/landmark/model"):
        load("landmark")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert _find_bundled() == folder
    assert "interp" not in sys.modules


@pytest.mark.skipif(not STORIES.exists(), reason="the pretrained Llama is not beside this repository")
def test_a_real_pretrained_llama_keeps_every_identity_and_tells_a_story() -> None:
    from hooks.site import attn_out, logits, mlp_act, mlp_out, resid_mid, resid_pre, z

    model = load(STORIES)
    texts = ["Once upon a time, there was a little girl named Lily.", "Tom and"]
    acts = capture(model, texts, model.sites)
    with torch.no_grad():
        tokens = model.tokens(texts)
        theirs = model.hf(tokens.ids, attention_mask=tokens.mask.long(), output_hidden_states=True)
        torch.testing.assert_close(acts[logits], theirs.logits, atol=1e-4, rtol=1e-4)
        for i in range(model.n_layers):
            torch.testing.assert_close(acts[resid_pre[i]], theirs.hidden_states[i], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(acts[resid_pre[i]] + acts[attn_out[i]], acts[resid_mid[i]])
            torch.testing.assert_close(acts[resid_mid[i]] + acts[mlp_out[i]], acts[resid_post[i]])
            torch.testing.assert_close(acts[mlp_act[i]] @ model.w_out(i), acts[mlp_out[i]], atol=1e-4, rtol=1e-4)
            written = torch.einsum("bphd,hdm->bpm", acts[z[i]], model.module(z[i]).weight.T.unflatten(0, (8, 8)))
            torch.testing.assert_close(written, acts[attn_out[i]], atol=1e-4, rtol=1e-4)
    assert model.generate("Once upon a time, there was", max_new_tokens=10) == " a little girl named Lily. She lo"


def test_what_is_given_is_taken_before_what_is_in_the_folder(
    hf_model: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    hf_model("bert").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    mine = type(tokenizer)(tokenizer_object=tokenizer._tokenizer, bos_token=tokenizer.bos_token)
    assert load(tmp_path, mine, check=False).tokenizer is mine
    read = load(tmp_path, check=False)
    assert read.tokenizer is not None and type(read.hf).__name__ == "BertForMaskedLM"
    assert (
        load(read.hf, check=False).name == str(tmp_path)
        and load(hf_model("bert"), check=False).name == "BertForMaskedLM"
    )
    assert load(hf_model("gpt2")).contract is not None and read.contract is None


def test_a_configuration_that_names_no_class_is_read_as_a_causal_language_model(
    hf_model: Callable[..., Any], tmp_path: Path
) -> None:
    import json

    own = hf_model("gpt2")
    own.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    del said["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(said))
    ids = torch.tensor([[1, 2]])
    model = load(tmp_path, check=False)
    assert type(model.hf).__name__ == "GPT2LMHeadModel"
    torch.testing.assert_close(model.run(ids), own(ids).logits)


def test_the_bundled_model_of_a_package_that_is_not_installed_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for spec in (None, type("Spec", (), {"submodule_search_locations": None})()):
        monkeypatch.setattr(sys.modules["hooks.load"], "find_spec", lambda _, spec=spec: spec)
        with pytest.raises(FileNotFoundError, match="is not at an installed interp package: reinstall"):
            _find_bundled()
