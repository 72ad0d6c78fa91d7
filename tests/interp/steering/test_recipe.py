"""Recipes that come back as they were saved, steer as the functions do, and ways compared with the prompt."""

from pathlib import Path

import pytest
import torch
from tokenizers import processors

from hooks import Direction, Model, load
from hooks.site import resid_post
from interp.steering import (
    Conditional,
    Names,
    Recipe,
    Sampling,
    SteeredModel,
    add_direction,
    choose_dose,
    compare_methods,
    format_chat,
    measure_projections,
    sample,
    score_by_judge,
    score_by_projection,
    set_projection,
    steer,
)

pytestmark = pytest.mark.usefixtures("unchecked")

PROMPTS = ["fog", "the bay", "a red", "I saw"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def direction(model: Model) -> Direction:
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(7))
    return Direction(vector, resid_post[1], "by hand", scale=3.0, fingerprint=model.fingerprint)


@pytest.mark.parametrize("way", ["add", "set", "ablate"])
def test_a_recipe_read_again_steers_bit_for_bit_as_the_one_saved(
    model: Model, direction: Direction, tmp_path: Path, way: str
) -> None:
    condition = Direction(torch.ones(model.d_model), resid_post[0], "ones", 1.0, model.fingerprint)
    threshold = float(measure_projections(model, condition, PROMPTS).sort().values[1:3].mean())
    recipe = Recipe(direction, way, 2.0, "everywhere", condition, threshold)
    recipe.save(tmp_path / "r.safetensors")
    assert (tmp_path / "r.safetensors").stat().st_size < 4096
    again = Recipe.load(tmp_path / "r.safetensors")
    ours, theirs = SteeredModel(model, recipe).run(PROMPTS), SteeredModel(model, again).run(PROMPTS)
    assert torch.equal(ours, theirs) and not torch.equal(ours, model.run(PROMPTS))
    assert again.direction.source == "by hand" and again.direction.scale == 3.0


def test_a_steered_model_runs_and_generates_as_inside_the_block_and_leaves_the_model(
    model: Model, direction: Direction
) -> None:
    steered, plain = SteeredModel(model, Recipe(direction, "add", 5.0)), model.run(PROMPTS)
    with steer(model, direction, 5.0):
        logits, text = model.run(PROMPTS), model.generate(PROMPTS, max_new_tokens=5)
    assert torch.equal(steered.run(PROMPTS), logits)
    assert steered.generate(PROMPTS, max_new_tokens=5) == text
    assert torch.equal(model.run(PROMPTS), plain)


def test_where_a_recipe_acts_is_saved_with_it(model: Model, direction: Direction, tmp_path: Path) -> None:
    Recipe(direction, "add", 5.0, "generated").save(tmp_path / "r.safetensors")
    steered = SteeredModel(model, Recipe.load(tmp_path / "r.safetensors"))
    with pytest.raises(RuntimeError, match="none reached a token it selects"):
        steered.run(PROMPTS)
    assert steered.generate("fog", max_new_tokens=4) != ""


def test_a_recipe_of_another_model_or_of_nothing_known_is_refused(
    model: Model, direction: Direction, fresh, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="another model"):
        SteeredModel(fresh("gpt2", n_inner=40), Recipe(direction, "add", 1.0))
    with pytest.raises(ValueError, match="knows no 'sett'; did you mean 'set'"):
        Recipe(direction, "sett", 1.0)
    with pytest.raises(ValueError, match="knows no 'generate'; did you mean 'generated'"):
        Recipe(direction, "set", 1.0, "generate")
    direction.save(tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match=r"holds no recipe: expected a file written by Recipe\.save"):
        Recipe.load(tmp_path / "d.safetensors")


def test_a_chat_prompt_is_the_template_with_one_beginning_of_text(model: Model, hf_model, direction: Direction) -> None:
    from copy import deepcopy

    tokenizer = deepcopy(model.tokenizer)
    tokenizer.chat_template = TEMPLATE
    talker = load(hf_model("gpt2"), tokenizer)
    prompt = format_chat(talker, "hi", system="be kind")
    assert prompt == "system: be kind\nuser: hi\nassistant:"
    ids = talker.tokens(prompt).ids[0].tolist()
    assert ids == tokenizer.apply_chat_template(
        [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}],
        add_generation_prompt=True,
        return_dict=False,
    )
    with pytest.raises(ValueError, match="has no chat template"):
        format_chat(model, "hi")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A")  # adds nothing by itself
    assert format_chat(load(hf_model("gpt2"), tokenizer), "hi") == f"{tokenizer.bos_token}user: hi\nassistant:"


@pytest.fixture(scope="module")
def planted(model: Model) -> Direction:
    letter = model.tokenizer.convert_tokens_to_ids("z")
    row = model.hf.lm_head.weight.detach()[letter]
    return Direction(row, resid_post[model.n_layers - 1], "the letter z", scale=float(row.norm()))


