"""A harvest writes what capture gives, whoever shares it and however often it is killed."""

import copy
import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from datasets import Dataset
from datasets.iterable_dataset import ExamplesIterable
from torch import Tensor

from hooks import Model, capture, intervene
from hooks.errors import DamagedFile, InvalidArgument, MissingExtra, NotReachable, WrongModel
from hooks.interventions import scale
from hooks.position import everywhere, first, last, tokens
from hooks.site import attn_out, logits, mlp_act, pattern, resid_post, resid_pre, z
from hooks.store import ActivationStore, harvest, open_dataset, packed, plan, separate
from hooks.store import harvest as harvest_function
from hooks.store.documents import as_dataset, count, document_blocks, sample
from hooks.store.folder import Folder
from hooks.store.manifest import Manifest, record_shard
from hooks.store.processes import Process
from tests.bucket import open_bucket
from tests.processes import do_in_processes, start

BOS = 256
WORDS = ("fog", "bay", "bridge", "light", "", "over the hills", "a long evening by the sea, far off")
TEXTS = [" ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(1 + i % 5)) for i in range(90)]
SITES = [resid_post[1], mlp_act[0]]
forked = pytest.mark.skipif(sys.platform != "linux", reason="forks a loaded model")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def size(folder: Path) -> int:
    """The bytes of a folder in which files are being renamed meanwhile."""
    total = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def rows_of(model: Model, ids: list[list[int]], site: Any) -> Tensor:
    """The rows of a site by one forward pass per row of ids."""
    return torch.cat([capture(model, torch.tensor(row), site).flat(site) for row in ids])


@pytest.fixture(autouse=True)
def one_tokenizer_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


def test_separate_documents_have_the_rows_that_each_has_alone(decoder: Model, tmp_path: Path) -> None:
    texts = [text for text in TEXTS[:20] if text]
    store = harvest(decoder, texts, SITES, tmp_path, packing=separate(), dtype=torch.float32, documents_per_shard=7)
    for site in SITES:
        alone = torch.cat([capture(decoder, text, site).flat(site) for text in texts])
        torch.testing.assert_close(store[:][site], alone, atol=1e-5, rtol=1e-4)
    lengths = torch.tensor([len(text.encode()) for text in texts])
    assert torch.equal(store.documents.diff(), lengths)
    ids = torch.tensor([byte for text in texts for byte in decoder.tokenizer(text)["input_ids"][1:]])
    assert torch.equal(store[:].ids.long(), ids)


def test_packed_rows_are_those_of_the_text_cut_by_hand(gpt2: Model, tmp_path: Path) -> None:
    store = harvest(gpt2, TEXTS, SITES, tmp_path, packing=packed(16), dtype=torch.float32, documents_per_shard=1000)
    flow: list[int] = []
    for text in TEXTS:
        flow += gpt2.tokenizer(text)["input_ids"] if text else []
    by_hand = []
    while flow:
        row = flow[:16] if flow[0] == BOS else [BOS, *flow[:15]]
        flow = flow[len(row) - (flow[0] != BOS) :]
        by_hand.append(row)
    for site in SITES:
        torch.testing.assert_close(store[:][site], rows_of(gpt2, by_hand, site), atol=1e-5, rtol=1e-4)
    assert store[:].ids.tolist() == [id for row in by_hand for id in row if id != BOS]
    assert torch.equal(store.documents.diff(), torch.tensor([len(text) for text in TEXTS]))


def test_a_document_of_token_ids_is_packed_with_one_bos(gpt2: Model) -> None:
    with_bos = [[BOS, 1, 2, 3], [BOS, 4, 5]]
    without = [row[1:] for row in with_bos]
    rows = [packed(6).place(gpt2, documents) for documents in (with_bos, without)]
    for placed in rows:
        assert placed is not None
        assert placed.tokens.ids.tolist()[0] == [BOS, 1, 2, 3, BOS, 4]
        assert placed.tokens.ids[1][placed.tokens.mask[1]].tolist() == [BOS, 5]
        assert placed.document[placed.tokens.content].tolist() == [0, 0, 0, 1, 1]


def test_a_tokenizer_without_bos_is_packed_with_end_of_text_between(hf_model: Any, tokenizer: Any) -> None:
    import copy

    from tokenizers import processors

    from hooks import load

    bare = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    placed = packed(5).place(load(hf_model("gpt2"), bare), ["ab", "", "cdef"])
    assert placed is not None
    a, b, c, d, e, f = bare("abcdef")["input_ids"]
    assert placed.tokens.ids[placed.tokens.mask].tolist() == [a, b, BOS, c, d, e, f]
    assert placed.document[placed.tokens.content].tolist() == [0, 0, 2, 2, 2, 2]


def test_rows_without_bos_end_where_the_documents_do_however_they_fill_them(hf_model: Any, tokenizer: Any) -> None:
    from tokenizers import processors

    from hooks import load

    bare = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    model = load(hf_model("gpt2"), bare, check=False)
    for documents, lengths in ((["abcd"], [4]), (["abcdefgh"], [4, 4]), (["abc", "efgh"], [4, 4]), (["ab"], [2])):
        placed = packed(4).place(model, documents)
        assert placed is not None and placed.tokens.mask.sum(1).tolist() == lengths
    assert packed(4).place(model, ["", ""]) is None and separate(4).place(model, ["", ""]) is None


def test_ids_longer_than_the_context_are_cut_to_it_and_rows_are_of_1024_where_a_model_reads_more(
    gpt2: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = separate(3).place(gpt2, [[BOS, 1, 2, 3, 4], [5], []])
    assert cut is not None
    assert [cut.tokens.ids[i][cut.tokens.mask[i]].tolist() for i in (0, 1)] == [[BOS, 1, 2], [5]]
    assert cut.document.tolist() == [[0] * 3, [1] * 3]
    for reads in (2048, None):
        monkeypatch.setattr("hooks.store.packing.context_of", lambda _, reads=reads: reads)
        placed = packed().place(gpt2, [[*range(10)] * 150])
        assert placed is not None and placed.tokens.mask.sum(1).tolist() == [1024, 1501 - 1023]
    assert packed(8) == packed(8) != packed(9) and separate() == separate() != packed()


def test_a_text_longer_than_its_tokenizer_expects_is_packed_without_a_word_of_it(
    hf_model: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    from hooks import load

    short = copy.deepcopy(tokenizer)
    short.model_max_length = 8
    short.deprecation_warnings.clear()  # a tokenizer says so once
    model = load(hf_model("gpt2"), short, check=False)
    said = logging.getLogger("transformers")
    said.addHandler(caplog.handler)
    try:
        placed = packed(16).place(model, ["a long evening by the sea"])
        assert placed is not None and caplog.text == ""
        short("a long evening by the sea")
        assert "longer than the specified maximum" in caplog.text
    finally:
        said.removeHandler(caplog.handler)


def test_an_encoder_cannot_be_packed_and_can_be_separate(hf_model: Any, tokenizer: Any, tmp_path: Path) -> None:
    import copy

    from tokenizers import processors

    from hooks import load

    both = copy.deepcopy(tokenizer)
    both.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", BOS)]
    )
    bert = load(hf_model("bert"), both)
    with pytest.raises(ValueError, match="cannot be packed end to end: use separate()"):
        harvest(bert, ["fog"], resid_post[0], tmp_path)
    cut = harvest(bert, ["fog over the bay"], resid_post[0], tmp_path, packing=separate(6), dtype=torch.float32)
    alone = capture(bert, "fog ", resid_post[0]).flat(resid_post[0])
    torch.testing.assert_close(cut[:][resid_post[0]], alone, atol=1e-5, rtol=1e-4)


def test_padding_on_the_left_changes_nothing(
    gpt2: Model, padded_left: Callable[[Model], Model], tmp_path: Path
) -> None:
    for packing in (packed(12), separate(12)):
        right, left = (
            harvest(model, TEXTS[:12], z[1], tmp_path / f"{packing}{side}", packing=packing, dtype=torch.float32)
            for side, model in (("r", gpt2), ("l", padded_left(gpt2)))
        )
        assert torch.equal(right[:].ids, left[:].ids)
        torch.testing.assert_close(right[:][z[1]], left[:][z[1]], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_each_type_keeps_what_it_can_hold_wherever_it_is(
    gpt2: Model, dtype: torch.dtype, place: str, tmp_path: Path
) -> None:
    url = str(tmp_path) if place == "local" else f"memory://types-{dtype}"
    full = harvest(gpt2, TEXTS[:9], SITES, tmp_path / "full", dtype=torch.float32, documents_per_shard=4)
    store = ActivationStore(harvest(gpt2, TEXTS[:9], SITES, url, dtype=dtype, documents_per_shard=4).url)
    for site in SITES:
        assert torch.equal(store[:][site], full[:][site].to(dtype))
    assert torch.equal(store.documents, full.documents)
    store.verify()


def test_a_position_selects_the_rows(gpt2: Model, tmp_path: Path) -> None:
    texts = ["fog", "the bay"]
    store = harvest(gpt2, texts, attn_out[1], tmp_path, packing=separate(), at=last, dtype=torch.float32)
    expected = torch.cat([capture(gpt2, text, attn_out[1]).flat(attn_out[1], at=last) for text in texts])
    torch.testing.assert_close(store[:][attn_out[1]], expected, atol=1e-5, rtol=1e-4)
    assert store.documents.tolist() == [0, 1, 2]


def test_a_place_in_a_text_means_nothing_where_a_row_holds_several(gpt2: Model, tmp_path: Path) -> None:
    for at in (last, first(2), everywhere | last, ~last):
        with pytest.raises(ValueError, match=r"selects by place in a text, and packed\(\) .*: use separate\(\)"):
            harvest(gpt2, ["fog", "the bay"], attn_out[1], tmp_path, at=at)
    fs = everywhere & tokens(gpt2.tokenizer("f")["input_ids"][-1])
    assert harvest(gpt2, ["fog", "of", "bay"], attn_out[1], tmp_path, at=fs).documents.tolist() == [0, 1, 2, 2]


def test_a_document_without_rows_at_the_end_of_a_shard_keeps_its_number(gpt2: Model, tmp_path: Path) -> None:
    fs = tokens(gpt2.tokenizer("f")["input_ids"][-1])
    store = harvest(gpt2, ["fog", "bay", "of", "sea"], attn_out[1], tmp_path, at=fs, documents_per_shard=2)
    assert store.documents.tolist() == [0, 1, 1, 2, 2]


def test_a_model_that_is_changed_is_not_harvested_under_its_name(gpt2: Model, tmp_path: Path) -> None:
    with intervene(gpt2, {resid_post[1]: scale(2.0)}):
        gpt2.run("fog")
        for work in (plan, harvest):
            with pytest.raises(
                RuntimeError, match=r"a block of interventions is open at resid_post\.1, and a store says it holds"
            ):
                work(gpt2, ["fog"], resid_post[1], tmp_path)
        with gpt2.running.at_rest():
            assert len(harvest(gpt2, ["fog"], resid_post[1], tmp_path)) == 3


def test_a_tensor_with_two_names_is_stored_once(gpt2: Model, tmp_path: Path) -> None:
    sites = [resid_post[0], resid_pre[1], resid_pre[2]]
    store = harvest(gpt2, TEXTS[:9], sites, tmp_path)
    assert torch.equal(store[:][resid_pre[1]], store[:][resid_post[0]])
    assert not torch.equal(store[:][resid_pre[2]], store[:][resid_post[0]])
    assert sorted({path.name.split(".", 1)[1] for path in tmp_path.glob("0*")}) == [
        "document.bin",
        "resid_post.0.bin",
        "resid_pre.2.bin",
        "token.bin",
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "txt"])
def test_files_give_the_store_their_texts_give(gpt2: Model, kind: str, tmp_path: Path) -> None:
    texts = [text for text in TEXTS[:30] if text]
    data, file = Dataset.from_dict({"text": texts, "other": [0] * len(texts)}), str(tmp_path / f"corpus.{kind}")
    if kind == "txt":
        Path(file).write_text("\n".join(texts), encoding="utf-8")
    else:
        _ = data.to_parquet(file) if kind == "parquet" else data.to_json(file)
    assert count(file) == len(texts)
    from_file = harvest(gpt2, open_dataset(file), SITES, tmp_path / "file", documents_per_shard=8)
    harvest(gpt2, texts, SITES, tmp_path / "texts", documents_per_shard=8)
    assert files(tmp_path / "file") == files(tmp_path / "texts")
    assert len(from_file) == sum(map(len, texts))


def test_documents_are_counted_where_every_file_says_how_many_it_holds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fog\nbay\n")
    (tmp_path / "b.jsonl").write_text('{"text": "fog"}\n' * 3)
    assert count(tmp_path / "a.txt") == 2 and count(tmp_path / "*") == 5 and count(tmp_path / "*.parquet") is None
    (tmp_path / "c.csv").write_text("text\nfog\n")
    assert count(tmp_path / "*") is None and count(tmp_path / "c.csv") is None and count(tmp_path / "none.txt") is None
    for name in ("one.png", "TWO.JPG"):
        (tmp_path / "drawn").mkdir(exist_ok=True)
        (tmp_path / "drawn" / name).touch()
    assert count(tmp_path / "drawn") == count(tmp_path / "drawn" / "*") == 2
    (tmp_path / "drawn" / "names.txt").write_text("fog\n")
    assert count(tmp_path / "drawn") is None  # what a folder of several kinds gives is not known


def test_a_file_and_a_folder_are_read_as_streams(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fog\nbay\n")
    for source in (tmp_path / "a.txt", tmp_path, tmp_path / "*.txt"):
        stream = open_dataset(source)
        assert isinstance(stream, datasets.IterableDataset) and [row["text"] for row in stream] == ["fog", "bay"]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("sources", [None, 1, 2, 3, 7])
def test_blocks_are_the_same_however_many_processes_share_them_and_each_is_of_one(
    gpt2: Model, sources: int | None, world: int
) -> None:
    texts = [f"text {number}" for number in range(23)]
    data = Dataset.from_dict({"text": texts})
    given: Any = data if sources is None else data.to_iterable_dataset(num_shards=sources)
    shares = [[*document_blocks(given, 4, Process(rank, world), gpt2)] for rank in range(world)]
    blocks = sorted((block for share in shares for block in share), key=lambda block: block.name)
    names = [block.name for block in blocks]
    assert len({*names}) == len(names)
    expected: list[tuple[str, list[str]]] = []
    for source in range(sources or 1):
        mine: Any = data if sources is None else data.shard(sources, source, contiguous=True)
        parts = [mine["text"][i : i + 4] for i in range(0, len(mine), 4)]
        expected += [(f"{source:05}-{number:06}", part) for number, part in enumerate(parts)]
    assert [(block.name, block.read()) for block in blocks] == expected
    assert [block.number for block in blocks] == [int(name.split("-")[1]) for name in names]
    if (sources or 1) < world:
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("size", "n"), [(10, 4), (10, 3), (7, 7), (3, 8), (9, 1), (100, 64)])
def test_a_sample_is_spread_evenly_over_data_that_have_a_length_and_is_the_beginning_of_a_stream(
    gpt2: Model, size: int, n: int
) -> None:
    texts = [f"text {number}" for number in range(size)]
    data = Dataset.from_dict({"text": texts})
    spread_out = [texts[place] for place in ([size * i // n for i in range(n)] if n < size else range(size))]
    assert sample(as_dataset(data), n, gpt2) == spread_out
    assert sample(data.to_iterable_dataset(), n, gpt2) == texts[:n]


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus.pdf").write_text("fog")
    with pytest.raises(ValueError, match=r"ends in '\.pdf', and what is read ends in"):
        open_dataset(tmp_path / "corpus.pdf")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="it is no file, and no data set the Hugging Face hub gave"):
        open_dataset(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def clean(gpt2: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, float]]:
    """A store harvested without disturbance, and the seconds it took."""
    folder = tmp_path_factory.mktemp("clean")
    work(gpt2, folder / "warm")
    shutil.rmtree(folder / "warm")
    began = time.perf_counter()
    work(gpt2, folder)
    yield folder, time.perf_counter() - began


def work(model: Model, folder: Path) -> None:
    harvest(model, TEXTS, SITES, folder, packing=packed(24), batch_size=4, documents_per_shard=2)


@forked
def test_a_harvest_killed_at_twenty_random_moments_loses_and_doubles_nothing(
    gpt2: Model, clean: tuple[Path, float], tmp_path: Path
) -> None:
    whole, seconds = files(clean[0]), clean[1]
    moments, killed, torn, folder = random.Random(0), 0, 0, tmp_path / "store"
    while killed < 20:
        begun = multiprocessing.get_context("fork").Event()
        process = start(lambda begun=begun: (begun.set(), work(gpt2, folder)))
        assert begun.wait(60)  # a fork may take longer than the harvest
        process.join(moments.uniform(0, seconds / 2))
        if process.is_alive():
            process.kill()
            killed += 1
        process.join()
        left = files(folder)
        torn += any(name.endswith(".partial") for name in left)
        assert all(whole[name] == data for name, data in left.items() if name.endswith(".bin"))
        if left == whole:  # it finished before it could be killed: begin again
            shutil.rmtree(folder)
        elif "manifest.json" not in left:
            with pytest.raises(FileNotFoundError, match="no manifest.json"):
                ActivationStore(folder)
    assert torn > 5
    work(gpt2, folder)
    assert files(folder) == whole


@forked
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("streamed", [False, True])
def test_any_number_of_processes_make_the_same_store(
    gpt2: Model, processes: int, streamed: bool, tmp_path: Path
) -> None:
    def share(folder: Path) -> None:
        data = Dataset.from_dict({"text": TEXTS})
        some = data.to_iterable_dataset(num_shards=3) if streamed else data
        harvest(gpt2, some, SITES, folder, packing=packed(24), documents_per_shard=7)

    share(tmp_path / "one")
    do_in_processes(lambda: share(tmp_path / "many"), processes)
    assert files(tmp_path / "many") == files(tmp_path / "one")


def test_two_harvests_at_once_do_not_write_to_one_place(gpt2: Model, clean: tuple[Path, float], tmp_path: Path) -> None:
    message: list[str] = []

    def again(_: str) -> None:
        with pytest.raises(RuntimeError, match="another harvest is writing to .*: wait until it ends, or take"):
            work(gpt2, tmp_path / "store")
        message.append("refused")

    harvest(gpt2, TEXTS, SITES, tmp_path / "store", packing=packed(24), batch_size=4, documents_per_shard=2, tell=again)
    work(gpt2, tmp_path / "store")
    assert message == ["refused"]
    assert files(tmp_path / "store") == files(clean[0])


def test_a_finished_harvest_run_again_changes_nothing(gpt2: Model, clean: tuple[Path, float], tmp_path: Path) -> None:
    shutil.copytree(clean[0], tmp_path / "again")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("*.bin")}
    work(gpt2, tmp_path / "again")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("*.bin")} == stamps
    assert files(tmp_path / "again") == files(clean[0])


def test_a_lost_shard_alone_is_made_again(gpt2: Model, clean: tuple[Path, float], tmp_path: Path) -> None:
    shutil.copytree(clean[0], tmp_path / "lost")
    for path in (tmp_path / "lost").glob("00000-000007*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"is missing, where .* shard 00000-000007 of the store at"):
        ActivationStore(tmp_path / "lost")
    work(gpt2, tmp_path / "lost")
    assert files(tmp_path / "lost") == files(clean[0])


@pytest.mark.parametrize("column", ["token", "document", "mlp_act.0"])
def test_a_shard_that_lost_one_file_or_its_end_is_made_again(
    gpt2: Model, clean: tuple[Path, float], column: str, tmp_path: Path
) -> None:
    for cut in (None, 4):
        folder = tmp_path / f"lost {cut}"
        shutil.copytree(clean[0], folder)
        file = folder / f"00000-000007.{column}.bin"
        kept = file.read_bytes()
        file.unlink() if cut is None else file.write_bytes(kept[:-cut])
        work(gpt2, folder)
        assert files(folder) == files(clean[0])


def test_a_store_is_that_of_the_documents_given_last_where_those_it_holds_are_of_them(
    gpt2: Model, tmp_path: Path
) -> None:
    def write(texts: list[str], name: str) -> dict[str, bytes]:
        harvest(gpt2, texts, [resid_post[1]], tmp_path / name, documents_per_shard=2)
        return files(tmp_path / name)

    few, many = write(FOGGY[:8], "few"), write(FOGGY, "many")
    shutil.copytree(tmp_path / "few", tmp_path / "grown")
    assert write(FOGGY, "grown") == many
    with pytest.raises(WrongModel, match="it has shards that these data have not"):
        write(FOGGY[:8], "grown")
    for lost in (*(tmp_path / "grown").glob("00000-000004*"), *(tmp_path / "grown").glob("00000-000005*")):
        lost.unlink()
    assert write(FOGGY[:8], "grown") == few


def test_records_that_a_kill_left_next_to_the_manifest_are_removed(gpt2: Model, tmp_path: Path) -> None:
    store = harvest(gpt2, FOGGY, [resid_post[1]], tmp_path / "s", documents_per_shard=2)
    before = files(tmp_path / "s")
    record_shard(Folder(tmp_path / "s"), store.manifest.shards[4])
    assert files(tmp_path / "s") != before
    harvest(gpt2, FOGGY, [resid_post[1]], tmp_path / "s", documents_per_shard=2)
    assert files(tmp_path / "s") == before


def test_documents_without_tokens_are_a_shard_without_rows(gpt2: Model, tmp_path: Path) -> None:
    texts = ["fog", "bay", "", "", "sea", "hill"]
    store = harvest(gpt2, texts, [resid_post[1]], tmp_path / "s", documents_per_shard=2, dtype=torch.float32)
    assert store.documents.tolist() == [0, 3, 6, 6, 6, 9, 13]
    store.verify()
    full = harvest(gpt2, [text for text in texts if text], [resid_post[1]], tmp_path / "f", dtype=torch.float32)
    assert torch.equal(store[:].ids, full[:].ids)


def test_a_store_is_not_gone_on_with_under_another_tokenizer_or_on_documents_that_only_begin_alike(
    gpt2: Model, hf_model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from hooks import load

    said = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = said["model"]["vocab"]
    vocabulary["f"], vocabulary["o"] = vocabulary["o"], vocabulary["f"]
    end = tokenizer.eos_token
    inner = Tokenizer.from_str(json.dumps(said))
    other = load(hf_model("gpt2"), PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=end, eos_token=end))
    texts = ["of the fog", "of the bay", "of a hill"]
    settings: dict[str, Any] = {"documents_per_shard": 1, "packing": separate(6)}
    harvest(gpt2, texts, [resid_post[1]], tmp_path / "cut", **settings)
    with pytest.raises(WrongModel, match=r"the documents of its shard 00000-000000 are others"):
        harvest(other, texts, [resid_post[1]], tmp_path / "cut", **settings)
    with pytest.raises(WrongModel, match=r"the documents of its shard 00000-000000 are others"):
        harvest(gpt2, ["of the sea", *texts[1:]], [resid_post[1]], tmp_path / "cut", **settings)
    assert len(harvest(gpt2, texts, [resid_post[1]], tmp_path / "cut", **settings).documents) == 4


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["another beginning", *TEXTS[1:]], "the documents of its shard 00000-000000 are others"),
        ([*TEXTS[:-1], "another end"], "the documents of its shard 00000-000044 are others"),
        (TEXTS[:40], "it has shards that these data have not"),
    ],
)
def test_a_store_is_not_gone_on_with_on_other_data(
    gpt2: Model, clean: tuple[Path, float], texts: list[str], message: str, tmp_path: Path
) -> None:
    shutil.copytree(clean[0], tmp_path / "other")
    with pytest.raises(ValueError, match=message):
        harvest(gpt2, texts, SITES, tmp_path / "other", packing=packed(24), batch_size=4, documents_per_shard=2)
    assert files(tmp_path / "other") == files(clean[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": torch.float32}, "dtype 'float16' and not 'float32'"),
        ({"packing": packed(12)}, r"packing 'packed\(24\)' and not 'packed\(12\)'"),
        ({"at": tokens(5)}, r"at 'everywhere' and not 'tokens\(\[5\]\)'"),
        ({"documents_per_shard": 3}, "documents_per_shard 2 and not 3"),
    ],
)
def test_a_store_is_not_gone_on_with_in_another_way(
    gpt2: Model, clean: tuple[Path, float], change: dict[str, Any], message: str
) -> None:
    settings = {"packing": packed(24), "batch_size": 4, "documents_per_shard": 2} | change
    with pytest.raises(ValueError, match=message):
        harvest(gpt2, TEXTS, SITES, clean[0], **settings)


