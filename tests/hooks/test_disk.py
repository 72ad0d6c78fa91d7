"""What is written to a disk appears whole or not at all."""

import os
from pathlib import Path

import pytest

from hooks.disk import append_text, lock, read_foreign, write_folder, write_text
from hooks.errors import DamagedFile, StorageFailed


def test_a_text_whose_writing_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "page.html", "before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match=r"page\.html cannot be written \(No space left on device\)"):
        write_text(tmp_path / "page.html", "after")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("page.html", "before")]


def test_a_folder_of_files_appears_when_all_of_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), write_folder(tmp_path / "model") as partial:
        (partial / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with write_folder(tmp_path / "model") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "config.json").write_text("{}")
        assert not (tmp_path / "model").exists()
    assert [file.name for file in tmp_path.rglob("*.json")] == ["config.json"]


def test_a_folder_written_again_keeps_its_other_files_and_gets_the_new_ones(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "notes.txt"):
        (tmp_path / "model" / name).write_text("before")
    with write_folder(tmp_path / "model") as partial:
        (partial / "config.json").write_text("after")
    kept = {file.name: file.read_text() for file in (tmp_path / "model").iterdir()}
    assert kept == {"config.json": "after", "notes.txt": "before"} and len(list(tmp_path.iterdir())) == 1


def test_a_folder_written_to_an_empty_place_is_all_of_what_was_written_with_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with write_folder(tmp_path / "model") as partial:
        (partial / "shards").mkdir()
        (partial / "config.json").write_text("{}")
    assert {file.name for file in (tmp_path / "model").iterdir()} == {"shards", "config.json"}


def test_what_a_file_of_another_library_lacks_is_said_with_the_file_and_the_cure() -> None:
    with pytest.raises(DamagedFile, match=r"cfg\.json is not as .* \(KeyError: 'k'\): load it again"):
        read_foreign("cfg.json", "load it again", lambda: {}["k"])

    def full() -> None:
        raise StorageFailed("the disk is full")

    with pytest.raises(StorageFailed, match="^the disk is full$"):
        read_foreign("cfg.json", "load it again", full)


def test_a_line_is_added_on_a_line_of_its_own_where_the_last_one_was_torn(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    append_text(log, '{"a": 1}\n')
    log.write_bytes(log.read_bytes() + b'{"a": ')
    append_text(log, '{"a": 2}\n')
    append_text(log, '{"a": 3}\n')
    assert log.read_text().splitlines() == ['{"a": 1}', '{"a": ', '{"a": 2}', '{"a": 3}']


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for write in (append_text, write_text):
        with pytest.raises(StorageFailed, match="nowhere"):
            write(tmp_path / "nowhere" / "log", "fog")


def test_a_folder_that_a_failed_writer_made_and_left_empty_is_gone(tmp_path: Path) -> None:
    for name, written in (("a/b", False), ("c", True)):
        with pytest.raises(ZeroDivisionError), lock(tmp_path / name, "work"):
            if written:
                (tmp_path / name / "file").touch()
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "old", "work"):
        raise ZeroDivisionError
    assert (tmp_path / "old").is_dir()
