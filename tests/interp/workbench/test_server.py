"""The workbench answers its own page and nobody else, one action after another, with the numbers that Python gives."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import load
from hooks.fingerprint import fingerprint
from hooks.pieces import piece
from interp.features import explain_text
from interp.lenses import LogitLens, read
from interp.steering import add_direction, steer
from interp.workbench import open as open_workbench
from interp.workbench.jobs import WAITING, Job, JobCancelled, Jobs, QueueFull
from interp.workbench.security import Guard
from tests.interp.workbench.conftest import Client


def test_tokens_and_lens_are_those_of_the_model(served: Client) -> None:
    found = served.run("lens", text="Fog over", top=3)
    tokens = served.model.tokens("Fog over")
    assert found["ids"] == tokens.ids[0].tolist()
    assert found["tokens"] == [piece(served.model.tokenizer, i) for i in found["ids"]]
    reading = read(LogitLens(served.model), "Fog over", top=3)
    assert found["probability"] == reading.probability[:, 0].tolist()


def test_features_are_those_of_the_dictionary(served: Client) -> None:
    found = served.run("features", text="Fog over", sae="main", top=4)
    expected = explain_text(served.sae, served.model, "Fog over", top=4)
    for row, one in zip(found["firings"], expected, strict=True):
        assert [(f["latent"], f["activation"]) for f in row] == [(f.latent, f.activation) for f in one.firings]


def test_the_three_columns_are_what_the_log_says_and_the_random_direction_has_equal_norm(served: Client) -> None:
    args = {"prompt": "Fog", "directions": [{"dose": 3.0, "sae": "main", "latent": 2}], "max_new_tokens": 6, "seed": 5}
    job = served.submit("steer", **args)
    events = served.events(job)
    found = events[-1][2]
    way = add_direction(served.sae.direction(2))
    control = way.control(seed=5)
    assert float(control.vector.norm()) == pytest.approx(float(way.vector.norm()), rel=1e-6)
    model = served.model
    with steer(model, way, 3.0):
        steered = model.generate("Fog", max_new_tokens=6, seed=5)
    with steer(model, control, 3.0):
        random = model.generate("Fog", max_new_tokens=6, seed=5)
    assert found["texts"] == {
        "steered": steered,
        "unsteered": model.generate("Fog", max_new_tokens=6),
        "random": random,
    }
    assert found["seeds"] == [5] and "control(seed=5)" in served.json("/session")["entries"][-1]["code"]
    assert [event for _, event, _ in events].count("token") >= 3


def test_a_stopped_job_leaves_the_model_bit_for_bit_as_it_was(served: Client) -> None:
    before = served.model.run("Fog over")
    directions = [{"dose": 3.0, "sae": "main", "latent": 2}]
    job = served.submit("steer", prompt="Fog", directions=directions, max_new_tokens=80, temperature=1.0)
    ended = []
    reader = threading.Thread(target=lambda: ended.extend(served.events(job)))
    reader.start()
    time.sleep(0.05)
    assert served.ask("DELETE", f"/api/v1/jobs/{job}")[0] == 200
    reader.join(timeout=30)
    assert ended[-1][1] in ("cancelled", "result")
    assert torch.equal(served.model.run("Fog over"), before)


def test_events_go_on_where_a_reader_left_them(served: Client) -> None:
    job = served.submit("lens", text="Fog over")
    whole = served.events(job)
    assert [number for number, _, _ in whole] == list(range(len(whole)))
    assert served.events(job, after=0) == whole[1:]


def test_a_request_that_takes_a_stream_gets_the_events_at_once_and_another_reader_the_same(served: Client) -> None:
    asked = {"kind": "lens", "args": {"text": "Fog over", "top": 2}}
    status, body, headers = served.ask("POST", "/api/v1/jobs", asked, Accept="text/event-stream")
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    events = served.read(body)
    assert [event for _, event, _ in events] == ["queued", "started", "result"]
    assert served.events(events[0][2]["id"]) == events
    assert events[-1][2] == served.run("lens", text="Fog over", top=2)


def test_a_request_that_takes_a_stream_is_refused_as_any_other_before_it_waits(served: Client) -> None:
    refused = {"kind": "lens", "args": {"text": "Fog", "top": "many"}}
    plain, streamed = (served.ask("POST", "/api/v1/jobs", refused, Accept=a) for a in ("*/*", "text/event-stream"))
    assert plain[:2] == streamed[:2] and plain[0] == 422


def test_jobs_end_in_the_order_in_which_they_came_and_each_has_its_own_answer(served: Client) -> None:
    texts = [f"Fog {i}" for i in range(6)]
    answers: dict[str, Any] = {}
    jobs = {text: served.submit("lens", text=text, top=1) for text in texts}
    threads = [
        threading.Thread(target=lambda text=text, job=job: answers.update({text: served.events(job)[-1][2]}))
        for text, job in jobs.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    for text in texts:
        assert answers[text]["probability"] == read(LogitLens(served.model), text, top=1).probability[:, 0].tolist()


def test_the_downloaded_notebook_gives_the_numbers_of_the_page(served: Client) -> None:
    served.run("lens", text="Fog over", top=2)
    served.run("features", text="Fog over", sae="main")
    served.run("attribute", text="Fog over", word="a")
    served.run("steer", prompt="Fog", directions=[{"dose": 2.0, "name": "one"}], max_new_tokens=4)
    served.run("patch", clean="Fog at sea", corrupt="Fog at bay", right="a", wrong="b")
    served.run("search", sae="main", words="fires")
    texts = {"texts": ["Fog"], "background": ["Sea"], "site": "resid_post.1"}
    served.run("steer", prompt="Fog", directions=[{"dose": 2.0, **texts}], max_new_tokens=4, temperature=1.0, seed=3)
    book = json.loads(served.ask("GET", "/api/v1/session.ipynb")[1])
    session = served.page.session
    names: dict[str, Any] = {
        "load": lambda name: served.model,
        "sae_main": served.sae,
        "index_main": session.indexes["main"],
        "direction_one": session.directions["one"],
    }
    imports, head = book["cells"][0]["source"].split("\n\n")
    exec(imports, names)
    names["load"] = lambda name: served.model
    exec(head, names)
    for cell, entry in zip(book["cells"][1:], session.entries, strict=True):
        exec(cell["source"], names)
        assert names["value"] == entry.value, entry.kind


def test_a_session_is_found_again_by_a_new_server_with_its_edits(served: Client, tmp_path: Path) -> None:
    served.run("lens", text="Fog over")
    kept = served.page.session
    assert kept.folder is not None
    again = open_workbench(served.model, saes={"main": served.sae}, session=kept.folder)
    while again.session is None:
        time.sleep(0.01)
    assert [entry.code for entry in again.session.entries] == [entry.code for entry in kept.entries]
    again.close()


ATTACKS = [
    ("GET", "/api/v1/model", {"Authorization": ""}, 401),
    ("GET", "/api/v1/model", {"Authorization": "Bearer wrong"}, 401),
    ("GET", "/api/v1/model", {"Host": "evil.example"}, 421),
    ("GET", "/", {"Host": "evil.example:80"}, 421),
    ("POST", "/api/v1/jobs", {"Origin": "http://evil.example"}, 403),
    ("POST", "/api/v1/jobs", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("POST", "/api/v1/jobs", {"Content-Type": "text/plain"}, 415),
    ("POST", "/", {}, 405),
    ("GET", "/../session.py", {}, 404),
    ("GET", "/%2e%2e/session.py", {}, 404),
    ("GET", "/app.js/../../log.py", {}, 404),
    ("PUT", "/api/v1/model", {}, 405),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), ATTACKS)
def test_what_is_not_from_the_page_is_refused_and_logged_nowhere(
    method: str, path: str, headers: dict[str, str], status: int, served: Client
) -> None:
    body = {"kind": "lens", "args": {"text": "x"}} if method in ("POST", "PUT") else None
    given, said, _ = served.ask(method, path, body, **headers)
    assert given == status, said
    assert served.page.session.entries == []


def test_every_answer_forbids_scripts_and_frames_from_elsewhere_and_allows_no_other_origin(served: Client) -> None:
    for path in ("/", "/app.js", "/api/v1/model", "/api/v1/nothing"):
        _, _, headers = served.ask("GET", path)
        low = {name.lower(): value for name, value in headers.items()}
        assert "default-src 'none'" in low["content-security-policy"]
        assert "unsafe" not in low["content-security-policy"] and low["x-content-type-options"] == "nosniff"
        assert not [name for name in low if name.startswith("access-control")]


def test_the_server_listens_on_this_machine_alone_and_its_token_is_long(served: Client) -> None:
    assert served.page._socket.getsockname()[0] == "127.0.0.1"
    assert len(served.page.token) >= 43
    assert served.page.url.endswith(f"/#{served.page.token}")


HOSTILE = [
    ("lens", {}),
    ("lens", {"text": ""}),
    ("lens", {"text": "x" * 20_001}),
    ("lens", {"text": "x", "top": 10**9}),
    ("lens", {"text": "x", "more": 1}),
    ("lens", {"text": ["x"]}),
    ("lens", "x"),
    ("no such", {}),
    ("steer", {"prompt": "x", "directions": []}),
    ("steer", {"prompt": "x", "directions": [{"dose": 1, "sae": "main"}] * 9}),
    ("steer", {"prompt": "x", "directions": [{"dose": "1e999"}]}),
    ("steer", {"prompt": "x", "directions": [{"dose": 1}], "max_new_tokens": 513}),
]


@pytest.mark.parametrize(("kind", "args"), HOSTILE)
def test_arguments_beyond_their_limits_are_refused_before_they_wait(kind: str, args: Any, served: Client) -> None:
    status, body, _ = served.ask("POST", "/api/v1/jobs", {"kind": kind, "args": args})
    assert status == 422, body
    assert json.loads(body)["detail"]


def test_what_only_the_model_can_refuse_ends_its_job_with_the_library_s_own_words(served: Client) -> None:
    for kind, args, part in (
        ("features", {"text": "x", "sae": "other"}, "'main'"),
        ("steer", {"prompt": "x", "directions": [{"dose": 1.0, "sae": "main", "latent": 99}]}, "latent"),
        ("steer", {"prompt": "x", "directions": [{"dose": 1.0}]}, "give one"),
        ("apply", {"name": "none"}, "no edit is called"),
        ("lens", {"text": "x" * 500}, "96"),
    ):
        *_, (_, ended, data) = served.events(served.submit(kind, **args))
        assert ended == "error" and part in data["detail"], data
    assert served.run("lens", text="x")["tokens"]


def test_the_seventeenth_that_waits_is_refused_and_one_that_was_stopped_never_begins() -> None:
    jobs, gate, begun = Jobs(), threading.Event(), []

    def wait(_job: Job) -> dict[str, Any]:
        begun.append(1)
        gate.wait(10)
        return {}

    first, _ = jobs.submit(wait)
    others = [jobs.submit(wait)[0] for _ in range(WAITING - 1)]
    with pytest.raises(QueueFull):
        jobs.submit(wait)
    others[-1].cancel()
    gate.set()
    while others[-1].ended is None:
        time.sleep(0.01)
    assert others[-1].ended == "cancelled" and first.ended == "result" and len(begun) == WAITING - 1
    jobs.close()


def test_a_job_that_nobody_reads_any_more_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.workbench.jobs.FORGOTTEN", 0.05)
    job = Job(lambda _: {})
    job.check()
    job.mark_read()
    job.check()
    time.sleep(0.1)
    with pytest.raises(JobCancelled):
        job.check()


def test_a_fault_ends_its_job_and_not_the_thread(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs()
    broken, _ = jobs.submit(lambda _: {}["no"])
    right, _ = jobs.submit(lambda _: {"fine": 1})
    while right.ended is None:
        time.sleep(0.01)
    assert broken.ended == "error" and "fault of interp" in broken.events[-1][2]["detail"]
    assert "no" not in broken.events[-1][2]["detail"].split() and "KeyError" in capsys.readouterr().err
    jobs.close()


def test_the_guard_compares_whole_tokens() -> None:
    guard = Guard(None, "secret", frozenset({"127.0.0.1:1"}))

    def scope(token: str) -> dict[str, Any]:
        headers = [(b"host", b"127.0.0.1:1"), (b"authorization", f"Bearer {token}".encode())]
        return {"type": "http", "method": "GET", "path": "/api/v1/model", "headers": headers}

    assert guard.refusal(scope("secret")) is None
    assert all(guard.refusal(scope(token))[0] == 401 for token in ("", "secre", "secrets", "Secret"))


def test_a_fact_is_edited_previewed_asked_and_undone_bit_for_bit() -> None:
    model = load("landmark")
    before = fingerprint(model.hf)
    page = open_workbench(model)
    client = Client(page)
    while client.json("/model")["state"] != "ready":
        time.sleep(0.05)
    fact = {"subject": "Golden Gate Bridge", "prompt": "The {} is located in", "old": "San Francisco", "new": "Paris"}
    made = client.run("edit", **fact)
    assert made["moved"] and fingerprint(model.hf) == before
    said = client.run("apply", name=made["name"])
    assert "Paris" in said["after"][0] and "Paris" not in said["before"][0]
    assert client.json("/model")["applied"] == [made["name"]]
    undone = client.run("undo", name=made["name"])
    assert undone["identical"] and fingerprint(model.hf) == before
    client.run("apply", name=made["name"])
    page.close()
    assert fingerprint(model.hf) == before