def test_a_store_is_not_gone_on_with_by_another_model(fresh: Callable[..., Model], clean: tuple[Path, float]) -> None:
    with pytest.raises(ValueError, match="was begun with fingerprint"):
        work(fresh("gpt2", seed=1), clean[0])


def test_the_plan_of_few_documents_is_what_comes(gpt2: Model, tmp_path: Path) -> None:
    texts, message = TEXTS[:60], []
    planned = plan(gpt2, texts, SITES, tmp_path, packing=packed(24))
    store = harvest(gpt2, texts, SITES, tmp_path, packing=packed(24), tell=message.append)
    assert planned.tokens == len(store)
    assert planned.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.bin")) - 8
    assert message[0].startswith(f"to {tmp_path}: about {len(store):,} tokens of 60 documents, 234 kB, ")
    assert planned.seconds is not None and planned.free is not None
    assert planned.seconds == pytest.approx(len(store) / planned.tokens_per_second)


def test_the_plan_of_a_sample_is_near_what_comes(gpt2: Model) -> None:
    texts = TEXTS * 20
    planned = plan(gpt2, texts, SITES, "memory://planned", packing=packed(24))
    assert planned.tokens == pytest.approx(sum(map(len, texts)), rel=0.25)
    assert planned.free is None


def test_the_plan_looks_at_64_documents_and_times_one_batch_after_a_row_to_warm_up(
    gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Dataset.from_dict({"text": ["fog"] * 64 + ["a long evening"] * 36}).to_iterable_dataset()
    clock, rows = iter([100.0, 104.0]), list[int]()
    monkeypatch.setattr(sys.modules["hooks.store.plan"], "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    handle = gpt2.hf.register_forward_pre_hook(
        lambda _, args, given: rows.append(len(given.get("input_ids", *args))), with_kwargs=True
    )
    try:
        planned = plan(gpt2, stream, SITES, tmp_path, packing=separate(), batch_size=20)
    finally:
        handle.remove()
    assert planned.tokens_per_document == 3.0
    assert rows == [1, 20] and planned.tokens_per_second == 20 * 3 / 4.0


@pytest.mark.parametrize(
    ("world", "rank", "asked", "shown"),
    [(1, 0, True, True), (1, 0, False, False), (3, 0, True, True), (3, 1, True, False)],
)
def test_a_bar_shows_the_share_of_the_first_process_and_what_is_there_already(
    world: int, rank: int, asked: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hooks.store.harvest import _bar
    from hooks.store.plan import Plan

    given: dict[str, Any] = {}
    monkeypatch.setattr(sys.modules["hooks.store.harvest"], "progress_bar", lambda **said: given.update(said))
    numbers = Plan("store", 30, 20.0, 10, 25.0, world, 120, None)
    _bar(numbers, Process(rank, world), asked)
    assert (given["total"], given["initial"], given["progress"]) == (600 // world, 120 // world, shown)
    assert given["desc"] == ("harvest" if world == 1 else "harvest, process 1 of 3") and given["unit_scale"]
    _bar(dataclasses.replace(numbers, documents=None), Process(rank, world), asked)
    assert given["total"] is None


def test_a_stream_has_no_length_unless_it_is_given(gpt2: Model, tmp_path: Path) -> None:
    stream = Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()
    unknown = plan(gpt2, stream, SITES, tmp_path)
    assert unknown.tokens is None and unknown.seconds is None
    assert "a stream of unknown length" in str(unknown)
    assert plan(gpt2, stream, SITES, tmp_path, documents=90).tokens is not None


def test_what_does_not_fit_is_refused_before_anything_is_written(
    gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = plan(gpt2, TEXTS[:60], SITES, tmp_path).bytes
    assert needed is not None
    monkeypatch.setattr("hooks.store.folder.Folder.free", lambda _: needed - 1)
    with pytest.raises(OSError, match="do not fit on the disk of"):
        harvest(gpt2, TEXTS[:60], SITES, tmp_path)
    assert [*tmp_path.glob("*.bin")] == []
    monkeypatch.setattr("hooks.store.folder.Folder.free", lambda _: needed + 8)
    assert len(harvest(gpt2, TEXTS[:60], SITES, tmp_path))


def test_a_stream_stops_before_the_shard_that_does_not_fit(
    gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()
    monkeypatch.setattr(
        "hooks.store.folder.Folder.free",
        lambda _: 100_000 - size(tmp_path),
    )
    with pytest.raises(OSError, match="do not fit on the disk of"):
        harvest(gpt2, stream, SITES, tmp_path, documents_per_shard=4)
    buffered = 4 * 8192  # what the files of an open shard may not have given to the disk yet
    assert 50_000 < size(tmp_path) <= 100_000 + buffered


def test_a_value_the_type_cannot_hold_is_refused(fresh: Callable[..., Model], tmp_path: Path) -> None:
    model = fresh("gpt2")
    with torch.no_grad():
        model.module(mlp_act[1]).get_parameter("bias").fill_(1e5)
    with pytest.raises(ValueError, match=r"resid_post\.1 is as large as 1\d+ at 'f', and torch\.float16 ends at 65504"):
        harvest(model, ["fog"], resid_post[1], tmp_path / "half")
    assert len(harvest(model, ["fog"], resid_post[1], tmp_path / "brain", dtype=torch.bfloat16)) == 3
    with torch.no_grad():
        model.module(mlp_act[1]).get_parameter("bias").fill_(float("nan"))
    with pytest.raises(ValueError, match=r"resid_post\.1 holds NaN or infinity at 'f'"):
        harvest(model, ["fog"], resid_post[1], tmp_path / "nan", dtype=torch.float32)


@pytest.mark.parametrize(
    ("number", "dtype", "said"),
    [
        (1e6, torch.float16, r"resid_post\.1 is as large as 1e\+06 at 'g', and torch\.float16 ends at 65504"),
        (float("nan"), torch.float32, r"resid_post\.1 holds NaN or infinity at 'g': load the model in float32"),
        (float("inf"), torch.float32, r"resid_post\.1 holds NaN or infinity at 'g': load the model in float32"),
    ],
)
def test_one_value_the_type_cannot_hold_is_refused_with_its_token(
    gpt2: Model, number: float, dtype: torch.dtype, said: str, tmp_path: Path
) -> None:
    def put(_: object, __: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[-1, 3, 5] = number
        return output

    handle = gpt2.module(resid_post[1]).register_forward_hook(put)
    try:
        with pytest.raises(ValueError, match=said):
            harvest(gpt2, ["bay", "fog"], resid_post[1], tmp_path, dtype=dtype, packing=separate())
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("fog", "got str: open_dataset"),
        ([], "got list: open_dataset"),
        ([1, 2], "got list: open_dataset"),
        (3, "got int: open_dataset"),
        (Dataset.from_dict({"words": ["fog"]}), r"columns \['words'\], expected 'input_ids' or 'text'"),
        (Dataset.from_dict({"text": []}), "got no documents: the dataset is empty"),
        (["", ""], "have no tokens: give documents with text"),
    ],
)
def test_data_that_are_no_documents_are_refused(gpt2: Model, data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        harvest(gpt2, data, SITES, tmp_path)


@pytest.mark.parametrize(
    ("sites", "options", "message"),
    [
        (pattern[0], {}, "has a width that depends on the text"),
        ("resid_pots.0", {}, "no site is called 'resid_pots.0'"),
        (logits, {"dtype": torch.float64}, "a store holds float32, float16, bfloat16, got torch.float64"),
        (logits, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (logits, {"packing": packed(97)}, "do not fit into the context of 96"),
        (logits, {"packing": packed(1)}, "leaves no room for text after 1 special tokens"),
    ],
)
def test_wrong_names_and_numbers_never_run(
    gpt2: Model, sites: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        harvest(gpt2, ["fog"], sites, tmp_path, **options)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("column", ["text", "input_ids"])
@pytest.mark.parametrize("packing", [packed(), separate()], ids=repr)
def test_null_documents_have_no_rows_and_keep_their_number(
    column: str, packing: Any, gpt2: Model, tmp_path: Path
) -> None:
    documents = {"text": ["fog", None, "bay", None], "input_ids": [[BOS, 5, 6, 7], None, [BOS, 8, 9, 10], None]}
    data = as_dataset(Dataset.from_dict({column: documents[column]}))
    store = harvest_function(gpt2, data, SITES, tmp_path, packing=packing)
    assert store.documents.tolist() == [0, 3, 3, 6, 6]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("masked", [True, False], ids=["by a mask", "by its own token"])
def test_a_data_set_padded_beforehand_is_read_without_its_padding(
    masked: bool, side: str, fresh: Callable[..., Model], tmp_path: Path
) -> None:
    import copy

    model, texts = fresh("llama"), ["fog over the bay", "a b"]
    model.tokenizer = copy.deepcopy(model.tokenizer)
    model.tokenizer.pad_token = model.tokenizer.eos_token if masked else "!"
    padded = dict(model.tokenizer(texts, padding=True, padding_side=side))
    data = Dataset.from_dict(padded if masked else {"input_ids": padded["input_ids"]})
    got, expected = (capture(model, one, SITES) for one in (data, texts))
    for site in SITES:
        torch.testing.assert_close(got.flat(site), expected.flat(site), atol=1e-5, rtol=1e-4)
    for packing in (packed(16), separate()):
        stores = [
            harvest(model, one, SITES, tmp_path / f"{packing}{n}", packing=packing, dtype=torch.float32)
            for n, one in enumerate((data, texts))
        ]
        assert torch.equal(stores[0].documents, stores[1].documents)
        assert torch.equal(stores[0][:].ids, stores[1][:].ids)


FOGGY = [f"Fog, day {i}." for i in range(12)]


def test_one_other_text_anywhere_in_a_finished_store_is_found(gpt2: Model, tmp_path: Path) -> None:
    harvest(gpt2, FOGGY, [resid_post[1]], tmp_path / "s", documents_per_shard=2)
    for place in range(len(FOGGY)):
        other = [*FOGGY[:place], "Sun.", *FOGGY[place + 1 :]]
        with pytest.raises(WrongModel, match=f"the documents of its shard 00000-{place // 2:06} are others"):
            harvest(gpt2, other, [resid_post[1]], tmp_path / "s", documents_per_shard=2)


def test_a_finished_store_is_opened_by_its_harvest_without_writing(
    gpt2: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is read only."""
    made = harvest(gpt2, FOGGY, [resid_post[1]], tmp_path / "s", documents_per_shard=2)

    def refuse(*_: Any) -> Any:
        raise OSError("read-only file system")

    for name in ("lock", "open_to_write", "write_text", "remove"):
        monkeypatch.setattr(Folder, name, refuse)
    again = harvest(gpt2, FOGGY, [resid_post[1]], tmp_path / "s", documents_per_shard=2)
    assert torch.equal(again[:][resid_post[1]], made[:][resid_post[1]])


def test_weights_changed_since_are_not_mixed_into_a_store(fresh: Callable[..., Model], tmp_path: Path) -> None:
    model = fresh("gpt2")

    def change() -> None:
        with torch.no_grad():
            next(model.hf.parameters()).mul_(1.01)

    def texts() -> Any:
        for number, text in enumerate(FOGGY):
            if number == 8:
                change()
            yield number, {"text": text}

    stream = datasets.IterableDataset(ExamplesIterable(texts, {}))  # `from_generator` would pickle the model
    with pytest.raises(WrongModel, match="were changed while it was harvested"):
        harvest(model, stream, [resid_post[1]], tmp_path / "s", documents_per_shard=2)
    whole = sorted(file.name for file in (tmp_path / "s").glob("*.json"))
    assert whole == [*(f"00000-{number:06}.json" for number in range(4)), "settings.json"]  # those before the change
    change()
    with pytest.raises(WrongModel, match="was begun with fingerprint"):
        harvest(model, FOGGY, [resid_post[1]], tmp_path / "s", documents_per_shard=2)


def test_shards_of_weights_changed_where_torch_keeps_no_count_are_given_up(
    fresh: Callable[..., Model], tmp_path: Path
) -> None:
    model = fresh("gpt2")
    number = model.hf.transformer.wte.weight.data[11]
    begun = number.clone()

    def texts() -> Any:
        begun.copy_(number)  # of the last reading: the first is a look at what the stream holds
        for i, text in enumerate(FOGGY):
            if i == 4:
                number.add_(1e-2)
            yield i, {"text": text}

    stream = datasets.IterableDataset(ExamplesIterable(texts, {}))
    with pytest.raises(WrongModel, match="were changed while it was harvested"):
        harvest(model, stream, [resid_post[1]], tmp_path / "s", documents_per_shard=2)
    number.copy_(begun)
    again = harvest(model, FOGGY, [resid_post[1]], tmp_path / "s", documents_per_shard=2)
    right = harvest(model, FOGGY, [resid_post[1]], tmp_path / "right", documents_per_shard=2)
    assert torch.equal(again[:][resid_post[1]], right[:][resid_post[1]])


def test_a_shard_truncated_while_the_store_is_open_is_an_error_and_not_the_end_of_the_process(
    gpt2: Model, tmp_path: Path
) -> None:
    store = harvest(gpt2, FOGGY, [resid_post[1]], tmp_path / "s")
    store[0]
    file = next((tmp_path / "s").glob("*.resid_post.1.bin"))
    os.truncate(file, 10)
    for read in (lambda: store[torch.tensor([len(store) - 1])], lambda: store.chunk(0, store.sites), store.verify):
        with pytest.raises(DamagedFile, match=r"00000-000000\.resid_post\.1\.bin"):
            read()


def test_a_manifest_that_claims_more_rows_than_its_files_hold_is_refused_at_once(gpt2: Model, tmp_path: Path) -> None:
    harvest(gpt2, FOGGY, [resid_post[1]], tmp_path / "s")
    folder = Folder(tmp_path / "s")
    manifest = Manifest.read(folder)
    shard = dataclasses.replace(manifest.shards[0], rows=10**15)
    Manifest.of(manifest.settings, [shard]).write(folder)
    with pytest.raises(DamagedFile, match=r"is \d+ bytes long, where .* were written|is [\d,]+ bytes long, where"):
        ActivationStore(tmp_path / "s")


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("s3://bucket/store", MissingExtra, r"'s3://bucket/store' is reached by a package .*s3fs"),
        ("nope://bucket", InvalidArgument, "is no URL that fsspec can reach .*give a folder, or a URL such as"),
        ("github://store", InvalidArgument, "is no URL that fsspec can reach .*'org' and 'repo'"),
        ("zip://none.zip", InvalidArgument, "'zip://none.zip' names no folder and no archive that is there"),
        (
            "hdfs://nowhere/x",
            (NotReachable, MissingExtra),
            "'hdfs://nowhere/x' (does not answer|is reached)",
        ),
        ("reference://x", InvalidArgument, "is no URL that fsspec can reach"),
    ],
)
def test_a_url_that_nothing_here_reaches_is_refused_with_the_package_that_would(
    url: str, kind: type[Exception] | tuple[type[Exception], ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(kind, match=said):
        Folder(url)


@pytest.mark.parametrize("call", ["_open", "cat_file", "isdir"])
def test_what_a_client_of_an_object_store_raises_is_said_as_a_store_that_does_not_answer(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class EndpointConnectionError(Exception):
        """As botocore's: no OSError."""

    def fail(*_: object, **__: object) -> None:
        raise EndpointConnectionError("Could not connect to the endpoint")

    EndpointConnectionError.__module__ = "botocore.exceptions"
    folder = Folder("memory://unplugged")
    folder.write_text("note", "fog")
    monkeypatch.setattr(MemoryFileSystem, call, fail)
    use = {"_open": lambda: folder.write_text("note", "sea"), "cat_file": lambda: folder.read_text("note")}
    with pytest.raises(NotReachable, match="'memory://unplugged' does not answer .*Could not connect"):
        use.get(call, folder.sizes)()


@pytest.mark.parametrize("fails", ["a pass", "an upload"])
def test_what_was_on_its_way_when_a_harvest_ended_never_arrives_and_is_not_sent_again(fails: str, gpt2: Model) -> None:
    bucket = open_bucket(breaks_after=6 if fails == "an upload" else 10**9)
    passes = iter(range(100))

    def fail(*_: object) -> None:
        if fails == "a pass" and next(passes) == 6:
            raise ArithmeticError("a pass failed")

    handle = gpt2.hf.register_forward_pre_hook(fail)
    try:
        with pytest.raises(ArithmeticError if fails == "a pass" else OSError):
            harvest(gpt2, TEXTS, SITES, "bucket://store", packing=packed(24), batch_size=4, documents_per_shard=2)
    finally:
        handle.remove()
    assert bucket.opened and all(file.closed for file in bucket.opened), "one is left that sends again when collected"
    assert len(bucket.arrived) < len(bucket.opened)
    assert "/store/manifest.json" not in bucket.arrived


def test_places_of_a_file_are_read_from_an_object_store_as_from_a_disk(gpt2: Model, tmp_path: Path) -> None:
    open_bucket(breaks_after=10**9)
    for where in ("bucket://read", str(tmp_path / "read")):
        harvest(gpt2, TEXTS, SITES, where, packing=packed(24), batch_size=4, documents_per_shard=2)
    there, here = ActivationStore("bucket://read"), ActivationStore(tmp_path / "read")
    there.verify()
    for order in (torch.arange(len(here)).flip(0), torch.tensor([5, 3])):  # whole chunks, and rows one by one
        assert all(torch.equal(there[order][site], here[order][site]) for site in here.sites)
