"""Labels of many latents by a server process: each request once, over kills, limits and refusals, and scored."""

import json
import multiprocessing
import os
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hooks import Model
from hooks.errors import DamagedFile, NotReachable
from interp.features import Endpoint, FeatureIndex, LatentLabel, LatentLabels, Limits, index, label_latents
from interp.features.explain import label_many
from interp.sae import TopK

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
LETTERS = "abcdefghijklmnop"
TEXTS = [" ".join([LETTERS[i % 16], LETTERS[(i * 5 + 1) % 16], LETTERS[(i * 3 + i // 16) % 16]]) for i in range(160)]


@pytest.fixture
def found(letters: TopK, gpt2: Model, tmp_path: Path) -> FeatureIndex:
    return index(letters, gpt2, TEXTS, tmp_path / "made", top=4, sampled=20, context=6)


def reply(prompt: str) -> str:
    """What a reader says who sees which letter is marked, and which texts hold it."""
    if "Phrase:" in prompt:
        marked = Counter(re.findall(r"<<\s*(\w)\s*>>", prompt))
        return f"the letter {marked.most_common(1)[0][0]}"
    letter = re.search(r"the letter (\w)", prompt)
    assert letter is not None
    lines = re.findall(r"^(\d+)\. (.*)$", prompt, re.MULTILINE)
    sought = rf"<<\s*{letter[1]}\s*>>" if "<<" in prompt.split("\n")[1] else rf"\b{letter[1]}\b"
    numbers = [number for number, text in lines if re.search(sought, text)]
    return ", ".join(numbers) or "none"


def serve(listening: socket.socket, log: Path, busy: int, dies_after: int) -> None:
    """A server in OpenAI's protocol, in a process of its own: every so often busy, and dead after so many answers."""
    served = Counter[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"]
            served["all"] += 1
            if busy and served["all"] % busy == 0:
                self.send_response(429)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            with log.open("a") as file:
                file.write(json.dumps([prompt, time.monotonic()]) + "\n")
            answer = {"choices": [{"message": {"content": reply(prompt)}}], "usage": {"total_tokens": 100}}
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            served["answered"] += 1
            if dies_after and served["answered"] >= dies_after:
                self.wfile.flush()
                os._exit(0)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.serve_forever(poll_interval=0.02)


@contextmanager
def server(log: Path, *, busy: int = 0, dies_after: int = 0) -> Iterator[Endpoint]:
    """A server process whose socket listens before it begins, so that no request comes too early."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listening, log, busy, dies_after))
    process.start()
    listening.close()
    try:
        yield Endpoint(url, "reader", retries=2, pause=0.0, timeout=30.0)
    finally:
        process.kill()
        process.join()


def asked(log: Path) -> list[str]:
    return [json.loads(line)[0] for line in log.read_text().splitlines()] if log.exists() else []


def test_every_latent_is_labelled_once_scored_and_next_to_another_latents_label(
    found: FeatureIndex, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with server(log, busy=7) as endpoint:
        labels = label_latents(found, endpoint, tmp_path / "labels", latents=range(16), limits=Limits(at_once=4))
        again = label_latents(found, endpoint, tmp_path / "labels", latents=range(16))
    assert not labels.left and {one.latent for one in labels.labels} <= {*range(16)} and len(labels.labels) >= 14
    for one in labels.labels:
        assert one.text == f"the letter {LETTERS[one.latent]}" and not one.problem
        assert one.detection is not None and one.detection_by_chance is not None
        assert one.fuzzing is not None and one.fuzzing_by_chance is not None
        assert one.detection.value == 1.0 and one.fuzzing.value == 1.0
        assert one.detection_by_chance.value < 0.9 and one.fuzzing_by_chance.value <= 0.6
    assert len(asked(log)) == len({*asked(log)}) == labels.requests == 5 * len(labels.labels)
    assert labels.tokens == 100 * labels.requests
    assert again.labels == labels.labels and (again.requests, again.answered_before) == (0, labels.requests)
    frame = labels.to_pandas()
    assert list(frame["label"])[0] == labels.labels[0].text and len(frame) == len(labels.labels)
    assert "by another latent's label" in str(labels)


def test_a_server_that_dies_and_a_budget_that_ends_cost_no_request_twice(found: FeatureIndex, tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "labels"
    with server(log, dies_after=20) as endpoint, pytest.raises(NotReachable, match="gave no answer in 3 tries"):
        label_latents(found, endpoint, folder, latents=range(16), limits=Limits(at_once=1))
    first = asked(log)
    assert len(first) == 20
    with server(log) as endpoint:
        some = label_latents(found, endpoint, folder, latents=range(16), limits=Limits(at_once=3, requests=11))
        assert some.requests == 11 and len(some.left) + len(some.labels) >= 14 and some.left
        few = label_latents(found, endpoint, folder, latents=range(16), limits=Limits(at_once=1, tokens=250))
        assert few.requests == 3  # the third begins at 200 tokens
        rest = label_latents(found, endpoint, folder, latents=range(16))
        assert not rest.left
        with (folder / "answers.jsonl").open("a") as torn:
            torn.write('["half a li')
        whole = label_latents(found, endpoint, folder, latents=range(16))
        assert whole.labels == rest.labels and whole.requests == 0
    assert len(asked(log)) == len({*asked(log)}) == 5 * len(rest.labels)


def test_a_kept_answer_that_was_changed_is_refused_by_its_line(found: FeatureIndex, tmp_path: Path) -> None:
    with server(tmp_path / "log") as endpoint:
        label_latents(found, endpoint, tmp_path / "labels", latents=[0, 1, 2])
        kept = tmp_path / "labels" / "answers.jsonl"
        lines = kept.read_text().splitlines()
        kept.write_text("\n".join([lines[0], lines[1].replace("letter", "number"), *lines[2:]]) + "\n")
        with pytest.raises(DamagedFile, match="line 2 of .*answers.jsonl was changed"):
            label_latents(found, endpoint, tmp_path / "labels", latents=[0, 1, 2])


def test_requests_begin_no_faster_than_the_pace(found: FeatureIndex, tmp_path: Path, monkeypatch: Any) -> None:
    clock = [0.0]
    monkeypatch.setattr(label_many, "monotonic", lambda: clock[0])
    monkeypatch.setattr(label_many, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + max(0.0, seconds)))
    with server(tmp_path / "log") as endpoint:
        labels = label_latents(
            found, endpoint, tmp_path / "labels", latents=range(16), limits=Limits(at_once=1, per_minute=30)
        )
    assert clock[0] == pytest.approx(2.0 * (labels.requests - 1))


def test_an_answer_without_numbers_is_that_latents_problem_and_no_other(
    found: FeatureIndex, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "reply", _unsure)
    with server(tmp_path / "log") as endpoint:
        labels = label_latents(found, endpoint, tmp_path / "labels", latents=[0, 1, 2, 3])
    problems = {one.latent: one.problem for one in labels.labels if one.problem}
    assert problems.keys() == {0, 1}  # b's own scores, and a's control, which is b's label
    assert all("numbers of texts were asked for" in problem for problem in problems.values())


def test_a_latent_whose_answer_holds_no_label_is_not_counted_as_labelled() -> None:
    labels = LatentLabels((LatentLabel(1, "fog"), LatentLabel(2, "", problem="no label")), (3,), 4, 0, 100)
    assert str(labels).startswith("1 latents labelled, 1 answered without a label, 1 left; 4 requests (0 answered")


_reply = reply


def _unsure(prompt: str) -> str:
    return "I am not sure" if "Numbers:" in prompt and "the letter b\n" in prompt else _reply(prompt)