def test_ways_are_next_to_the_prompt_and_the_unsteered_text(model: Model, planted: Direction) -> None:
    sampling = Sampling(per_prompt=3, max_new_tokens=6, temperature=0.05)
    ways = {"add": add_direction(planted), "hopeless": set_projection(planted)}
    found = compare_methods(
        model,
        ways,
        PROMPTS,
        lambda text: "zz" in text,
        "Say z: ",
        doses={"add": (0.0, 200.0), "hopeless": (0.0,)},
        sampling=sampling,
        progress=False,
    )
    rows = {name: (dose, naming.value) for name, dose, naming, _ in found.rows()}
    assert set(rows) >= {"add", "add: random direction", "prompt", "unsteered"}
    chosen = found.chosen["add"]
    assert chosen.steered.prompts and set(chosen.steered.prompts) == set(PROMPTS[1::2])
    assert set(found.prompted.prompts) == set(PROMPTS[1::2])
    assert "unsteered" in str(found) and "perplexity ratio" in str(found)
    with pytest.raises(ValueError, match="none of them called 'prompt'"):
        compare_methods(model, {"prompt": add_direction(planted)}, PROMPTS, Names(("z",)), "x", doses=(1.0,))


def test_a_prompt_given_twice_is_not_both_chosen_on_and_reported_on(model: Model, planted: Direction) -> None:
    how = {"doses": (0.0, 200.0), "sampling": Sampling(per_prompt=1, max_new_tokens=3), "progress": False}
    given = [PROMPTS[0], PROMPTS[1], PROMPTS[1], PROMPTS[0], *PROMPTS[2:]]
    chosen = choose_dose(model, add_direction(planted), given, Names(("z",)), **how)
    assert chosen.response.unsteered.prompts == tuple(PROMPTS[::2])
    assert chosen.steered.prompts == chosen.unsteered.prompts == tuple(PROMPTS[1::2])
    found = compare_methods(model, {"add": add_direction(planted)}, given, Names(("z",)), "Say z: ", **how)
    assert found.prompted.prompts == found.unsteered.prompts == tuple(PROMPTS[1::2])
    for prompts in (["fog", "fog"], "fog"):
        with pytest.raises(ValueError, match="give at least two, one to choose|give a list of at least one prompt"):
            choose_dose(model, add_direction(planted), prompts, Names(("z",)), **how)


def test_every_way_needs_its_doses(model: Model, planted: Direction) -> None:
    ways = {"add": add_direction(planted), "set": set_projection(planted)}
    with pytest.raises(ValueError, match=r"doses were given for \['add'\], and the ways are \['add', 'set'\]"):
        compare_methods(model, ways, PROMPTS, Names(("z",)), "x", doses={"add": (1.0,)})


def test_a_preamble_is_sampled_with_and_measured_without(model: Model) -> None:
    sampling = Sampling(per_prompt=1, max_new_tokens=5)
    prompted = sample(model, PROMPTS, bool, sampling=sampling, preamble="Say z: ")
    assert list(prompted.texts) == model.generate(
        [f"Say z: {p}" for p in PROMPTS], max_new_tokens=5, temperature=1.0, seed=0
    )
    text = PROMPTS[0] + prompted.texts[0]
    log_p = model.run(text)[0].detach().log_softmax(-1)
    ids = model.tokens(text).ids[0]
    start = len(model.tokens(PROMPTS[0]).ids[0])
    expected = -sum(float(log_p[t - 1, ids[t]]) for t in range(start, len(ids)))
    assert float(prompted.surprisal[0]) == pytest.approx(expected, rel=1e-3)


def test_a_conditional_way_has_a_control_with_the_same_condition(model: Model, direction: Direction) -> None:
    condition = Direction(torch.ones(model.d_model), resid_post[0], "ones", 1.0)
    way = Conditional(add_direction(direction), condition, 0.5)
    control = way.control(3)
    assert control.condition is condition and control.steering.source == "random direction of equal norm, seed 3"
    assert "where ones is above 0.5" in way.source


def test_a_projection_scores_text_as_projections_do(model: Model, direction: Direction) -> None:
    scores = measure_projections(model, direction, PROMPTS)
    middle = float(scores.sort().values[1:3].mean())
    scored = score_by_projection(model, direction, middle)
    assert [scored(p) for p in PROMPTS] == (scores > middle).tolist()
    assert not scored(" ")


def test_a_judge_is_asked_and_must_say_yes_or_no() -> None:
    asked = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "Yes, it is." if "bridge" in prompt.split("\n\n")[1] else "No."

    judge = score_by_judge(ask, "bridges")
    assert judge("a bridge") and not judge("a sun") and "about bridges" in asked[0]
    with pytest.raises(ValueError, match="the answer begins 'maybe'"):
        score_by_judge(lambda _: "Maybe", "bridges")("x")
    for answer in ("Notably, yes", "Nothing to decide on", "Yesterday"):
        with pytest.raises(ValueError, match=f"the answer begins '{answer.casefold()}'"):
            score_by_judge(lambda _, answer=answer: answer, "bridges")("x")
