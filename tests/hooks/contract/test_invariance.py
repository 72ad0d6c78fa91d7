"""The laws of whole runs, by what they compare and allow, on planted values and models worked out by hand."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Model, Site, capture, load
from hooks.contract.families import tiny
from hooks.contract.invariance import (
    Runs,
    _call_plainly,
    _check_batch,
    _same_streams,
    _streams,
    batch_laws,
    cache_laws,
    measure_rounding,
    plain_laws,
    remove_new_hooks,
    repeat_laws,
    rows,
)
from hooks.contract.report import Check
from hooks.contract.rounding import Values, change, unit
from hooks.encoding import pad
from hooks.site import logits, mlp_act, resid_post, resid_pre, v, z
from hooks.tokens import Tokens

pytestmark = pytest.mark.usefixtures("unchecked")

INSTALLED = "_output_capturing_hooks_installed"


@pytest.fixture(scope="module")
def model() -> Model:
    """A tiny model that nothing here changes for longer than a test."""
    return load(tiny("gpt2"), check=False)


def text(model: Model, n_pos: int, first: int = 6) -> Tokens:
    return model.tokens(torch.arange(first, first + n_pos)[None])


def runs_of(model: Model, *sites: Site, n_pos: int = 6, floor: float = 0.0) -> Runs:
    """The runs of a model over a text and a shorter one."""
    texts = (text(model, n_pos), text(model, n_pos - 2, first=40))
    alone = (capture(model, texts[0], sites).values, capture(model, texts[1], sites).values)
    return Runs(model, sites, texts, alone, dict.fromkeys(sites, floor))


def planted(model: Model, alone: tuple[Values, Values], **floor: float) -> Runs:
    sites = tuple(Site.parse(name.replace("_at_", ".")) for name in floor)
    return Runs(model, sites, (text(model, 4), text(model, 3)), alone, dict(zip(sites, floor.values(), strict=True)))


def test_a_value_is_compared_token_by_token_with_all_its_features() -> None:
    value = torch.arange(48.0).view(2, 3, 2, 4)
    assert torch.equal(rows(z[0], value), value.reshape(6, 8))


def test_logits_are_compared_less_their_mean_over_the_vocabulary() -> None:
    value = torch.tensor([[[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]])
    assert torch.equal(rows(logits, value), torch.tensor([[-2.0, -1.0, 3.0], [0.0, 0.0, 0.0]]))
    assert torch.equal(rows(resid_post[0], value), value[0])


def test_four_times_what_was_measured_is_allowed_and_no_less_than_a_unit_nor_more_than_sixteen(model: Model) -> None:
    u = unit(torch.float32, 32)
    runs = Runs(model, (), (text(model, 4), text(model, 3)), ({}, {}), {z[0]: u / 3, z[1]: 5 * u, v[0]: 40 * u})
    assert [runs.tolerance(site) / u for site in (z[0], z[1], v[0])] == pytest.approx([4, 20, 64])


def test_the_worst_site_is_the_one_that_exceeds_most_what_rounding_explains_there(model: Model) -> None:
    u = unit(torch.float32, 32)
    runs = Runs(model, (), (text(model, 4), text(model, 3)), ({}, {}), {z[0]: u, z[1]: 10 * u})
    worst = runs.worst("law", "states", {z[1]: 60 * u, z[0]: 20 * u}, "batch")
    assert worst == Check("law", "states", 20 * u, runs.tolerance(z[0]), at=z[0], use="batch")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_rounding_changes_is_what_noise_of_half_a_unit_at_every_block_does(dtype: torch.dtype) -> None:
    model = load(tiny("gpt2"), dtype=dtype, check=False)
    sites = (resid_pre[0], mlp_act[1], resid_post[1], logits)
    tokens, random = text(model, 6), torch.Generator().manual_seed(0)
    clean = capture(model, tokens, sites).values
    measured = measure_rounding(model, tokens, sites, clean)
    half, drawn = unit(dtype, 32) / 2, list[Tensor]()

    def noisy(_: nn.Module, args: Any) -> Any:
        drawn.append(torch.randn(args[0].shape, generator=random))
        return (args[0] * (1 + half * drawn[-1].to(dtype)), *args[1:])

    with ExitStack() as stack:
        for block in model.hf.transformer.h:
            stack.callback(block.register_forward_pre_hook(noisy).remove)
        with torch.no_grad():
            moved = model.hf(tokens.ids)
    assert measured[logits] == change(rows(logits, clean[logits]), rows(logits, moved.logits)) > 0
    if dtype == torch.float32:  # a coarser type rounds the noise itself
        x = clean[resid_pre[0]][0]
        relative = (drawn[0][0] * x).norm(dim=-1) / x.norm(dim=-1)
        assert measured[resid_pre[0]] == pytest.approx(half * float(relative.max()), rel=0.1)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.hf.transformer.h.modules())


def test_streams_are_those_of_the_longer_text_by_layer_and_only_of_blocks_that_can_be_read(model: Model) -> None:
    random = torch.Generator().manual_seed(0)
    values = [torch.randn(1, 4, 32, generator=random) for _ in range(3)]
    alone = ({resid_pre[0]: values[0], resid_pre[1]: values[1]}, {resid_pre[0]: values[2], resid_pre[1]: values[2]})
    runs = planted(model, alone, resid_pre_at_0=0.0, resid_pre_at_1=0.0)
    found = list(_same_streams(runs, {"": (values[0], values[1] * 1.5, values[2])}))
    assert [(check.sites, check.error, check.allowed) for check in found] == [
        ((resid_pre[0],), 0.0, runs.tolerance(resid_pre[0])),
        ((resid_pre[1],), pytest.approx(1 / 3), runs.tolerance(resid_pre[1])),
    ]
    none = ({resid_pre[1]: values[1]}, alone[1])
    (one,) = _same_streams(planted(model, none, resid_pre_at_1=0.0), {"": tuple(values)})
    assert one.sites == (resid_pre[1],) and one.holds


def test_a_model_that_reports_something_else_than_what_its_blocks_read_is_not_held_to_it(model: Model) -> None:
    values = tuple(torch.full((1, 4, 32), float(n + 1)) for n in range(4))
    alone = ({resid_pre[0]: values[0], resid_pre[1]: values[1]}, dict[Site, Tensor]())
    runs = planted(model, alone, resid_pre_at_0=0.0, resid_pre_at_1=0.0)
    for theirs in ({}, {"": values}, {"": values[:2]}, {"": values[1:]}, {"decoder": values[:3]}):
        assert not list(_same_streams(runs, theirs))


def test_streams_that_are_no_tuple_or_an_empty_one_are_none() -> None:
    one = (torch.ones(1, 2, 3),)
    output = SimpleNamespace(hidden_states=[*one], encoder_hidden_states=(), decoder_hidden_states=one)
    assert _streams(output) == {"decoder": one}
    assert _streams(SimpleNamespace(hidden_states=one)) == {"": one}


def test_a_plain_call_asks_for_the_streams_and_for_no_cache(model: Model) -> None:
    tokens = text(model, 4)
    called = _call_plainly(model, tokens)
    assert torch.equal(called.pop("input_ids"), tokens.ids)
    assert called == {"output_hidden_states": True, "use_cache": False}


def test_hooks_that_were_there_stay_and_those_added_inside_the_block_go() -> None:
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    both = nn.Sequential(old, new)
    kept = old.register_forward_hook(lambda _m, _a, _o: None)
    setattr(old, INSTALLED, True)
    with remove_new_hooks(both):
        for part in (old, new):
            part.register_forward_hook(lambda _m, _a, _o: None)
            setattr(part, INSTALLED, True)
    assert set(old._forward_hooks) == {kept.id} and not new._forward_hooks
    assert vars(old)[INSTALLED] and INSTALLED not in vars(new)


@torch.no_grad()
def test_a_plain_call_is_compared_with_the_longer_text_alone(model: Model) -> None:
    runs = runs_of(model, resid_pre[0], resid_pre[1], logits)
    same, first, second = plain_laws(runs)
    assert (same.law, same.sites, same.allowed) == ("same as Hugging Face", (logits,), runs.tolerance(logits))
    assert same.error < 1e-6 and (first.sites, second.sites) == ((resid_pre[0],), (resid_pre[1],))
    twice = {**runs.alone[0], logits: 2 * runs.alone[0][logits]}
    assert next(plain_laws(Runs(model, runs.sites, runs.texts, (twice, {}), runs.floor))).error == pytest.approx(1.0)


def test_two_runs_may_differ_by_four_units_of_rounding(model: Model) -> None:
    runs = runs_of(model, z[0], resid_post[1])
    for check, site in zip(repeat_laws(runs), runs.sites, strict=True):
        assert (check.error, check.allowed, check.sites) == (0.0, 4 * unit(torch.float32), (site,))


def test_the_text_of_a_batch_that_changes_most_is_measured_on_its_own_tokens(model: Model) -> None:
    runs = runs_of(model, resid_post[1], n_pos=5)
    ids = [one.ids[0].tolist() for one in runs.texts]
    for row, other in ((0, 1), (1, 0)):
        batch = pad(None, ids, "left")
        together = capture(model, batch, resid_post[1])[resid_post[1]]
        alone = [together[one][batch.mask[one]][None] for one in (0, 1)]
        alone[row] = alone[row] / 1.25
        held = ({resid_post[1]: alone[0]}, {resid_post[1]: alone[1]})
        check = _check_batch(runs, "law", "states", "batch", batch, held)
        assert check.error == pytest.approx(0.25) and (check.at, check.use) == (resid_post[1], "batch")
        held[row][resid_post[1]].mul_(1.25)
        held[other][resid_post[1]].mul_(2.0)
        assert _check_batch(runs, "law", "states", "batch", batch, held).error == pytest.approx(0.5)


def test_a_batch_has_texts_of_one_length_first_and_then_padding_on_either_side(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, seen = runs_of(model, logits), list[tuple[str, list[list[bool]], bool]]()

    def kept(_: Runs, law: str, states: str, use: str, tokens: Tokens, alone: tuple[Values, Values]) -> Check:
        first = alone[0][logits].shape[1]
        seen.append((law, tokens.mask.tolist(), alone[1] is runs.alone[1]))
        assert tokens.ids[0][tokens.mask[0]].tolist() == runs.texts[0].ids[0, :first].tolist()
        assert tokens.ids[1][tokens.mask[1]].tolist() == runs.texts[1].ids[0].tolist()
        return Check(law, states, 0.0, 1.0, use=use)

    monkeypatch.setattr("hooks.contract.invariance._check_batch", kept)
    assert [check.use for check in batch_laws(runs)] == ["batch", "right padding", "left padding"]
    yes, short = [True] * 6, [True] * 4
    assert seen == [
        ("batch = single", [yes[:4], short], True),
        ("right padding", [yes, [*short, False, False]], True),
        ("left padding", [yes, [False, False, *short]], True),
    ]


@pytest.fixture
def asked(model: Model) -> Iterator[list[tuple[list[int], list[int], bool]]]:
    """What a model is called with: the tokens, the mask of what it has read by then, and whether a cache is kept."""
    calls: list[tuple[list[int], list[int], bool]] = []

    def hook(_: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        calls.append((kwargs["input_ids"][0].tolist(), kwargs["attention_mask"][0].tolist(), kwargs["use_cache"]))

    handle = model.hf.register_forward_pre_hook(hook, with_kwargs=True)
    yield calls
    handle.remove()


@pytest.mark.parametrize("n_pos", [3, 5])
@torch.no_grad()
def test_two_tokens_are_decoded_one_by_one_after_a_prompt_of_the_others(
    model: Model, asked: list[tuple[list[int], list[int], bool]], n_pos: int
) -> None:
    runs = runs_of(model, logits, n_pos=n_pos)
    asked.clear()
    (check,) = cache_laws(runs)
    ids = runs.texts[0].ids[0].tolist()
    assert asked == [
        (ids[: n_pos - 2], [1] * (n_pos - 2), True),
        (ids[n_pos - 2 : n_pos - 1], [1] * (n_pos - 1), True),
        (ids[n_pos - 1 :], [1] * n_pos, True),
    ]
    assert 0 <= check.error <= check.allowed == runs.tolerance(logits)


def test_nothing_is_decoded_where_nothing_is_left_for_a_prompt_or_the_text_gave_no_logits(model: Model) -> None:
    runs = runs_of(model, logits, n_pos=4)
    two = Runs(model, (logits,), (runs.texts[1], runs.texts[1]), (runs.alone[1], runs.alone[1]), runs.floor)
    assert runs.texts[1].ids.shape[1] == 2 and not list(cache_laws(two))
    assert not list(cache_laws(Runs(model, (logits,), runs.texts, ({}, runs.alone[1]), runs.floor)))


class Reads(nn.Module):
    """A model whose settings do not say whether it has an encoder, and which generates or takes a cache, or neither."""

    def __init__(self, *, generates: bool) -> None:
        super().__init__()
        self.weight, self.config = nn.Parameter(torch.zeros(1)), SimpleNamespace()
        self.can_generate = lambda: generates

    def forward(self, input_ids: Tensor) -> Any:
        raise AssertionError(f"nothing is to be decoded: {input_ids}")


class TakesACache(Reads):
    def forward(self, input_ids: Tensor, past_key_values: Any = None) -> Any:
        raise AssertionError(f"nothing is to be decoded: {input_ids}, {past_key_values}")


@pytest.mark.parametrize("hf", [lambda: Reads(generates=True), lambda: TakesACache(generates=False)])
def test_nothing_is_decoded_by_a_model_that_does_not_generate_or_takes_no_cache(hf: Callable[[], nn.Module]) -> None:
    model = load(tiny("gpt2"), check=False)
    runs = runs_of(model, logits)
    model.hf = hf()
    assert not list(cache_laws(runs))


def test_decoding_of_a_decoder_after_an_encoder_is_refused(model: Model) -> None:
    encoder = load(tiny("gpt2"), check=False)
    runs = runs_of(encoder, logits)
    encoder.hf.config.is_encoder_decoder = True
    (check,) = cache_laws(runs)
    assert (check.error, check.allowed, check.use) == (1.0, 0.0, "cache") and not check.holds
