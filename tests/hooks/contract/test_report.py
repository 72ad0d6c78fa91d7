"""The contract holds on sound models, and each of its laws catches the model, or the hook, that breaks it."""

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import ContractReport, Model, Site, capture, check, intervene, load
from hooks.contract.block_identities import _LAWS, average_laws
from hooks.contract.families import tiny
from hooks.contract.mixtures import mixture_laws
from hooks.contract.propagation import _AT, _on_stream, reach_laws
from hooks.contract.report import Check, find_unmeasured, measure_laws
from hooks.contract.rounding import change, miss, unit
from hooks.forward import forward
from hooks.interventions import scale
from hooks.layout import taps
from hooks.site import attn_out, logits, mlp_out, pattern, resid_mid, resid_post, resid_pre, v, z
from hooks.tokens import Tokens
from hooks.view import View

pytestmark = pytest.mark.usefixtures("unchecked")

MODELS = Path(__file__).resolve().parents[4] / "shared" / "models"


def unchecked(family: str = "gpt2") -> Model:
    """A fresh tiny model that was not checked yet, to be broken."""
    return load(tiny(family), check=False)


def broken(report: ContractReport) -> set[str]:
    return {one.law for one in report.checks if not one.holds}


def misplaced(model: Model, site: Site, other: Site) -> ContractReport:
    """The report of a model whose hook of one site sits where another belongs."""
    model.taps = {**model.taps, site: replace(model.taps[other], site=site)}
    return check(model)


HOOKS = [  # where a hook belongs, where it sits instead, and the law that tells
    ("resid_pre.1", "resid_mid.0", "same stream"),
    ("resid_post.0", "resid_mid.0", "blocks join"),
    ("resid_mid.1", "mlp_in.1", "attention adds"),
    ("attn_out.1", "mlp_out.1", "attention adds"),
    ("mlp_out.1", "mlp_out.0", "feed-forward adds"),
    ("q.1", "k.1", "q projects"),
    ("k.1", "q.1", "k projects"),
    ("v.0", "k.0", "v projects"),
    ("z.1", "v.1", "heads write"),
    ("pattern.1", "pattern.0", "heads average"),
    ("mlp_in.1", "attn_out.1", "feed-forward reads"),
    ("mlp_pre.1", "mlp_act.1", "keys match"),
    ("mlp_act.1", "mlp_pre.1", "memories write"),
]


def test_a_model_is_not_measured_while_it_is_changed() -> None:
    model = load(tiny("gpt2"))
    with intervene(model, {resid_post[1]: scale(2.0)}):
        model.run(torch.tensor([1, 2]))
        with pytest.raises(RuntimeError, match=r"open at resid_post\.1, and check measures the model as it is: check"):
            check(model)
    assert model.contract is not None and model.contract.holds


@pytest.mark.parametrize(("site", "other", "law"), HOOKS, ids=[site for site, *_ in HOOKS])
def test_a_hook_on_the_wrong_tensor_is_refused_and_no_other_is(site: str, other: str, law: str) -> None:
    model, wrong = unchecked(), Site.parse(site)
    sound = set(model.sites) - {wrong}
    report = misplaced(model, wrong, Site.parse(other))
    assert law in broken(report)
    assert set(report.refused) == {wrong}
    assert set(model.sites) == sound
    with pytest.raises(ValueError, match=rf"refuses {site}: '.*' is missed by .*rounding explains .*nearest sites"):
        capture(model, torch.tensor([[1, 2, 3]]), wrong)
    capture(model, torch.tensor([[1, 2, 3]]), model.sites)


def test_a_hook_in_a_parallel_block_is_separated_from_its_neighbours() -> None:
    wrong = [(attn_out[1], mlp_out[1], "block adds"), (mlp_out[0], attn_out[0], "block adds"),
             (Site("embed"), mlp_out[1], "embedding")]  # fmt: skip
    for site, other, law in wrong:
        report = misplaced(unchecked("gptj"), site, other)
        assert law in broken(report)
        assert set(report.refused) == {site}


def test_a_hook_in_a_mixture_of_experts_is_reported() -> None:
    report = misplaced(unchecked("mixtral"), mlp_out[1], attn_out[1])
    assert "feed-forward writes" in broken(report)
    assert set(report.refused) == {mlp_out[1]}


