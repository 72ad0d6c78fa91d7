"""What is written to a disk appears whole or not at all."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typing_extensions import TypedDict

from hooks.disk import (
    LOCK,
    append_text,
    check_record,
    checksum,
    lock,
    read_foreign,
    read_log,
    read_pickled,
    record_file,
    write_folder,
    write_text,
)
from hooks.errors import DamagedFile, StorageFailed, WrongState
from hooks.json_file import Kind, json_content, json_text


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
    assert {path.name for path in tmp_path.rglob("*")} == {"c", LOCK, "file"}
    (tmp_path / "old").mkdir()
    with pytest.raises(ZeroDivisionError), lock(tmp_path / "old", "work"):
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "old").iterdir()] == [LOCK]  # which another writer may wait for


def test_a_second_writer_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_: float) -> None:
        raise AssertionError("it waits")

    with lock(tmp_path / "s", "harvest"):
        monkeypatch.setattr(time, "sleep", wait)
        with (
            pytest.raises(WrongState, match="another harvest is writing to .*: wait until it ends"),
            lock(tmp_path / "s", "harvest"),
        ):
            pass


def test_a_folder_is_made_with_those_above_it_and_files_below_it_whether_it_was_there_or_not(tmp_path: Path) -> None:
    for there in (False, True):
        whole = tmp_path / "not" / "yet" if not there else tmp_path / "old"
        if there:
            whole.mkdir()
            (whole / "notes.txt").touch()
        with write_folder(whole) as partial:
            (partial / "a" / "b").mkdir(parents=True)
            (partial / "a" / "b" / "deep.txt").write_text("fog")
        assert (whole / "a" / "b" / "deep.txt").read_text() == "fog"


def test_the_record_of_a_file_is_its_length_and_a_checksum_of_every_bit(tmp_path: Path) -> None:
    file = tmp_path / "rows.bin"
    file.write_bytes(bytes(range(200)))
    recorded = record_file(file)
    assert recorded["bytes"] == 200
    check_record(file, recorded, "again")
    for changed, said in (
        (bytes(range(199)), "is 199 bytes long, where 200 were written: again"),
        (bytes([1, *range(1, 200)]), "is not as it was written, its checksum is another: again"),
    ):
        file.write_bytes(changed)
        with pytest.raises(DamagedFile, match=said):
            check_record(file, recorded, "again")
    file.unlink()
    with pytest.raises(DamagedFile, match=r"rows\.bin is missing: again"):
        check_record(file, recorded, "again")


def test_a_checksum_depends_on_numbers_types_shapes_and_where_parts_end_and_not_on_how_memory_is_laid_out() -> None:
    x = torch.arange(6.0).view(2, 3)
    alike = [checksum(x), checksum(x.T.contiguous().T), checksum(x.clone())]
    others = [checksum(x.view(3, 2)), checksum(x.double()), checksum(x + 1), checksum(x, x), checksum(x.view(-1))]
    assert len({*alike}) == 1 and len({*alike, *others}) == 6
    assert checksum("fog", "bay") != checksum("fogb", "ay") and checksum("fog") == checksum(b"fog")


RAN: list[int] = []


class Harm:
    """What a pickle may make of itself."""

    def __reduce__(self) -> Any:
        return RAN.append, (1,)


def test_a_file_of_tensors_is_read_without_running_code_and_what_is_wrong_with_it_is_said_in_a_line(
    tmp_path: Path,
) -> None:
    torch.save({"a": torch.arange(3.0), "step": 5}, tmp_path / "state.pt")
    state = read_pickled(tmp_path / "state.pt", "again")
    assert torch.equal(state["a"], torch.arange(3.0)) and state["step"] == 5
    torch.save(Harm(), tmp_path / "harm.pt")
    with pytest.raises(DamagedFile, match=r"harm\.pt is no file of tensors \(.*[Ww]eights.only.*\): again"):
        read_pickled(tmp_path / "harm.pt", "again")
    assert RAN == []
    (tmp_path / "short.pt").write_bytes(b"")
    with pytest.raises(DamagedFile, match=r"short\.pt is no file of tensors \(EOFError\): again"):
        read_pickled(tmp_path / "short.pt", "again")


def test_a_log_is_its_whole_lines_and_one_that_was_changed_is_named_by_its_number(tmp_path: Path) -> None:
    log, lines = tmp_path / "log.jsonl", [{"step": step} for step in range(4)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_log(log) == lines
    for torn in ('{"step": 4', '{"step": 4}', "{"):
        log.write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
        assert read_log(log) == lines
    log.write_text("")
    assert read_log(log) == []
    for number, changed in ((1, "fog"), (3, "[1]")):
        said = [json.dumps(line) for line in lines]
        said[number - 1] = changed
        log.write_text("\n".join(said) + "\n")
        with pytest.raises(DamagedFile, match=rf"line {number} of .*log\.jsonl was changed"):
            read_log(log)


class Note(TypedDict):
    """A text and a number."""

    text: str
    number: int


NOTE = Kind("note", "note", "write_note", Note)


def test_the_order_of_its_fields_changes_nothing_that_a_json_file_says() -> None:
    content = {"text": "fog", "number": 3}
    text = json_text(NOTE, content)
    turned = json.dumps(json.loads(text, object_pairs_hook=lambda pairs: dict(reversed(pairs))))
    assert turned.index("content") < turned.index("checksum") and turned.index("number") < turned.index("fog")
    assert json_content(NOTE, text, "note.json") == json_content(NOTE, turned, "note.json") == content
    with pytest.raises(DamagedFile, match=r"note\.json is damaged, its checksum is another"):
        json_content(NOTE, text.replace("fog", "fig"), "note.json")


def test_what_a_json_file_lacks_is_said_by_the_field_and_what_is_expected_of_it() -> None:
    with pytest.raises(DamagedFile) as raised:
        NOTE.check({"text": "fog", "number": "three"}, "note.json")
    said = str(raised.value)
    assert said.startswith("note.json holds no note (number, Input should be a valid integer [type=")
    assert said.endswith("]): put it back from a copy, or write it again by write_note") and said.count("\n") == 0
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"text": deep}
    with pytest.raises(DamagedFile, match=r"^note\.json holds no note \(maximum recursion depth exceeded.*\): put"):
        NOTE.check(deep, "note.json")
    while deep:  # one by one: to forget them all at once would be as deep
        deep = deep["text"]
