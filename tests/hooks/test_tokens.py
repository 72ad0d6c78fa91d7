"""Tokens know what is padding, what is special, and where each is in its text."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from datasets import Dataset

from hooks import Activations, Model, capture, load
from hooks.encoding import join, looks_like_a_file, pad
from hooks.errors import InvalidArgument
from hooks.position import generated, prompt
from hooks.site import resid_post
from hooks.store import harvest, separate
from tests.conftest import END as END_OF_TEXT
from tests.conftest import tiny_tokenizer

END = 256


def test_each_token_is_found_in_its_text_by_its_offsets(gpt2: Model) -> None:
    texts = ["Fog over the bay", "A bridge"]
    tokens = gpt2.tokens(texts)
    assert tokens.offsets is not None
    for row, text in enumerate(texts):
        spans = tokens.offsets[row][tokens.content[row]].tolist()
        assert "".join(text[start:end] for start, end in spans) == text


def test_beginning_of_text_is_real_but_special_and_padding_is_neither(gpt2: Model) -> None:
    tokens = gpt2.tokens(["abc", "a"])
    assert tokens.mask.tolist() == [[True, True, True, True], [True, True, False, False]]
    assert tokens.special.tolist() == [[True, False, False, False], [True, False, True, True]]
    assert tokens.content.sum(dim=1).tolist() == [3, 1]


def test_padding_goes_where_the_tokenizer_says(gpt2: Model, padded_left: Callable[[Model], Model]) -> None:
    left, right = padded_left(gpt2).tokens(["abc", "a"]), gpt2.tokens(["abc", "a"])
    assert left.mask.tolist() == [[True, True, True, True], [False, False, True, True]]
    assert left.ids[left.mask].tolist() == right.ids[right.mask].tolist()


def test_ids_alone_are_all_real_and_the_end_of_text_is_special(gpt2: Model) -> None:
    tokens = gpt2.tokens(torch.tensor([END, 5, 6, END]))
    assert tokens.ids.shape == (1, 4)
    assert bool(tokens.mask.all())
    assert tokens.special.tolist() == [[True, False, False, True]]


def test_a_row_of_a_batch_is_the_text_alone(gpt2: Model, padded_left: Callable[[Model], Model]) -> None:
    for model in (gpt2, padded_left(gpt2)):
        batch = model.tokens(["abcdef", "a", "abc"])
        for row, text in enumerate(["abcdef", "a", "abc"]):
            alone, part = model.tokens(text), batch[row]
            assert part.texts == alone.texts == (text,)
            assert torch.equal(part.ids, alone.ids)
            assert torch.equal(part.special, alone.special)
            assert part.offsets is not None and alone.offsets is not None
            assert torch.equal(part.offsets, alone.offsets)


def test_batches_joined_are_the_batch(gpt2: Model, padded_left: Callable[[Model], Model]) -> None:
    texts = ["abcdef", "a", "abc"]
    for model in (gpt2, padded_left(gpt2)):
        parts = [model.tokens(texts[:2]), model.tokens(texts[2:])]
        joined, whole = join(model.tokenizer, parts, model.padding_side), model.tokens(texts)
        assert joined.texts == whole.texts
        for name in ("ids", "mask", "special", "offsets"):
            assert torch.equal(getattr(joined, name), getattr(whole, name)), name


def test_a_padding_token_of_its_own_marks_padding_in_bare_ids(fresh: Callable[..., Model]) -> None:
    from copy import deepcopy

    model = fresh("gpt2")
    model.tokenizer = deepcopy(model.tokenizer)
    model.tokenizer.pad_token = "!"
    ids = model.tokens(["abc", "a"]).ids
    assert model.tokens(ids).mask.sum(dim=1).tolist() == [4, 2]
    with pytest.raises(ValueError, match="text 1 has no tokens: leave it out"):
        model.tokens(torch.stack([ids[0], ids[1, -1:].expand(4)]))


def test_what_is_no_text_is_refused(gpt2: Model, hf_model: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="got no texts: pass a text or a non-empty list of texts"):
        gpt2.tokens([])
    with pytest.raises(ValueError, match=r"text 1 \(''\) has no tokens: leave it out"):
        pad(gpt2.tokenizer, [[1], []], "right", texts=("a", ""))
    with pytest.raises(ValueError, match=r"this model has no tokenizer.*pass token ids, or load\(source, tokenizer\)"):
        load(hf_model("gpt2")).tokens("abc")


def test_the_texts_of_a_batch_are_gone_through_one_by_one(gpt2: Model) -> None:
    tokens = gpt2.tokens(["The bay", "Fog"])
    assert [one.texts for one in tokens] == [("The bay",), ("Fog",)]
    assert tokens[-1].texts == ("Fog",)
    for number in (2, -3):
        with pytest.raises(IndexError, match=f"text {number} was asked for, and there are 2"):
            _ = tokens[number]


@pytest.mark.parametrize("side", ["left", "right"])
def test_generated_tokens_stay_generated_when_a_row_is_taken_and_through_a_file(
    side: str, gpt2: Model, padded_left: Callable[[Model], Model], tmp_path: Path
) -> None:
    model = padded_left(gpt2) if side == "left" else gpt2
    given, new = model.tokens(["The bay", "Fog"]), torch.tensor([[40, 71], [72, 73]])
    whole = given.extend(new, torch.ones_like(new).bool(), torch.zeros_like(new).bool())
    acts = capture(model, whole, resid_post[0])
    acts.save(tmp_path / "acts.safetensors")
    for tokens in (whole, Activations.load(tmp_path / "acts.safetensors").tokens):
        for row in range(2):
            assert tokens[row].ids[generated.mask(tokens[row])].tolist() == new[row].tolist()
            assert tokens[row].ids[prompt.mask(tokens[row])].tolist() == given[row].ids[given[row].content].tolist()


def test_a_mapping_is_not_read_as_texts_that_are_its_keys(gpt2: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first

    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["Fog", "Bay"]})})
    reads = (gpt2.run, gpt2.generate, gpt2.tokens, lambda data: capture(gpt2, data, resid_post[0]))
    for read in reads:
        for data in (splits, {"text": ["Fog", "Bay"]}):
            with pytest.raises(TypeError, match=r"expected a text .*, got a \w+ of \['.*name one of them"):
                read(data)
        for data, kind in (([("Fog", "bay")], "tuple"), ([1, 2], "int"), (["Fog", None], "NoneType"), ([[1]], "list")):
            with pytest.raises(TypeError, match=rf"got a {kind} as text \d: pass strings, or token ids as a tensor"):
                read(data)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([1.0, 2.0]), "token ids are whole numbers of shape"),
        (torch.tensor([[[1]]]), r"token ids are whole numbers .* got torch.int64 \(1, 1, 1\)"),
        (torch.tensor([], dtype=torch.long), "token ids are whole numbers"),
        (torch.tensor([True, False]), "token ids are whole numbers"),
        (torch.tensor([1, 257]), r"token ids are in 0\.\.256, got 1\.\.257"),
        (torch.tensor([-1, 2]), r"token ids are in 0\.\.256, got -1\.\.2"),
    ],
)
def test_ids_that_are_none_are_refused(gpt2: Model, ids: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpt2.tokens(ids)


def padding_with(token: str | None, side: str = "right") -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer(side))
    if token is not None:
        tokenizer.pad_token = token
    return tokenizer


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_mask_that_a_tokenizer_returned_says_what_is_padding(gpt2: Model, side: str) -> None:
    """Padding with the end of text, as most people do, the logits of each text are its own."""
    model = load(gpt2.hf, padding_with(END_OF_TEXT, side), check=False)
    texts = ["Fog over the bay", "No"]
    for encoded in (model.tokenizer(texts, padding=True, return_tensors="pt"), model.tokenizer(texts, padding=True)):
        tokens = model.tokens(encoded)
        assert torch.equal(tokens.mask, model.tokens(texts).mask)
        torch.testing.assert_close(model.run(encoded)[tokens.mask], model.run(texts)[tokens.mask])
    ragged = model.tokenizer(texts)
    assert torch.equal(model.tokens(ragged).ids, model.tokens(texts).ids)


@pytest.mark.parametrize("side", ["left", "right"])
def test_ids_that_may_or_may_not_end_in_padding_are_refused_with_the_fix(gpt2: Model, side: str) -> None:
    model = load(gpt2.hf, padding_with(END_OF_TEXT, side), check=False)
    batch = model.tokenizer(["Fog over the bay", "No"], padding=True, return_tensors="pt")
    with pytest.raises(InvalidArgument, match="both padding and a part of texts: pass what the tokenizer returned"):
        model.run(batch["input_ids"])
    same = model.tokenizer(["Fog", "Bay"], return_tensors="pt")["input_ids"]  # none is padded
    assert bool(model.tokens(same).mask.all()) and bool(model.tokens(same[0]).mask.all())


def test_padding_is_at_the_ends_of_a_text_and_never_inside_it(gpt2: Model) -> None:
    tokenizer = padding_with("a")
    pad = tokenizer.pad_token_id
    model = load(gpt2.hf, tokenizer, check=False)
    assert model.tokens(torch.tensor([[256, 5, pad, pad]])).mask.tolist() == [[True, True, False, False]]
    assert model.tokens(torch.tensor([[pad, 256, 5, 6]])).mask.tolist() == [[False, True, True, True]]
    inside = torch.tensor([[256, 5, pad, 7]])
    with pytest.raises(InvalidArgument, match="has the padding token 'a' inside it, at 2, .* pass what the tokenizer"):
        model.tokens(inside)
    said = model.tokens({"input_ids": inside, "attention_mask": torch.ones_like(inside)})
    assert bool(said.mask.all())
    rows = Dataset.from_dict({"input_ids": inside.tolist()})
    with pytest.raises(InvalidArgument, match="has the padding token 'a' inside it"):
        capture(model, rows, resid_post[1])
    rows = Dataset.from_dict({"input_ids": inside.tolist(), "attention_mask": [[1, 1, 1, 1]]})
    assert capture(model, rows, resid_post[1])[resid_post[1]].shape[1] == 4


def test_a_harvest_of_ids_with_their_mask_keeps_every_token_it_shows(gpt2: Model, tmp_path: Path) -> None:
    tokenizer = padding_with("a")
    model, pad = load(gpt2.hf, tokenizer, check=False), tokenizer.pad_token_id
    rows = Dataset.from_dict({"input_ids": [[256, 5, pad, 7, pad]], "attention_mask": [[1, 1, 1, 1, 0]]})
    store = harvest(model, rows, [resid_post[1]], tmp_path / "s", packing=separate())
    assert store[:].ids.tolist() == [5, pad, 7] or store[:].ids.tolist() == [5, 7]
    alone = model.hf(torch.tensor([[256, 5, pad, 7]]), output_hidden_states=True).hidden_states[2]
    torch.testing.assert_close(store[:][resid_post[1]][-1].float(), alone[0, 3], atol=2e-3, rtol=2e-3)


def test_the_name_of_a_file_is_not_read_as_a_text(gpt2: Model, tmp_path: Path) -> None:
    file = tmp_path / "stories.txt"
    file.write_text("Fog over the bay.")
    with pytest.raises(InvalidArgument, match=r"stories\.txt' is the name of a file, .*open_dataset\(name\)"):
        gpt2.run(str(file))


def test_the_name_of_a_file_as_the_only_text_of_a_list_is_not_read_either(gpt2: Model, tmp_path: Path) -> None:
    file = tmp_path / "stories.txt"
    file.write_text("Fog over the bay.")
    for given in ([str(file)], (str(file),)):
        with pytest.raises(InvalidArgument, match=r"stories\.txt' is the name of a file"):
            gpt2.tokens(given)
    assert gpt2.tokens([str(file), "Fog"]).texts == (str(file), "Fog")


def test_tokens_on_another_device_are_there_wholly_and_the_same_object_only_where_all_of_it_was(gpt2: Model) -> None:
    here, away = torch.device("cpu"), torch.device("meta")
    tokens = gpt2.tokens(["Fog over the bay", "A bridge"])
    moved = tokens.to(away)
    assert {one.device for one in (moved.ids, moved.mask, moved.special, moved.offsets) if one is not None} == {away}
    assert tokens.to(here) is tokens
    both = replace(moved, decoder=tokens).to(away)
    assert both.decoder is not None
    assert both.decoder.ids.device == away, "what the decoder reads moves too, though all else was there"


def test_a_text_longer_than_a_name_of_a_file_is_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fog.txt").write_text("fog")
    assert looks_like_a_file("fog.txt") and not looks_like_a_file("fog.md")
    assert not looks_like_a_file("Fog. " * 100) and not looks_like_a_file("Fog. " * 300)