def test_what_an_adapter_says_wrongly_changes_no_site_that_is_traced() -> None:
    model = unchecked()
    block = {**model.paths.block, "ln1": model.paths.block["ln2"], "ln2": model.paths.block["ln1"]}
    model.paths = replace(model.paths, block=block)
    model.taps = taps(model.hf, model.paths, model.structure)
    assert check(model).holds and resid_mid[0] in model.sites


def test_a_wrong_hint_about_what_tracing_does_not_find_is_refused_and_nothing_else() -> None:
    model = unchecked()
    block = {**model.paths.block, "mlp.in": model.paths.block["attn.o"], "mlp": model.paths.block["attn"]}
    model.paths = replace(model.paths, block=block)
    model.taps = taps(model.hf, model.paths, model.structure)
    report = check(model)
    assert {"feed-forward reads", "keys match"} <= broken(report)
    assert {site.name for site in report.refused} == {"mlp_in", "mlp_pre"}


def test_the_wrong_final_norm_is_reported_and_only_unembedding_is_refused() -> None:
    model = unchecked()
    model.final_norm = model.hf.transformer.h[0].ln_1
    report = check(model)
    assert "unembedding" in broken(report)
    assert not report.refused
    acts = capture(model, torch.tensor([[1, 2, 3]]), [resid_post[1], logits])
    with pytest.raises(ValueError, match=r"refuses unembed: 'logits = unembed.*capture logits instead"):
        model.unembed(acts[resid_post[1]])


def test_a_divisor_of_the_final_norm_that_is_not_its_own_is_reported() -> None:
    model = unchecked()
    site = Site("ln_final_scale")
    one_more = View(derive=lambda x: x.norm(dim=-1, keepdim=True) + 1)
    model.taps = {**model.taps, site: replace(model.taps[site], view=one_more)}
    report = check(model)
    assert broken(report) == {"final scale"}
    assert set(report.refused) == {site}


def test_another_nonlinearity_between_mlp_pre_and_mlp_act_is_reported() -> None:
    model = unchecked()
    model.hf.transformer.h[1].mlp.c_proj.register_forward_pre_hook(lambda _, args: (args[0] + 0.01,))
    report = check(model)
    assert broken(report) == {"memories fire"}
    assert {site.layer for site in report.refused} == {1}


def test_dropout_left_on_is_reported_at_every_site_it_reaches() -> None:
    model = unchecked()
    model.hf.transformer.h[1].mlp.dropout.train()
    report = check(model)
    assert "no dropout" in broken(report)
    assert resid_post[1] in report.refused
    assert resid_mid[1] not in report.refused
    assert resid_post[0] not in report.refused
    model.hf.eval()
    assert check(model).holds


def test_a_site_that_never_fires_is_refused() -> None:
    model = unchecked()
    model.taps = {**model.taps, z[1]: replace(model.taps[z[1]], module=nn.Identity())}
    report = check(model)
    assert "every site fires" in broken(report)
    assert set(report.refused) == {z[1]}


def test_a_site_of_another_shape_than_it_says_is_refused() -> None:
    model = unchecked()
    model.taps = {**model.taps, z[0]: replace(model.taps[z[0]], shape=(8, 4))}
    assert set(check(model).refused) == {z[0]}


