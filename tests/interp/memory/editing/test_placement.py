"""Where editors write when no place is given, what they read over again, and the families they write into."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from hooks import Model, capture, intervene, load
from hooks.interventions import apply
from hooks.site import mlp_act, mlp_out
from interp import landmark
from interp.common.completion import score
from interp.memory import Covariance, Edit, Fact, Search, locate, table_cases, table_templates
from interp.memory.editing.change import LowRank, balance_weights, solve_least_change
from interp.memory.editing.contexts import generate_templates, generate_texts
from interp.memory.editing.keys import capture_keys_and_values, capture_lookups
from interp.memory.editing.multi_layer import group_facts
from interp.memory.editing.placement import choose_placement, choose_placement_in_one_layer, locate_known_facts
from interp.memory.editing.prefix_cache import Projection, read_prefixes
from interp.memory.editing.single_layer import average_key
from interp.memory.editing.value_search import search_value, tokenise_statements
from interp.memory.facts.tables import find_case
from tests.conftest import tiny_hf, tiny_tokenizer
from tests.contracts.words import sentences, taught

pytestmark = [pytest.mark.usefixtures("unchecked"), pytest.mark.filterwarnings("ignore:.* tokens for 48 keys")]

FACT, OTHER = Fact("Rome", "so {} is", "b", "a"), Fact("Oslo", "so {} is in", "c", "d")
CONTEXTS = ("", "one. ", "and two. ")


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "qwen2"])
def test_what_is_left_to_read_gives_the_logits_of_the_whole_text(family: str, fresh: Callable) -> None:
    model = fresh(family)
    said = tokenise_statements(model, [FACT], CONTEXTS, ["{} is not"], "last subject")
    at = said.at.mask(said.tokens)
    left = read_prefixes(model, said.tokens, at)
    delta = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), left.add_deltas(model, {mlp_out[1]: delta}):
        short = left.logits(model)[left.of(said.tokens.mask)]
    with torch.no_grad(), intervene(model, {mlp_out[1]: apply(lambda a: a + delta, said.at)}):
        whole = model.run(said.tokens)[at.cumsum(1).bool() & said.tokens.mask]
    assert left.cache is not None and left.ids.shape[1] < said.tokens.ids.shape[1]
    assert torch.allclose(short, whole, atol=1e-4)


def test_keys_are_measured_once_on_texts_the_model_writes_itself(gpt2: Model) -> None:
    place, again = (choose_placement(gpt2, [FACT], None, [0, 2], "last prompt") for _ in range(2))
    assert (place.token, [c.layer for c in place.covariances]) == ("last prompt", [0, 2])
    assert place.covariances[0] is again.covariances[0] and place.covariances[0].n_tokens > 2 * gpt2.d_mlp


def test_the_place_that_is_not_given_is_located_by_the_facts_that_the_model_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "interp.memory.editing.placement.generate_texts", lambda *_: sentences()
    )  # 64 tokens are too long for it
    model = taught("gpt2")
    rome, lima = Fact("Rome", "{} is in", "Italy", "Peru"), Fact("Lima", "so they say . {} is in", "Peru", "Japan")
    unknown = Fact("Oslo", "{} is in", "Italy", "Japan")
    place = choose_placement_in_one_layer(model, [rome, unknown, lima], None, None, None)
    found = locate(model, [rome, lima])
    assert locate_known_facts(model, [rome, unknown, lima]) == found
    assert (place.token, [c.layer for c in place.covariances]) == (found.role, [found.layer])
    assert choose_placement(model, [unknown], None, [0, 1], "last prompt").token == "last prompt"
    with pytest.raises(RuntimeError, match=r"says none of the 2 old objects: after 'Oslo is in' it says 'Norway"):
        locate_known_facts(model, [unknown, replace(unknown, subject="Bergen")])


def test_covariances_of_other_layers_than_named_are_refused(gpt2: Model) -> None:
    c = Covariance(torch.eye(gpt2.d_mlp).double(), 0.0, 1, 9, gpt2.fingerprint)
    with pytest.raises(ValueError, match=r"the covariances are of layers \[1\], the edit is at layers \[0, 2\]: call"):
        choose_placement(gpt2, [FACT], c, [0, 2], "last subject")
    with pytest.raises(ValueError, match="token='middle': choose 'last subject' or 'last prompt'"):
        choose_placement(gpt2, [FACT], c, None, "middle")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "qwen2"])
def test_a_value_searched_is_likelier_and_written_exactly_in_every_family_and_precision(
    family: str, dtype: torch.dtype
) -> None:
    model = load(tiny_hf(family).to(dtype), tiny_tokenizer())
    said = tokenise_statements(model, [FACT], [""], ["they say {}"], "last subject")
    k, v = capture_keys_and_values(model, [FACT], [""], 1, "last subject")
    search = Search(steps=15, learning_rate=0.5, clamp=50.0, kl=0.0, decay=0.0)
    found = search_value(model, said, {Projection(1): v[0]}, search)
    before = score(model, [FACT.text], [FACT.new]).exp()
    assert found.probability > 1.01 * float(before)
    update = LowRank(1, solve_least_change(k, k), found.deltas[Projection(1)][None].double())
    with Edit((FACT,), "by hand", (update,), model.fingerprint).applied(model):
        moved = capture_keys_and_values(model, [FACT], [""], 1, "last subject")[1] - v
    miss = (moved - found.deltas[Projection(1)]).norm() / moved.norm()
    assert miss < (1e-5 if dtype == torch.float32 else 0.02)


def test_every_text_reads_about_all_of_what_is_written_at_a_subjects_mean_key(gpt2: Model) -> None:
    c = Covariance(torch.eye(gpt2.d_mlp).double(), 0.0, 1, 9, gpt2.fingerprint)
    said = tokenise_statements(gpt2, [FACT], CONTEXTS, ["{} is not", "now {}"], "last subject")
    k = average_key(gpt2, said, c)
    (keys,) = capture_lookups(gpt2, said, [mlp_act[1]])
    key = solve_least_change(k[None], k[None])
    share = keys.double() @ key[0]
    assert float(balance_weights(keys, keys) @ share) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(share, torch.ones(()).double(), atol=0.1)
    delta = torch.randn(gpt2.d_model, generator=torch.Generator().manual_seed(0))

    def written() -> torch.Tensor:
        return capture(gpt2, said.tokens, [mlp_out[1]]).flat(mlp_out[1], said.at)

    before = written()
    with Edit((FACT,), "by hand", (LowRank(1, key, delta[None].double()),), gpt2.fingerprint).applied(gpt2):
        assert torch.allclose(written() - before, share[:, None].float() * delta, atol=1e-5)


def test_a_subjects_key_is_a_mean_over_prefixes_and_phrasings_and_a_prompts_over_prefixes(gpt2: Model) -> None:
    c = Covariance(torch.eye(gpt2.d_mlp).double(), 0.0, 1, 9, gpt2.fingerprint)

    def mean_of(keys: torch.Tensor) -> torch.Tensor:
        return balance_weights(keys, keys).float() @ keys

    texts = [*(context + FACT.text for context in CONTEXTS), "Rome is not", "now Rome"]
    of_prompt = torch.stack([capture(gpt2, text, [mlp_act[1]])[mlp_act[1]][0, -1] for text in texts[: len(CONTEXTS)]])
    of_subject = torch.stack([subject_key(gpt2, text) for text in texts])
    for token, keys in (("last prompt", of_prompt), ("last subject", of_subject)):
        k = average_key(gpt2, tokenise_statements(gpt2, [FACT], CONTEXTS, ["{} is not", "now {}"], token), c)
        assert torch.allclose(k, mean_of(keys), atol=1e-5)


def subject_key(model: Model, text: str) -> torch.Tensor:
    """The key after the subject, read by itself: what comes later cannot change it."""
    return capture(model, text[: text.index("Rome") + 4], [mlp_act[1]])[mlp_act[1]][0, -1]


def test_facts_of_one_subject_share_a_key_and_are_stated_again_with_a_later_one() -> None:
    one, two, three = Fact("Rome", "{} is in", "b", "a"), Fact("Rome", "{} has", "c", "d"), OTHER
    assert group_facts([one, three, two], "last subject") == ((one, two), (three,))
    assert group_facts([one, three, two], "last prompt") == ((one,), (three,), (two,))
    assert group_facts([two], "last subject", [one, three]) == ((one, two),)
    changed = Fact("Rome", "{} is in", "b", "e")
    assert group_facts([changed], "last subject", [one]) == ((changed,),)


def test_what_a_model_says_of_a_subject_keeps_to_its_prompt_and_names_neither_object(gpt2: Model) -> None:
    templates = generate_templates(gpt2, FACT, n=3, length=4)
    assert templates[0] == "{} is a" and all(t.startswith("so {}") for t in templates[1:])
    assert all(t.count("{}") == 1 and "a" not in t[5:] and "b" not in t[5:] for t in templates[1:])
    assert templates == generate_templates(gpt2, FACT, n=3, length=4)


def test_nothing_is_kept_that_leads_up_to_a_facts_object(gpt2: Model) -> None:
    fact = Fact("Rome", "so {}", "?", "!")
    free = generate_templates(gpt2, fact, n=4, length=4)
    text = free[1].format("Rome")
    onward = str(gpt2.generate(text, max_new_tokens=4))
    assert len(free) > 2 and free[1] not in generate_templates(
        gpt2, replace(fact, old=onward.strip()[0]), n=4, length=4
    )
    asked = free[1][: len("so {}") + 3]
    assert not any(t.startswith(asked) for t in generate_templates(gpt2, replace(fact, prompt=asked), n=4, length=4))


def test_own_texts_hold_about_the_tokens_asked_for(gpt2: Model) -> None:
    texts = generate_texts(gpt2, 1000)
    assert len(texts) >= 40 and texts[0].startswith("The") and texts == generate_texts(gpt2, 1000)
    assert all(gpt2.tokens(text).ids.shape[1] <= 96 for text in texts)


def test_the_projection_is_what_the_weight_writes(gpt2: Model) -> None:
    said = tokenise_statements(gpt2, [FACT], CONTEXTS, ["{} is not"], "last subject")
    v = torch.ones(gpt2.d_model)
    one, other = (
        search_value(gpt2, said, {place: v}, Search(steps=3, kl=0.0)).deltas[place]
        for place in (Projection(1), mlp_out[1])
    )
    assert torch.allclose(one, other, atol=1e-6)


def test_table_cases_ask_nothing_that_is_edited_too_and_take_every_subject_before_one_twice() -> None:
    cases = table_cases(400, 3)
    edited = {case.fact.text for case in cases}
    assert len(edited) == 400 and len({case.fact.subject for case in cases[:300]}) == 300
    assert cases == table_cases(400, 3) != table_cases(400, 4)
    assert all(q.answer != case.fact.new for case in cases for q in case.neighbours)
    moved = next(case for case in cases if case.hops)
    assert moved.hops[0].prompt not in {q.prompt for q in moved.others}
    assert all(q.answer == case.fact.new for case in cases for q in case.aliases)


def test_of_what_is_moved_to_another_city_its_country_follows_and_the_other_relations_are_preserved() -> None:
    triples = landmark.triples()
    country = {t.subject.text: t.object for t in triples if t.relation.name == "city_country"}
    relation = {(t.subject.name, t.object): t.relation.name for t in triples}
    cases, followed = table_cases(400, 3), 0
    for case in cases:
        moved = relation[case.fact.subject, case.fact.old] == "located_in_city"
        assert [query.answer for query in case.hops] == ([country[case.fact.new]] if moved else [])
        followed += moved
    assert 0 < followed < len(cases)
    bridge = Fact("Golden Gate Bridge", "The {} is located in", "San Francisco", "Sydney")
    assert [query.answer for query in find_case(bridge).hops] == ["Australia"]
    kept = [t for t in triples if t.subject.name == bridge.subject and t.object != bridge.old]
    assert len(table_templates(bridge)) == 1 + len(kept) > 2


def test_too_many_table_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="10000 facts were asked for, the tables hold"):
        table_cases(10_000)
