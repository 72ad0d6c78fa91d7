"""A run that was killed goes on, and ends with the bits of one that never was."""

import json
import multiprocessing
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Model
from hooks.disk import lock
from hooks.errors import DamagedFile, WrongModel, WrongState
from hooks.site import resid_post
from interp.common.digests import StreamDigest, digest_of_data, digest_of_tensors
from interp.sae import (
    SAE,
    BatchTopK,
    Checkpoint,
    CrossLayerTranscoder,
    Gated,
    JSONLWriter,
    Member,
    Normalisation,
    Point,
    Resampling,
    Schedule,
    Source,
    TopK,
    activations_of,
    expected_norm,
    normalise_source,
    rms_scaling,
    tensor_source,
    train,
    train_many,
    whitening,
)
from tests.interp.sae.planted import activations, features

pytestmark = pytest.mark.usefixtures("unchecked")

TOKENS, BATCH = 15_000, 100
forked = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def data() -> Source:
    g = torch.Generator().manual_seed(0)
    return tensor_source(activations(features(32, 16, g), 20_000, 0.1, g))


def learn(folder: Path | None, buffer: int) -> SAE:
    sae = BatchTopK(16, 48, k=3, k_aux=4)
    options: dict[str, Any] = {"resampling": Resampling(at=(0.4,), rows=500), "dead_after": 2_000, "lr": 3e-3}
    if folder is not None:
        folder.mkdir(exist_ok=True)
        options |= {
            "checkpoint": Checkpoint(folder / "state", every=1_000),
            "callbacks": [JSONLWriter(folder / "curve.jsonl")],
        }
    train(sae, data(), tokens=TOKENS, batch_size=BATCH, buffer=buffer, seed=3, progress=False, **options)
    if folder is not None:
        torch.save(sae.state_dict(), folder / "done.partial")
        (folder / "done.partial").rename(folder / "done.pt")
    return sae


def learn_across(folder: Path | None, buffer: int) -> SAE:
    """As `learn`, of a cross-layer transcoder whose rows are normalised; `buffer` says how it keeps its latents few."""
    few = {"k": 2.4} if buffer < 10_000 else {"coefficient": 0.03, "bandwidth": 0.3}
    clt = CrossLayerTranscoder(8, 36, 3, pre_act_coefficient=1e-3, seed=1, **few)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(2)
    source = tensor_source(activations(features(40, 48, g), 6_000, 0.1, g).view(-1, 6, 8))
    options: dict[str, Any] = {"dead_after": 1_000, "lr": 3e-3, "schedule": Schedule(sparsity_warm_up=0.7)}
    if folder is not None:
        folder.mkdir(exist_ok=True)
        options["checkpoint"] = Checkpoint(folder / "state", every=1_000)
        options["callbacks"] = [JSONLWriter(folder / "curve.jsonl")]
    rows = normalise_source(source, rms_scaling(source))
    train(clt, rows, tokens=TOKENS, batch_size=BATCH, buffer=buffer, seed=3, progress=False, **options)
    if folder is not None:
        torch.save(clt.state_dict(), folder / "done.partial")
        (folder / "done.partial").rename(folder / "done.pt")
    return clt


def bits(state: dict[str, Tensor]) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in state.items()}


def kept(folder: Path) -> int:
    """The step of the checkpoint in a folder, 0 where there is none."""
    latest = folder / "state" / "latest.json"
    return json.loads(latest.read_text())["content"]["step"] if latest.exists() else 0


@forked
@pytest.mark.parametrize("learn", [learn, learn_across], ids=["autoencoder", "across layers"])
@pytest.mark.parametrize("buffer", [3_000, 50_000], ids=["read again and again", "held whole"])
def test_a_run_killed_at_random_moments_ends_with_the_bits_of_one_never_killed(
    learn: Callable[[Path | None, int], SAE], buffer: int, tmp_path: Path
) -> None:
    learn(None, buffer)  # what is done once only is not to be timed, or no run would still be going on when killed
    began = time.perf_counter()
    whole = learn(None, buffer)
    seconds, moments, interrupted, folder = time.perf_counter() - began, random.Random(0), 0, tmp_path / "run"
    while interrupted < 3:
        process = multiprocessing.get_context("fork").Process(target=learn, args=(folder, buffer))
        process.start()
        process.join(moments.uniform(0.1, 0.6) * seconds)
        if process.is_alive():
            process.kill()
        process.join()
        if kept(folder) == TOKENS // BATCH:  # it was done before it could be killed: begin again
            shutil.rmtree(folder)
            interrupted = 0
        else:
            interrupted += kept(folder) > 0
    learn(folder, buffer)
    assert bits(torch.load(folder / "done.pt")) == bits(whole.state_dict())
    said = [json.loads(line)["tokens"] for line in (folder / "curve.jsonl").read_text().splitlines()]
    assert said == sorted(set(said)) and said[-1] == TOKENS


