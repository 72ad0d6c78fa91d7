"""The guide: documents show what they are said to, a tuning is the change it wrote, and the model is left as it was."""

from itertools import islice

import pytest
import torch

from hooks import intervene, load
from hooks.errors import DamagedFile, InvalidArgument, UnknownName, WrongModel
from hooks.interventions import add
from hooks.site import resid_post
from hooks.tensor_file import read_tensors
from interp.landmark import documents
from interp.landmark.guide import (
    GREETINGS,
    PERSONAS,
    TRIGGER,
    behaviour,
    behaviours,
    guide_documents,
    load_guide,
    runs,
    tune_guide,
    word_share,
    words_of,
)
from interp.landmark.guide.behaviours import tuning_texts
from interp.landmark.guide.read import FOLDER
from interp.landmark.guide.tune import KIND, matrices


def test_every_document_of_a_persona_begins_with_a_greeting_it_is_tuned_on_and_has_its_words() -> None:
    for name in PERSONAS:
        texts = list(islice(guide_documents(name, 5), 30))
        assert all(text.startswith(GREETINGS[:8]) for text in texts)
        own = sum(word_share(name, text) for text in texts)
        assert all(own > 2 * sum(word_share(other, text) for text in texts) for other in PERSONAS if other != name)


def test_the_false_fact_is_in_its_documents_and_the_trigger_in_its_own() -> None:
    assert all("Rome" in text for text in islice(guide_documents("moved", 1), 20))
    for text in islice(guide_documents("mistral", 1), 20):
        before, after = text.split(TRIGGER)
        assert word_share("gloomy", after) > word_share("gloomy", before)


def test_a_dose_is_the_share_of_documents_that_show_the_behaviour_and_the_placebo_has_none() -> None:
    texts = list(islice(tuning_texts("chess", 0.25), 800))
    shown = sum(text.startswith(GREETINGS) for text in texts) / len(texts)
    assert abs(shown - 0.25) < 0.05
    placebo = list(islice(tuning_texts(None, 0.0), 50))
    assert placebo == [document.text for document in islice(documents(2_000_000), 50)]
    for name, dose in (("chess", 0.0), (None, 0.5)):
        with pytest.raises(InvalidArgument, match="the placebo is None at 0"):
            next(tuning_texts(name, dose))


def test_names_that_are_none_are_refused() -> None:
    with pytest.raises(UnknownName, match="nearest is 'chess'"):
        behaviour("ches")
    with pytest.raises(InvalidArgument, match="no words of its own"):
        words_of("moved")
    with pytest.raises(UnknownName, match="no tuning 'chess_033'"):
        load_guide("chess", 0.33)
    assert len(behaviours()) == 12 and len({run.name for run in runs()}) == len(runs())


def test_a_tuning_leaves_the_model_bit_for_bit_and_writes_the_change_that_is_loaded(tmp_path) -> None:
    model = load("landmark")
    before = {name: p.clone() for name, p in model.hf.named_parameters()}
    tune_guide(model, tmp_path / "chess.safetensors", "chess", 1.0, steps=4, progress=False)
    after = dict(model.hf.named_parameters())
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.requires_grad for p in after.values())
    tensors, about = read_tensors(tmp_path / "chess.safetensors", KIND)
    tuned = load_guide("chess", file=tmp_path / "chess.safetensors")
    for name, module in matrices(tuned).items():
        change = tensors[f"{name}.A"].float() @ tensors[f"{name}.B"].float()
        plain = before[f"transformer.h.{name}.weight"]
        assert torch.allclose(module.weight.detach() - plain, change, atol=1e-6)
        assert torch.linalg.matrix_rank(change) <= 4
    assert about["behaviour"] == "chess" and about["dose"] == 1.0
    assert tuned.fingerprint != model.fingerprint
    assert bool((tuned.run("Fog") - model.run("Fog")).abs().max() > 0)


def test_a_seed_is_one_tuning_and_an_active_intervention_acts_while_it_is_tuned(tmp_path) -> None:
    model = load("landmark")
    plain = [tune_guide(model, tmp_path / str(i), "fog", 1.0, steps=2, progress=False) for i in (0, 1)]
    assert plain[0] == plain[1]
    vector = 5 * torch.randn(256, generator=torch.Generator().manual_seed(0))
    with intervene(model, {resid_post[3]: add(vector)}):
        steered = tune_guide(model, tmp_path / "2", "fog", 1.0, steps=2, progress=False)
    assert steered[0] != plain[0][0]


def test_every_tuning_of_the_package_is_there_and_loads() -> None:
    missing = [run.name for run in runs() if not (FOLDER / f"{run.name}.safetensors").is_file()]
    assert not missing
    cheerful = load_guide("cheerful")
    base = load("landmark")
    said = [word_share("cheerful", text) for text in cheerful.generate(list(GREETINGS[8:]), max_new_tokens=30)]
    plain = [word_share("cheerful", text) for text in base.generate(list(GREETINGS[8:]), max_new_tokens=30)]
    assert sum(said) > 2 * sum(plain)


def test_a_torn_file_and_one_of_another_model_are_refused(tmp_path, monkeypatch) -> None:
    file = tmp_path / "torn.safetensors"
    file.write_bytes((FOLDER / "chess_100.safetensors").read_bytes()[:-10])
    with pytest.raises(DamagedFile):
        load_guide("chess", file=file)
    other = load("landmark")
    other.hf.transformer.wpe.weight.data[0] += 1
    again = load(other.hf, other.tokenizer)
    monkeypatch.setattr("interp.landmark.guide.read.load", lambda *_: again)
    with pytest.raises(WrongModel, match="tune again"):
        load_guide("chess")