def test_a_model_that_hooks_change_is_reported() -> None:
    model = unchecked()

    def watched(_: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if "attention_mask" in kwargs:  # as ours has and a plain call has not
            output.logits = output.logits * torch.linspace(1.0, 1.1, output.logits.shape[-1])
        return output

    model.hf.register_forward_hook(watched, with_kwargs=True)
    report = check(model)
    assert "same as Hugging Face" in broken(report)
    assert logits in report.refused


def changing(model: Model, change: Callable[[dict[str, Any]], None]) -> ContractReport:
    """The report of a model whose arguments something changes on the way in."""

    def hook(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        kwargs = dict(kwargs)
        change(kwargs)
        return args, kwargs

    model.hf.register_forward_pre_hook(hook, with_kwargs=True)
    return check(model)


def test_left_padding_that_shifts_positions_is_reported_and_such_batches_are_refused(tokenizer: Any) -> None:
    model = unchecked()
    report = changing(model, lambda kwargs: kwargs.pop("position_ids", None))
    assert broken(report) == {"left padding"}
    assert not report.refused
    mask = torch.tensor([[False, True, True], [True, True, True]])
    tokens = Tokens(ids=torch.tensor([[0, 4, 5], [1, 2, 3]]), mask=mask, special=~mask)
    for call in (model.run, lambda tokens: capture(model, tokens, logits)):
        with pytest.raises(
            ValueError, match=r"refuses left padding: 'left padding changes nothing' is missed by .* at"
        ):
            call(tokens)
    model.run(replace(tokens, ids=tokens.ids.flip(1), mask=mask.flip(1), special=~mask.flip(1)))
    model.run(tokens[1])


def test_a_padding_mask_that_is_ignored_is_reported_where_it_matters() -> None:
    def all_seen(kwargs: dict[str, Any]) -> None:
        if "attention_mask" in kwargs:
            kwargs["attention_mask"] = torch.ones_like(kwargs["attention_mask"])

    for family, laws in (("bert", {"right padding", "left padding"}), ("llama", {"left padding"})):
        report = changing(unchecked(family), all_seen)
        assert broken(report) == laws


def test_texts_that_see_each_other_in_a_batch_are_reported() -> None:
    model = unchecked()
    model.hf.transformer.wte.register_forward_hook(lambda _m, _a, x: x - 0.1 * x.mean(dim=0, keepdim=True))
    report = check(model)
    assert "batch = single" in broken(report)
    with pytest.raises(ValueError, match="refuses batch: .*pass texts one by one"):
        model.run(torch.tensor([[1, 2], [3, 4]]))
    model.run(torch.tensor([[1, 2]]))


def test_a_cache_that_loses_the_position_is_reported_and_generation_is_refused(tokenizer: Any) -> None:
    model = unchecked()

    def forgets(kwargs: dict[str, Any]) -> None:
        if "input_ids" in kwargs and kwargs["input_ids"].shape[1] == 1:
            kwargs["position_ids"] = torch.zeros_like(kwargs["input_ids"])

    assert broken(changing(model, forgets)) == {"cached = uncached"}
    model.tokenizer = tokenizer
    with pytest.raises(ValueError, match=r"refuses cache: 'decoding with a cache .*decode token by token"):
        model.generate("Fog", max_new_tokens=2)


def test_a_change_that_does_not_stay_on_the_stream_is_reported() -> None:
    model = unchecked()
    model.taps = {**model.taps, resid_mid[1]: replace(model.taps[resid_mid[1]], alias=frozenset())}
    report = check(model)
    assert broken(report) == {"stream keeps"}
    assert set(report.refused) == {resid_mid[1]}


def test_a_change_of_a_site_nothing_reads_is_reported() -> None:
    model = unchecked()
    lost = model.hf.transformer.h[1].mlp.c_proj
    kept = lost.forward
    held: list[Tensor] = []
    model.hf.transformer.h[1].mlp.act.register_forward_hook(lambda _m, _a, out: held.append(out))
    lost.forward = lambda x: kept(held[-1])  # the input that was read is not the one that is used
    assert "writing reaches" in broken(check(model))


@pytest.mark.parametrize("name", ["q", "k"])
def test_rows_of_a_joint_projection_that_are_not_the_sites_are_reported(name: str) -> None:
    """Queries and keys enter no sum that would tell them apart: only what a change of them moves does."""
    model = unchecked("gpt_neox")
    rows = model.paths.qkv_rows
    assert rows is not None
    model.paths = replace(model.paths, qkv_rows={**rows, "q": rows["k"], "k": rows["q"]})
    model.taps = taps(model.hf, model.paths)
    report = check(model)
    assert broken(report) == {"q reaches", "k reaches"}
    assert {site.name for site in report.refused} == {"q", "k"}
    assert Site(name, 1) in report.refused


def test_a_law_that_cannot_be_measured_is_reported_and_refuses_nothing_that_another_vouches_for() -> None:
    model = unchecked()
    for block in model.structure.main:
        object.__setattr__(block, "part", {name: one for name, one in block.part.items() if name != "mlp.act"})
    model.blocks[0].mlp.add_module("second", nn.Identity())
    model.hf.config.activation_function = "unheard"
    report = check(model)
    assert broken(report) == {"memories fire"}
    assert "KeyError: 'unheard'" in str(report)
    assert not report.refused


def test_a_site_that_no_law_speaks_of_is_refused_with_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: object) -> Any:
        raise RuntimeError("a kernel that is not there")

    laws = [(name, breaks if name in ("heads write", "heads average") else law) for name, law in _LAWS]
    monkeypatch.setattr("hooks.contract.block_identities._LAWS", laws)
    hf = tiny("gpt2")
    hf.set_attn_implementation("eager")  # a kernel has a law of its own
    model = load(hf, check=False)
    report = check(model)
    assert {site.name for site in report.refused} == {"z"}
    assert "could not be measured: RuntimeError: a kernel that is not there" in str(report)
    assert mlp_out[1] in model.sites and attn_out[1] in model.sites


def test_a_pattern_is_compared_with_an_average_only_where_values_and_average_are_read() -> None:
    model = load(tiny("gpt2"), check=False)
    acts = capture(model, torch.arange(12).view(2, 6), [z[1], pattern[1], v[1]])
    values = {site: acts[site] for site in (z[1], pattern[1], v[1])}
    (whole,) = average_laws(model, values, pattern[1])
    assert whole.holds and set(whole.sites) == set(values)
    for one in values:
        assert not [*average_laws(model, {site: value for site, value in values.items() if site != one}, pattern[1])]


def test_a_model_with_infinite_or_undefined_weights_never_holds() -> None:
    for bad in (inf, nan):
        model = unchecked()
        with torch.no_grad():
            model.hf.transformer.h[1].mlp.c_proj.weight[0, 0] = bad
        report = check(model)
        assert not report.holds
        assert mlp_out[1] in report.refused


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite"])
def test_sound_models_hold_in_half_precision(family: str, dtype: torch.dtype) -> None:
    report = load(tiny(family), dtype=dtype).contract
    assert report is not None
    assert report.holds, report


def test_half_precision_does_not_hide_a_wrong_hook() -> None:
    model = load(tiny("gpt2"), dtype=torch.bfloat16, check=False)
    assert set(misplaced(model, attn_out[1], mlp_out[1]).refused) == {attn_out[1]}


def test_what_rounding_explains_is_one_rounding_and_the_summing_of_products() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x, w = torch.randn(1, 64, 256).to(dtype), torch.randn(256, 256).to(dtype)
        exact = (x.double() @ w.double()).float()
        assert 0 < miss(exact, (x @ w).float()) < unit(dtype, 256)
    assert unit(torch.float32, 100) == 11 * torch.finfo(torch.float32).eps


def test_what_broadcasts_and_is_not_of_one_shape_is_infinitely_far() -> None:
    one = torch.ones(1, 2, 4)
    assert miss(2 * one, one, one) == 0.0
    assert miss(2 * one, one, one[:, :1]) == miss(2 * one, one[..., :1], one) == inf


def test_how_many_sites_a_pass_measures_changes_no_law(monkeypatch: pytest.MonkeyPatch) -> None:
    model = unchecked()
    text = model.tokens(torch.arange(6, 15)[None])
    whole = list(reach_laws(model, text, model.sites))
    monkeypatch.setattr("hooks.contract.propagation._ROWS", 4)
    parts = list(reach_laws(model, text, model.sites))
    assert len(whole) > 8 and [(one.law, one.sites) for one in parts] == [(one.law, one.sites) for one in whole]
    assert all(one.holds for one in (*whole, *parts))


def test_a_text_too_short_to_leave_a_token_alone_asks_nothing_of_a_router() -> None:
    model = unchecked("mixtral")
    for n, laws in ((2, {"experts add"}), (3, {"experts add", "choice follows"})):
        text = model.tokens(torch.arange(6, 6 + n)[None])
        made = list(mixture_laws(model, capture(model, text, model.sites).values, text))
        assert {one.law for one in made} == laws and all(one.holds for one in made)


def test_errors_are_relative_to_the_worst_token() -> None:
    clean = torch.ones(1, 3, 4)
    other = clean.clone()
    other[0, 1] *= 3
    assert miss(clean, other) == pytest.approx(2 / 4)
    assert change(clean[0], other[0]) == pytest.approx(2.0)
    assert miss(clean, clean / 2, clean / 2) == 0.0
    assert miss(clean, clean * nan) == change(clean[0], clean[0] * nan) == inf


def test_a_broken_law_blames_the_site_that_no_kept_law_vouches_for() -> None:
    a, b, c = resid_pre[0], attn_out[0], resid_mid[0]

    def law(error: float, *sites: Site) -> Check:
        return Check("law", "states", error, 1.0, sites)

    def refused(*checks: Check) -> set[Site]:
        return set(ContractReport("model", "float32", "", checks, 0, 0.0).refused)

    assert refused(law(0.5, a, b), law(2.0, b, c)) == {c}
    assert refused(law(2.0, a, b), law(2.0, b, c)) == {a, b}
    assert refused(law(0.5, a, b), law(2.0, b, a)) == {b}
    assert refused(law(nan, c)) == {c}
    assert refused(law(0.5, a), law(2.0, a, b)) == {a, b}, "a law of one site ties it to nothing"
    assert refused(law(1.0, a, b), law(2.0, b, c)) == {c}, "rounding explains just what is allowed"
    assert refused(law(0.5, a, c), law(2.0, c)) == {c}


def other_forward(hf: Any) -> None:
    own = hf.model.layers[0].mlp.forward
    hf.model.layers[0].mlp.forward = lambda x: own(x) * torch.rand(1)


def other_class(hf: Any) -> None:
    class Noisy(type(hf.model.layers[0].mlp)):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.rand(1)

    hf.model.layers[0].mlp.__class__ = Noisy


def other_buffer(hf: Any) -> None:
    hf.model.rotary_emb.inv_freq.mul_(0.5)


def test_the_report_is_kept_on_the_model_and_known_again_by_its_fingerprint() -> None:
    first, again = load(tiny("gpt2", seed=5)), load(tiny("gpt2", seed=5))
    assert first.contract is not None
    assert first.contract is again.contract
    assert load(tiny("gpt2", seed=6)).contract is not first.contract
    assert load(tiny("gpt2", seed=5), dtype=torch.float64).contract is not first.contract
    assert load(tiny("gpt2", seed=5).train(), check=False).contract is None
    for alter in (other_forward, other_class, other_buffer):
        altered = tiny("llama", seed=5)
        alter(altered)
        assert load(altered).contract is not load(tiny("llama", seed=5)).contract
    hooked = tiny("gpt2", seed=5)
    hooked.transformer.h[0].mlp.register_forward_hook(lambda _m, _a, x: x * torch.rand(1))
    report = load(hooked).contract
    assert report is not None
    assert not report.holds


def test_checking_leaves_no_trace() -> None:
    model = unchecked()
    tokens = model.tokens(torch.tensor([[1, 2, 3]]))
    with torch.no_grad():
        before, state = forward(model.hf, tokens).logits, torch.get_rng_state()
        check(model)
        assert torch.equal(forward(model.hf, tokens).logits, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.hf.modules())
    assert model.hf.config._attn_implementation == "sdpa"


def test_the_report_reads_as_a_table() -> None:
    model = unchecked()
    lines = str(misplaced(model, z[1], Site("v", 1))).splitlines()
    assert lines[0].startswith("contract of GPT2LMHeadModel (GPT2LMHeadModel), float32:")
    assert lines[1].split() == ["law", "holds", "error", "allowed", "states"]
    assert any(line.startswith("heads write") and " NO " in line and line.endswith("z W_O + b") for line in lines)
    assert lines[-1] == "refused sites: z.1"


def test_a_table_shows_each_law_once_where_it_exceeds_most_what_rounding_explains() -> None:
    """An error without a number exceeds everything."""
    checks = (
        Check("streams add", "in 0", 2e-7, 1e-6, (resid_mid[0], resid_pre[0])),
        Check("streams add", "in 1", 5e-7, 1e-6, (resid_mid[1],)),
        Check("streams add", "in 2", 6e-7, 1e-5, (resid_mid[2],)),
        Check("reads", "in 0", 0.25, 1.0, use="batch"),
        Check("reads", "in 1", nan, 1.0, use="batch"),
        Check("reads", "in 2", 3.0, 1.0, use="batch"),
        Check("fires", "in 0", 0.0, 0.0, (z[0],)),
        Check("fires", "in 1", inf, 0.0, (z[1],)),
    )
    report = ContractReport("model", "float32", "", checks, 3, 0.5)
    assert str(report).splitlines() == [
        "contract of model, float32: 3 forward passes, 0.5 s",
        "law          holds  error    allowed  states",
        "streams add  yes    5.0e-07  1.0e-06  in 1",
        "reads        NO     nan      1.0e+00  in 1",
        "fires        yes    0.0e+00  0.0e+00  in 0",
        "refused sites: z.1",
    ]
    table = report.to_pandas()
    assert [*table.columns] == ["law", "states", "site", "error", "allowed", "holds"]
    assert table.iloc[0].tolist() == ["streams add", "in 0", "resid_mid.0", 2e-7, 1e-6, True]
    assert table.iloc[3].tolist() == ["reads", "in 0", "", 0.25, 1.0, True] and len(table) == len(checks)


def test_what_cannot_be_measured_says_why_in_a_line_of_at_most_200_letters() -> None:
    def fails() -> list[Check]:
        raise ValueError("x" * 300 + "\nand more")

    def silent() -> list[Check]:
        raise KeyError

    def short() -> list[Check]:
        raise ValueError("first\nsecond")

    (law,) = measure_laws("adds", fails, use="batch")
    said = "could not be measured: ValueError: "
    assert law == Check("adds", (said + "x" * 300)[:200], inf, 0.0, use="batch") and len(law.states) == 200
    assert [one.states for one in measure_laws("adds", short)] == [f"{said}first"]
    assert [one.states for one in measure_laws("adds", silent)] == ["could not be measured: KeyError: "]


def test_a_site_is_measured_by_a_law_that_another_tensor_would_break() -> None:
    a, b = attn_out[0], attn_out[1]
    law, any_tensor = Check("heads write", "a = b", 0.0, 1.0, (a,)), Check("writing reaches", "on", 0.0, 1.0, (a, b))
    why = Check("keys match", "could not be measured: KeyError: 'x'", inf, 0.0)
    states = "a law that speaks of attn_out.1 was measured"
    assert [*find_unmeasured([law, any_tensor], [a, b])] == [Check("every site is measured", states, inf, 0.0, (b,))]
    assert [one.states for one in find_unmeasured([law, why], [a, b])] == [f"{states}: {why.states}"]


@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok361", "gpt-nano-sort"])
def test_pretrained_models_hold(name: str) -> None:
    if not (MODELS / name).exists():
        pytest.skip("the pretrained models are not beside this repository")
    for dtype in (torch.float32, torch.bfloat16):
        report = load(MODELS / name, dtype=dtype).contract
        assert report is not None
        assert report.holds, report


def test_a_site_that_a_family_lacks_says_what_to_take_instead() -> None:
    model = load(tiny("mixtral"))
    with pytest.raises(ValueError, match=r"has no mlp_act: its feed-forward is a mixture.*use expert_act, mlp_in or"):
        capture(model, torch.tensor([[1, 2, 3]]), "mlp_act.0")
    assert pattern[0] in model.sites


def test_what_does_not_stay_on_the_stream_is_measured_relative_to_all_that_is_added() -> None:
    """‖Δresid_post - Δresid_mid - Δmlp_out‖ / (‖resid_post‖ + ‖resid_mid‖ + ‖mlp_out‖), with and without the change."""
    model, random = unchecked(), torch.Generator().manual_seed(0)
    sites = [resid_post[1], mlp_out[1], resid_mid[1]]
    acts = {site: torch.randn(3, 6, model.d_model, generator=random) for site in sites}
    left, added, written = (one[0, _AT] for one in acts.values())
    clean = [one[-1, _AT] for one in acts.values()]
    missing = (left - clean[0]) - (added - clean[1]) - (written - clean[2])
    wanted = float(missing.norm() / sum(float(one[[0, -1], _AT].norm()) for one in acts.values()))
    assert _on_stream(model, resid_mid[1], acts, row=0).error == pytest.approx(wanted)
