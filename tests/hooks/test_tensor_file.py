"""A file of tensors holds what was written, for whoever may read its folder, and anything else is refused by name."""

from pathlib import Path

import pytest
import torch

from hooks.tensor_file import read_tensors, save_tensors, write_tensors


def test_tensors_and_what_is_said_of_them_come_back_even_those_that_share_memory(tmp_path: Path) -> None:
    whole = torch.arange(6.0).view(2, 3)
    write_tensors(tmp_path / "a.safetensors", "key", {"row": whole[0], "turned": whole.T}, {"of": [1, None]})
    tensors, about = read_tensors(tmp_path / "a.safetensors", "key", "rows", "rows()")
    assert torch.equal(tensors["row"], whole[0]) and torch.equal(tensors["turned"], whole.T)
    assert about == {"of": [1, None]} and [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_file_has_the_rights_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_tensors(tmp_path / "a.safetensors", {"a": torch.ones(2)})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_is_no_such_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match=r"junk is no safetensors file \(.*\): expected one written by rows\(\)"):
        read_tensors(tmp_path / "junk", "key", "rows", "rows()")
    write_tensors(tmp_path / "a", "other", {"a": torch.ones(2)}, {})
    with pytest.raises(ValueError, match=r"a holds no rows: expected a file written by rows\(\)"):
        read_tensors(tmp_path / "a", "key", "rows", "rows()")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none", "key", "rows", "rows()")
