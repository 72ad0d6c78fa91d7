"""A file of tensors holds what was written, for whoever may read its folder, and anything else is refused by name."""

from pathlib import Path

import pytest
import torch
from typing_extensions import TypedDict

from hooks.errors import DamagedFile
from hooks.json_file import Kind
from hooks.tensor_file import read_tensors, save_tensors, write_tensors


class Header(TypedDict):
    of: list[int | None]


ROWS, OTHER = Kind("key", "rows", "rows()", Header), Kind("other", "rows", "rows()", Header)


def test_tensors_and_what_is_said_of_them_come_back_even_those_that_share_memory(tmp_path: Path) -> None:
    whole = torch.arange(6.0).view(2, 3)
    write_tensors(tmp_path / "a.safetensors", ROWS, {"row": whole[0], "turned": whole.T}, {"of": [1, None]})
    tensors, about = read_tensors(tmp_path / "a.safetensors", ROWS)
    assert torch.equal(tensors["row"], whole[0]) and torch.equal(tensors["turned"], whole.T)
    assert about == {"of": [1, None]} and [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_file_has_the_rights_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_is_no_such_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("hello", encoding="utf-8")
    with pytest.raises(DamagedFile, match=r"junk is no safetensors file \(.*\): expected a file written by rows\(\)"):
        read_tensors(tmp_path / "junk", ROWS)
    write_tensors(tmp_path / "a", OTHER, {"a": torch.ones(2)}, {"of": []})
    with pytest.raises(DamagedFile, match=r"a holds no rows: expected a file written by rows\(\)"):
        read_tensors(tmp_path / "a", ROWS)
    with pytest.raises(FileNotFoundError, match="there is no file '.*none'"):
        read_tensors(tmp_path / "none", ROWS)


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_tensors(file, ROWS, {"a": torch.arange(5.0)}, {"of": [7]})
    whole = file.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        file.write_bytes(flipped)
        with pytest.raises(DamagedFile, match=r"a\.safetensors"):
            read_tensors(file, ROWS)


def test_a_field_that_is_missing_or_of_another_type_is_named(tmp_path: Path) -> None:
    for about in ({}, {"of": "fog"}, {"of": [1.5]}):
        write_tensors(tmp_path / "a", ROWS, {"a": torch.ones(2)}, about)
        with pytest.raises(DamagedFile, match=r"a holds no rows \(of.*\)"):
            read_tensors(tmp_path / "a", ROWS)


class Note(TypedDict):
    a: int
    b: int


def test_what_is_said_in_another_order_makes_the_same_file(tmp_path: Path) -> None:
    kind = Kind("note", "a note", "note()", Note)
    write_tensors(tmp_path / "one", kind, {"x": torch.ones(2), "y": torch.zeros(1)}, {"a": 1, "b": 2})
    write_tensors(tmp_path / "two", kind, {"y": torch.zeros(1), "x": torch.ones(2)}, {"b": 2, "a": 1})
    for name in ("one", "two"):
        tensors, about = read_tensors(tmp_path / name, kind)
        assert about == {"a": 1, "b": 2} and sorted(tensors) == ["x", "y"]
    assert metadata_of(tmp_path / "one") == metadata_of(tmp_path / "two")


def metadata_of(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()