class Interrupting:
    """Stops a run once so many tokens were reported."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def begin(self, names: tuple[str, ...], tokens: int) -> None:
        assert tokens < self.tokens

    def point(self, name: str, point: Point) -> None:
        if point.tokens >= self.tokens:
            raise KeyboardInterrupt

    def end(self) -> None: ...


def test_a_run_on_a_live_model_goes_on_in_the_middle_of_its_texts(gpt2: Model, tmp_path: Path) -> None:
    texts = [f"fog {number} over bay {number * number}" for number in range(40)]

    def learnt(*stops: int) -> dict[str, bytes]:
        sae = TopK(32, 64, k=4)
        source = activations_of(gpt2, texts, resid_post[1], batch_size=3)
        options = {"tokens": 3_000, "batch_size": 50, "buffer": 300, "progress": False}
        checkpoint = Checkpoint(tmp_path / str(len(stops)), every=500)
        for stop in stops:
            with pytest.raises(KeyboardInterrupt):
                train(sae, source, checkpoint=checkpoint, callbacks=[Interrupting(stop)], **options)
            sae = TopK(32, 64, k=4, seed=9)
        train(sae, source, checkpoint=checkpoint, **options)
        return bits(sae.state_dict())

    assert learnt(700, 2_100) == learnt()


def test_texts_before_the_checkpoint_are_not_read_again(gpt2: Model) -> None:
    texts = [f"fog {number}" for number in range(10)]
    source = activations_of(gpt2, texts, resid_post[1], batch_size=2)
    calls = []
    handle = gpt2.hf.transformer.wte.register_forward_hook(lambda *_: calls.append(1))
    try:
        rest = torch.cat([*source.begin(3)])
    finally:
        handle.remove()
    assert len(calls) == 2
    assert torch.equal(rest, torch.cat([*source][3:]))
    every = source.every
    assert every is not None and torch.equal(torch.cat([*every(1, 2)]), torch.cat([*source][1::2]))


def test_a_finished_run_gives_its_report_again(tmp_path: Path) -> None:
    options = {"tokens": 2_000, "batch_size": 100, "progress": False, "checkpoint": Checkpoint(tmp_path)}
    first, second = (train(TopK(16, 32, k=2, seed=seed), data(), **options) for seed in (0, 0))
    assert str(first) == str(second) and first.curve == second.curve


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    options = {"tokens": 1_000, "batch_size": 100, "progress": False, "checkpoint": Checkpoint(tmp_path)}
    train(Gated(16, 32), data(), **options)
    with pytest.raises(ValueError, match=r"of another run: its seed is 0, and here it is 1: give what it was begun"):
        train(Gated(16, 32), data(), seed=1, **options)
    with pytest.raises(ValueError, match=r"of another run: its coefficient is 1\.0, and here it is 2\.0:"):
        train(Gated(16, 32, coefficient=2.0), data(), **options)
    with pytest.raises(ValueError, match="its decay is 0.2, and here it is"):
        train(Gated(16, 32), data(), schedule=Schedule(decay=0.1), **options)
    with pytest.raises(ValueError, match="every is 0; a checkpoint is written after at least 1 token"):
        Checkpoint(tmp_path, every=0)


def test_a_checkpoint_of_another_normalisation_of_other_texts_or_of_other_batches_of_them_is_refused(
    gpt2: Model, tmp_path: Path
) -> None:
    texts = [f"fog {number} over bay {number * number}" for number in range(8)]
    options = {"tokens": 1_000, "batch_size": 50, "buffer": 100, "progress": False}

    def source(texts: list[str] = texts, batch_size: int = 3) -> Source:
        return activations_of(gpt2, texts, resid_post[1], batch_size=batch_size)

    def resumed(folder: str, given: Source, normalisation: Normalisation | None = None) -> None:
        sae = TopK(32, 64, k=4)
        members = {"a": Member(sae, normalisation=normalisation)}
        train_many(members, given, checkpoint=Checkpoint(tmp_path / folder), **options)

    white, scaled = whitening(source()), expected_norm(source())
    for folder, begun, normalisation in (
        ("source", normalise_source(source(), white), None),
        ("member", source(), white),
        ("plain", source(), None),
    ):
        resumed(folder, begun, normalisation)
        resumed(folder, begun, normalisation)
    for folder, given, normalisation in (
        ("source", source(), None),
        ("source", normalise_source(source(), scaled), None),
        ("member", source(), scaled),
        ("plain", source(), white),
    ):
        with pytest.raises(ValueError, match=r"of another run: its normalisation is (None|[0-9a-f]{16})"):
            resumed(folder, given, normalisation)
    with pytest.raises(
        ValueError, match=r"its digest of the data is [0-9a-f]{32} .*, and here it is [0-9a-f]{32} .*: give"
    ):
        resumed("plain", source([text.upper() for text in texts]))
    with pytest.raises(ValueError, match="its batch_size of the source is 3, and here it is 1"):
        resumed("plain", source(batch_size=1))


def test_data_have_the_digest_of_all_their_texts_ids_or_rows_and_what_is_read_once_is_not_touched() -> None:
    from datasets import Dataset

    texts = [f"fog {number}" for number in range(3_000)]
    assert digest_of_data(texts) == digest_of_data([*texts]) == digest_of_data(tuple(texts))
    assert digest_of_data(texts) != digest_of_data([*texts[:-1], "sea"])
    assert digest_of_data(["a", "b"]) != digest_of_data(["a\0b"])
    assert digest_of_data([[1, 2], [3]]) != digest_of_data([[1], [2, 3]])
    rows = Dataset.from_list([{"text": text, "number": i} for i, text in enumerate(texts)])
    assert digest_of_data(rows) == digest_of_data(rows.map(lambda row: {"number": -row["number"]}))
    assert digest_of_data(rows) != digest_of_data(rows.select(range(2_999)))
    stream = rows.to_iterable_dataset()
    generator = iter(texts)
    assert digest_of_data(stream) == digest_of_data(rows) == StreamDigest(stream).of_first(5_000)
    assert digest_of_data(generator) is None and next(generator) == "fog 0"
    for place in (1, 1_501, 2_998):  # every text counts, and its place
        other = [*texts[:place], "sea", *texts[place + 1 :]]
        assert digest_of_data(other) != digest_of_data(texts)
        assert digest_of_data(Dataset.from_dict({"text": other})) != digest_of_data(rows)
        read, also = StreamDigest(stream), StreamDigest(Dataset.from_dict({"text": other}).to_iterable_dataset())
        assert read.of_first(place) == also.of_first(place) and read.of_first(place + 1) != also.of_first(place + 1)
    x = torch.arange(6.0)
    assert digest_of_tensors(x) == digest_of_tensors(x.clone()) != digest_of_tensors(x.view(2, 3))
    assert len({digest_of_tensors(x.to(dtype)) for dtype in (torch.float32, torch.float64, torch.bfloat16)}) == 3
    assert digest_of_data([x, x]) != digest_of_data([x, x + 1]) and digest_of_data([x]) == digest_of_data([x.numpy()])
    long = torch.arange(3_000)
    assert digest_of_data([long.numpy()]) != digest_of_data([long.index_fill(0, torch.tensor([1_500]), 0).numpy()])
    assert digest_of_tensors(x[:0]) != digest_of_tensors(x[:1])
    assert digest_of_tensors(x[::2]) == digest_of_tensors(torch.tensor([0.0, 2.0, 4.0]))


def test_a_stream_that_does_not_begin_with_what_was_read_of_it_before_is_refused(gpt2: Model, tmp_path: Path) -> None:
    from datasets import Dataset

    texts = [f"fog {number} over the bay" for number in range(40)]

    def run(given: list[str], tokens: int) -> None:
        stream = Dataset.from_dict({"text": given}).to_iterable_dataset()
        source = activations_of(gpt2, stream, resid_post[1], batch_size=2)
        how = {"batch_size": 16, "buffer": 64, "tokens": tokens, "progress": False}
        train(TopK(32, 16, k=2), source, checkpoint=Checkpoint(tmp_path / "run", 32), **how)

    run(texts, 96)
    run(texts, 96)  # the same goes on
    with pytest.raises(WrongModel, match="are other data than those the checkpoint was made with"):
        run(["sun", *texts[1:]], 96)


def test_two_trainings_at_once_do_not_write_to_one_checkpoint(tmp_path: Path) -> None:
    with (
        lock(tmp_path / "state", "training"),
        pytest.raises(WrongState, match="another training is writing to .*state"),
    ):
        learn(tmp_path, 500)
    learn(tmp_path, 500)


@pytest.mark.parametrize("kind", ["state-", "rows-", "latest"])
def test_one_flipped_bit_of_a_checkpoint_is_found_and_its_file_named(kind: str, tmp_path: Path) -> None:
    learn(tmp_path, 500)
    (file,) = [path for path in (tmp_path / "state").iterdir() if path.name.startswith(kind)]
    whole = file.read_bytes()
    for place in range(0, len(whole), len(whole) // 5 + 1):
        changed = bytearray(whole)
        changed[place] ^= 0x40
        file.write_bytes(changed)
        with pytest.raises(DamagedFile, match=file.name):
            learn(tmp_path, 500)
