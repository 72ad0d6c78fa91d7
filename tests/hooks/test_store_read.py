"""What is read from a store is what was written, each row once however shuffled, or an error that names the shard."""

import io
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks.errors import DamagedFile
from hooks.site import mlp_act, resid_post, resid_pre
from hooks.store import ActivationStore, ShuffledRows, to_dataset
from hooks.store.folder import Folder
from hooks.store.manifest import CHUNK, Manifest, Settings, Shard, entry_bytes, finish, settle
from hooks.store.shard import ShardWriter, token_checksums
from hooks.store.shuffle import mix_rows, prefetch

ROWS = (3 * CHUNK + 100, 0, 500, 2 * CHUNK)
SITE, PAIR = resid_post[1], mlp_act[0]


def planted(url: str, dtype: torch.dtype = torch.float32) -> ActivationStore:
    """A store of shards of uneven length whose values, tokens and documents follow from the number of the row."""
    settings = Settings(
        model="planted",
        fingerprint="f",
        sites={str(SITE): [3], str(PAIR): [2, 2], str(resid_pre[2]): [3]},
        same_as={str(resid_pre[2]): str(SITE)},
        dtype=str(dtype).removeprefix("torch."),
        packing="packed()",
        at="everywhere",
        documents_per_shard=2,
    )
    folder, first, shards = Folder(url), 0, []
    for number, rows in enumerate(ROWS):
        writer = ShardWriter(folder, f"00000-{number:06}", entry_bytes(settings))
        for part in torch.arange(first, first + rows).split(1000):
            for site in (SITE, PAIR):
                writer.add(str(site), values(site, part, dtype))
            writer.add("token", token(part))
        writer.add("document", torch.tensor([0, rows // 2, rows]))
        shards.append(writer.seal(rows=rows, documents=2, read=""))
        first += rows
    settle(folder, settings)
    finish(folder, settings, shards)
    return ActivationStore(url)


def values(site: Any, number: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    whole, rest = number // 256, number % 256  # each exact in every dtype
    if site == PAIR:
        return torch.stack([rest, whole, whole, rest], 1).view(-1, 2, 2).to(dtype)
    return torch.stack([whole, rest, -whole], 1).to(dtype)


def token(number: Tensor) -> Tensor:
    return (number * 7 % 50_000).int()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return planted(str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def copy(store: ActivationStore, tmp_path: Path) -> Path:
    """A copy of the store, to be damaged."""
    return Path(shutil.copytree(store.url, tmp_path / "copy"))


def test_rows_in_order_are_those_written(store: ActivationStore) -> None:
    assert len(store) == sum(ROWS)
    number = torch.arange(len(store))
    parts = [*store.chunks([SITE, PAIR])]
    assert max(map(len, parts)) == CHUNK
    for site in (SITE, PAIR):
        assert torch.equal(torch.cat([rows[site] for rows in parts]), values(site, number))
    assert torch.equal(torch.cat([rows.ids for rows in parts]), token(number))
    assert torch.equal(torch.cat([rows.number for rows in parts]), number)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_random_rows_are_those_written(dtype: torch.dtype, place: str, tmp_path: Path) -> None:
    store = planted(str(tmp_path) if place == "local" else f"memory://read-{dtype}", dtype)
    number = torch.randint(len(store), (3000,), generator=torch.Generator().manual_seed(0))
    rows = store[number]
    for site in (SITE, PAIR):
        assert torch.equal(rows[site], values(site, number, dtype))
    assert torch.equal(rows[resid_pre[2]], rows[SITE])
    assert torch.equal(rows.ids, token(number))


def test_few_rows_of_a_chunk_that_was_checked_are_read_by_themselves_and_more_than_one_in_64_with_all_of_it(
    store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, whole, single = ActivationStore(store.url).columns, list[int](), list[int]()
    read, read_places = Folder.read, Folder.read_places

    def count_whole(folder: Folder, name: str, start: int, stop: int) -> Any:
        whole.append(stop - start)
        return read(folder, name, start, stop)

    def count_single(folder: Folder, name: str, starts: list[int], width: int) -> Any:
        single.append(len(starts))
        return read_places(folder, name, starts, width)

    monkeypatch.setattr(Folder, "read", count_whole)
    monkeypatch.setattr(Folder, "read_places", count_single)
    for first in (0, CHUNK, 3 * CHUNK + 600):  # the last in the second chunk but one of a later shard
        for rows, expected in ((1, ([4 * CHUNK], [])), (1, ([], [1])), (128, ([], [128])), (129, ([4 * CHUNK], []))):
            number = torch.arange(first, first + rows)
            assert torch.equal(columns.gather("token", number), token(number))
            assert (whole, single) == expected, (first, rows)
            whole.clear(), single.clear()


def test_rows_read_again_one_by_one_are_those_of_their_chunk_and_shard(store: ActivationStore) -> None:
    again = ActivationStore(store.url)
    number = torch.tensor([2 * CHUNK + 5, 3 * CHUNK + 17, len(store) - 3, 4, CHUNK, len(store) - CHUNK - 1])
    for _ in range(2):
        rows = again[number]
        assert torch.equal(rows.ids, token(number))
        assert all(torch.equal(rows[site], values(site, number)) for site in (SITE, PAIR))


def test_a_chunk_without_a_checksum_is_none_that_was_written(copy: Path) -> None:
    folder = Folder(copy)
    manifest = Manifest.read(folder)
    first = manifest.shards[0]
    few = replace(first, checksums={**first.checksums, "token": first.checksums["token"][:3]})
    Manifest.of(manifest.settings, [few, *manifest.shards[1:]]).write(folder)
    store = ActivationStore(copy)
    assert torch.equal(store.chunk(2, SITE).ids, token(torch.arange(2 * CHUNK, 3 * CHUNK)))
    with pytest.raises(DamagedFile, match="token.bin is corrupted in entries 24576 to 24675"):
        store.chunk(3, SITE)


def test_documents_of_a_shard_may_be_more_than_the_rows_of_a_chunk() -> None:
    settings = Settings("planted", "f", {str(SITE): [1]}, {}, "float32", "packed()", "everywhere", 2 * CHUNK)
    folder, counts, shards = Folder("memory://many"), (2 * CHUNK + 3, 5), []
    for number, documents in enumerate(counts):
        writer = ShardWriter(folder, f"00000-{number:06}", entry_bytes(settings))
        writer.add(str(SITE), torch.zeros(2 * documents, 1))
        writer.add("token", torch.arange(2 * documents).int())
        writer.add("document", torch.arange(documents + 1) * 2)
        shards.append(writer.seal(rows=2 * documents, documents=documents, read=""))
    settle(folder, settings)
    finish(folder, settings, shards)
    store = ActivationStore("memory://many")
    store.verify()
    assert torch.equal(store.documents, torch.arange(sum(counts) + 1) * 2)
    for shard, documents in zip(store.manifest.shards, counts, strict=True):
        expected = token_checksums(torch.arange(2 * documents).int(), torch.arange(documents + 1) * 2)
        assert {name: list(shard.checksums[name]) for name in ("token", "document")} == expected


class Slowly(io.FileIO):
    """A file that gives a few bytes at a time."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:3])


@pytest.mark.parametrize("place", ["local", "slow", "memory"])
def test_bytes_of_a_file_are_those_from_one_place_to_another_or_to_its_end(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = Folder("memory://bytes" if place == "memory" else tmp_path), bytes(range(20))
    with folder.open_to_write("rows.bin") as file:
        file.write(data)
    if place == "slow":
        monkeypatch.setattr("hooks.store.folder.open", lambda path, mode, **_: Slowly(path, mode), raising=False)
    for start, stop in ((0, 20), (3, 17), (5, 6), (4, 4), (0, 0), (15, 40)):
        assert folder.read("rows.bin", start, stop).tobytes() == data[start:stop], (start, stop)
    if place == "local":
        assert folder.read("rows.bin", 8, 4).tobytes() == b""
        with folder.open_to_write("none.bin"):
            pass
        assert folder.map("none.bin").tobytes() == b"" and folder.map("rows.bin").tobytes() == data
    if place != "slow":
        read = folder.read_places("rows.bin", [3, 16, 0], 4)
        assert read is not None and read.tobytes() == data[3:7] + data[16:20] + data[:4]
        assert folder.read_places("rows.bin", [3, 17], 4) is None
        assert folder.sizes()["rows.bin"] == 20


def test_what_a_place_says_no_length_of_counts_as_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder("memory://lengths")
    folder.write_text("note", "fog")
    listed = [{"name": "/lengths/note", "size": 3}, {"name": "/lengths/a/b", "size": None}]
    monkeypatch.setattr(type(folder._fs), "ls", lambda *_, **__: listed)
    assert folder.sizes() == {"note": 3, "b": 0}


def test_slices_are_those_of_a_list(store: ActivationStore) -> None:
    listed = list(range(len(store)))
    for part in (slice(5), slice(-3, None), slice(CHUNK - 2, CHUNK + 2), slice(10, 4), slice(100, 0, -33)):
        assert store[part].number.tolist() == listed[part]
        assert torch.equal(store[part][SITE], values(SITE, store[part].number))


def test_a_mask_selects_the_rows_it_marks_and_numbers_are_whole(store: ActivationStore) -> None:
    mask = token(torch.arange(len(store))) % 1000 == 7
    assert store[mask].number.tolist() == mask.nonzero()[:, 0].tolist()
    assert torch.equal(store[mask][SITE], values(SITE, mask.nonzero()[:, 0]))
    assert store[3].number.tolist() == [3] and store[[5, 1]].number.tolist() == [5, 1] and len(store[[]]) == 0
    with pytest.raises(IndexError, match=rf"a mask marks all {len(store)} rows of the store .*, got 3"):
        _ = store[mask[:3]]
    with pytest.raises(TypeError, match=r"whole numbers or a bool mask, got torch\.float32: use \.long\(\)"):
        _ = store[torch.tensor([1.9, 2.7])]


def test_documents_begin_where_they_were_said_to(store: ActivationStore) -> None:
    expected, first = [], 0
    for rows in ROWS:
        expected += [first, first + rows // 2]
        first += rows
    assert store.documents.tolist() == [*expected, first]


def test_the_file_stays_as_it_is_when_what_was_read_is_changed(copy: Path) -> None:
    ActivationStore(copy).chunk(0, SITE)[SITE].zero_()
    ActivationStore(copy).verify()


def test_a_row_or_site_that_is_not_there_is_named(store: ActivationStore) -> None:
    with pytest.raises(IndexError, match=rf"rows 3 to {len(store)} were asked for, and the store at .* rows 0 to"):
        _ = store[torch.tensor([3, len(store)])]
    with pytest.raises(IndexError, match="rows -1 to 3"):
        _ = store[torch.tensor([3, -1])]
    with pytest.raises(KeyError, match=r"does not hold resid_post\.7; the nearest it holds: 'resid_post\.1'"):
        ShuffledRows(store, resid_post[7])
    with pytest.raises(KeyError, match=r"resid_post\.1 was not read from the store"):
        _ = store.chunk(0, PAIR)[SITE]
    with pytest.raises(ValueError, match="buffer must be at least 1, got 0"):
        ShuffledRows(store, SITE, buffer=0)


@pytest.mark.parametrize("column", [str(SITE), "token", "document"])
def test_one_flipped_bit_is_found_and_its_shard_named(column: str, copy: Path) -> None:
    ActivationStore(copy).verify()
    file = copy / f"00000-000003.{column}.bin"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    damaged = ActivationStore(copy)
    with pytest.raises(ValueError, match=rf"{file.name} is corrupted in entries .* shard 00000-000003 of the store at"):
        damaged.verify()
    assert torch.equal(damaged.chunk(0, SITE)[SITE], values(SITE, torch.arange(CHUNK)))
    if column != "document":
        for read in (lambda: damaged[-1:], lambda: [*damaged.chunks(SITE)], lambda: [*ShuffledRows(damaged, SITE)]):
            with pytest.raises(ValueError, match=rf"{file.name} is corrupted in entries 8192 to 16383"):
                read()
    else:
        with pytest.raises(ValueError, match="is corrupted in entries 0 to 2"):
            _ = damaged.documents


@pytest.mark.parametrize("cut", [1, 12, 10_000])
def test_a_truncated_shard_is_found_on_opening_and_named(cut: int, copy: Path) -> None:
    file = copy / f"00000-000002.{SITE}.bin"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(
        ValueError, match=rf"{file.name} is .* bytes long, where 6,000 were written: shard 00000-000002"
    ):
        ActivationStore(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "is damaged"),
        (lambda text: text.replace('"format": 2', '"format": 3'), "is of format 3, and this version reads 2"),
        (lambda text: text.replace('"float32"', '"float16"'), "is damaged"),
        (lambda text: text.replace('"rows": 1', '"rows": 9'), "is damaged"),
        (lambda _: "null", "is damaged"),
        (lambda _: "[" * 100_000, "is damaged"),
        (lambda text: text.replace('"packing"', '"pakcing"'), "is damaged"),
        (lambda text: text.replace('"name": "00000-000003"', '"name": "00000-000004"'), "is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(change: Any, said: str, copy: Path) -> None:
    manifest = copy / "manifest.json"
    manifest.write_text(change(manifest.read_text()))
    with pytest.raises(ValueError, match=said):
        ActivationStore(copy)


def test_a_folder_without_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no store at .*: no manifest.json; harvest one there first"):
        ActivationStore(tmp_path / "nowhere")


def test_equal_tokens_give_equal_data_fingerprints_and_others_do_not(store: ActivationStore) -> None:
    one, two = store, planted("memory://fingerprint", torch.bfloat16)
    assert one.manifest.data_fingerprint == two.manifest.data_fingerprint
    first = one.manifest.shards[0]
    sums = {**first.checksums, "token": ["0" * 16, *first.checksums["token"][1:]]}
    other = Shard(first.name, first.rows, first.documents, sums)
    assert (
        Manifest.of(one.manifest.settings, (other,)).data_fingerprint
        != Manifest.of(one.manifest.settings, (first,)).data_fingerprint
    )


def test_a_store_travels_to_another_process_by_its_place(store: ActivationStore) -> None:
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert torch.equal(pickle.loads(data)[:10][SITE], store[:10][SITE])


@pytest.mark.parametrize("buffer", [1, 1000, 20_000, 10**6])
def test_a_shuffled_pass_gives_each_row_once_with_all_that_belongs_to_it(store: ActivationStore, buffer: int) -> None:
    batches = [*ShuffledRows(store, [SITE, PAIR], batch_size=1000, buffer=buffer)]
    number = torch.cat([batch.number for batch in batches])
    assert torch.equal(number.sort().values, torch.arange(len(store)))
    assert {len(batch) for batch in batches[:-1]} == {1000}
    for batch in batches:
        for site in (SITE, PAIR):
            assert torch.equal(batch[site], values(site, batch.number))
        assert torch.equal(batch.ids, token(batch.number))


def test_a_seed_is_an_order_and_another_seed_another(store: ActivationStore) -> None:
    def order(seed: int) -> Tensor:
        return torch.cat([batch.number for batch in ShuffledRows(store, SITE, buffer=20_000, seed=seed)])

    assert torch.equal(order(0), order(0))
    assert (order(0) == order(1)).float().mean() < 0.01


def test_workers_share_a_pass_without_loss_or_repeat(store: ActivationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for worker in range(3):
        info = SimpleNamespace(id=worker, num_workers=3)
        monkeypatch.setattr("hooks.store.shuffle.get_worker_info", lambda info=info: info)
        seen += [batch.number for batch in ShuffledRows(store, SITE, batch_size=512, buffer=4096)]
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(store)))


def test_each_worker_mixes_in_an_order_of_its_own(store: ActivationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for worker in range(2):
        info = SimpleNamespace(id=worker, num_workers=2)
        monkeypatch.setattr("hooks.store.shuffle.get_worker_info", lambda info=info: info)
        stretch = next(iter(ShuffledRows(store, SITE, batch_size=64, buffer=64))).number
        assert torch.equal(stretch.sort().values, torch.arange(64) + stretch.min())
        orders.append(stretch - stretch.min())
    assert not torch.equal(*orders)


def test_a_data_loader_reads_it(store: ActivationStore) -> None:
    loader = torch.utils.data.DataLoader(ShuffledRows(store, SITE), batch_size=None)
    assert sum(len(batch) for batch in loader) == len(store)


WIDE, PER_BATCH, CHUNKS = 1024, 64, 64


def mixing(buffer: int, seed: int = 0) -> Tensor:
    """The order in which the numbers 0, 1, ... come out of the buffer, fed by chunks of 128 of them."""
    numbers = ({"x": part} for part in torch.arange(128 * CHUNKS).split(128))
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([b["x"] for b in mix_rows(numbers, buffer=buffer, batch_size=PER_BATCH, generator=generator)])


def unevenness(order: Tensor) -> float:
    """Variance of how many rows of each of its window's 8 chunks a batch has, over that of a random sample."""
    n, size, share = PER_BATCH, WIDE, 1 / 8
    counts = torch.stack([torch.bincount(batch // 128 % 8, minlength=8) for batch in order.split(n)]).double()
    return float((counts - n * share).pow(2).mean() / (n * share * (1 - share) * (size - n) / (size - 1)))


def test_each_stretch_of_a_buffer_is_permuted_as_a_whole() -> None:
    order = mixing(WIDE)
    for window, part in enumerate(order.split(WIDE)):
        assert torch.equal(part.sort().values, torch.arange(window * WIDE, (window + 1) * WIDE))


def test_a_batch_is_as_even_as_a_random_sample_and_a_small_buffer_is_not() -> None:
    # 1024 counts over a window's degrees of freedom: a random sample has 1, within 6 %
    assert sum(unevenness(mixing(WIDE, seed)) for seed in range(4)) / 4 == pytest.approx(1.0, abs=0.08)
    assert unevenness(mixing(128)) > 5
    assert unevenness(torch.arange(128 * CHUNKS)) > 5


def test_neighbours_come_out_a_third_of_the_buffer_apart() -> None:
    # two places drawn from n without replacement are (n + 1) / 3 apart on average
    place = mixing(WIDE).argsort().view(-1, WIDE)
    apart = (place[:, 1:] - place[:, :-1]).abs().double().mean()
    assert float(apart) == pytest.approx((WIDE + 1) / 3, rel=0.05)
    compared = mixing(128).argsort().view(-1, 128)
    assert float((compared[:, 1:] - compared[:, :-1]).abs().double().mean()) == pytest.approx(129 / 3, rel=0.05)


def test_a_buffer_as_large_as_the_store_shuffles_it_perfectly(store: ActivationStore) -> None:
    order = torch.cat(
        [batch.number for batch in ShuffledRows(store, SITE, batch_size=1000, buffer=len(store))]
    ).double()
    place = torch.arange(len(order)).double()
    assert abs(float(torch.corrcoef(torch.stack([order, place]))[0, 1])) < 4 / len(order) ** 0.5
    steps = (order[1:] - order[:-1]).abs().mean()
    assert float(steps) == pytest.approx((len(order) + 1) / 3, rel=0.02)


def test_reading_holds_no_more_than_the_buffer_and_one_chunk() -> None:
    taken = 0

    def counted() -> Iterator[dict[str, Tensor]]:
        nonlocal taken
        for part in torch.arange(100 * 128).split(128):
            taken += len(part)
            yield {"x": part}

    given = 0
    for batch in mix_rows(counted(), buffer=WIDE, batch_size=PER_BATCH, generator=torch.Generator()):
        assert taken - given <= WIDE + 128
        given += len(batch["x"])
    assert given == taken == 100 * 128


def test_prefetching_keeps_order_runs_ahead_and_passes_errors_on() -> None:
    made = []

    def items() -> Iterator[int]:
        for item in range(5):
            made.append(item)
            yield item
        raise RuntimeError("the disk is gone")

    ahead = prefetch(items(), 2)
    assert next(ahead) == 0
    while len(made) < 3:
        pass
    assert len(made) == 3
    assert [next(ahead) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(ahead)


def test_a_reader_that_stops_early_leaves_no_thread(store: ActivationStore) -> None:
    import threading

    before = threading.active_count()
    reading = iter(ShuffledRows(store, SITE))
    next(reading)
    assert threading.active_count() == before + 1
    reading.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_as_a_datasets_object_it_holds_the_same(dtype: torch.dtype, tmp_path: Path) -> None:
    store = planted(str(tmp_path), dtype)
    data = to_dataset(store, [SITE, PAIR])
    assert len(data) == len(store)
    some = [0, CHUNK, len(store) - 1]
    rows = data.with_format("torch", dtype=dtype)[some]
    assert torch.equal(rows[str(SITE)], store[torch.tensor(some)][SITE])
    assert torch.equal(rows[str(PAIR)], store[torch.tensor(some)][PAIR].flatten(1))
    assert data[some]["token"] == store[torch.tensor(some)].ids.tolist()
    assert data[some]["document"] == [0, 0, 7]


def test_a_datasets_object_of_a_store_elsewhere_holds_the_same(store: ActivationStore) -> None:
    there, here = (to_dataset(one, SITE) for one in (planted("memory://dataset"), store))
    assert there.column_names == here.column_names == [str(SITE), "token", "document"]
    assert all(there.data.column(name).equals(here.data.column(name)) for name in here.column_names)


def test_a_datasets_object_has_no_bfloat16() -> None:
    with pytest.raises(ValueError, match="a datasets object has no bfloat16, and ActivationStore"):
        to_dataset(planted("memory://brain", torch.bfloat16), SITE)
