"""Asking an endpoint without a server: what is tried again and when, and what is counted."""

import io
import json
import urllib.error
import urllib.request
from email.message import Message
from typing import Any

import pytest

from hooks.errors import NotReachable
from interp.features import Endpoint
from interp.features.explain import llm


class Served(io.BytesIO):
    """An answer of a server."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds waited between tries."""
    slept: list[float] = []
    monkeypatch.setattr(llm.time, "sleep", slept.append)
    return slept


def answers(monkeypatch: pytest.MonkeyPatch, given: list[Any]) -> list[dict[str, Any]]:
    """The endpoint gives these one after the other, the last again and again; what was sent to it."""
    sent: list[dict[str, Any]] = []

    def urlopen(request: urllib.request.Request, timeout: float) -> Served:
        one = given[min(len(sent), len(given) - 1)]
        sent.append({"timeout": timeout, **json.loads(request.data or b"")})  # pyright: ignore[reportArgumentType]
        if isinstance(one, tuple):
            status, wait, body = one
            headers = Message()
            if wait is not None:
                headers["Retry-After"] = wait
            raise urllib.error.HTTPError("url", status, "no", headers, io.BytesIO(body.encode()))
        return Served(json.dumps(one).encode())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return sent


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}], **more}


def test_each_wait_is_twice_as_long_as_the_one_before(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    sent = answers(monkeypatch, [(503, None, "x" * 300)])
    with pytest.raises(NotReachable, match=r"no answer in 4 tries; the last: status 503: x{200}$"):
        Endpoint("http://u", "m")("?")
    assert waits == [1.0, 2.0, 4.0] and len(sent) == 4
    assert sent[0] == {"timeout": 60.0, "model": "m", "messages": [{"role": "user", "content": "?"}], "temperature": 0}


@pytest.mark.parametrize(
    ("header", "waited"), [("7", 7.0), ("0", 0.0), ("-5", 0.0), ("100", 60.0), ("Wed, 21 Oct 2026", 0.5), (None, 0.5)]
)
def test_a_server_that_says_how_long_is_waited_for_up_to_a_minute(
    monkeypatch: pytest.MonkeyPatch, waits: list[float], header: str | None, waited: float
) -> None:
    answers(monkeypatch, [(429, header, ""), said("yes")])
    assert Endpoint("http://u", "m", pause=0.5)("?") == "yes" and waits == [waited]


def test_what_a_server_said_once_is_not_waited_for_after_another_trouble(
    monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    answers(monkeypatch, [(429, "7", ""), (500, None, ""), said("yes")])
    assert Endpoint("http://u", "m", pause=0.5)("?") == "yes" and waits == [7.0, 1.0]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, waits: list[float], status: int
) -> None:
    answers(monkeypatch, [(status, None, ""), said("yes")])
    assert Endpoint("http://u", "m")("?") == "yes" and len(waits) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 410, 430, 501, 505])
def test_any_other_status_is_a_refusal(monkeypatch: pytest.MonkeyPatch, waits: list[float], status: int) -> None:
    answers(monkeypatch, [(status, None, "y" * 300), said("yes")])
    with pytest.raises(NotReachable, match=rf"refused the request \({status}\): y{{200}}$"):
        Endpoint("http://u", "m")("?")
    assert not waits


@pytest.mark.parametrize(
    ("prompt", "answer", "tokens"),
    [
        ("abc", said("d"), 1),  # a quarter of the characters, rounded up
        ("abcd", said("e"), 2),
        ("abcd", said("e", usage={"total_tokens": 31}), 31),
        ("abcd", said("e", usage={"total_tokens": "31"}), 2),
        ("abcd", said("e", usage=[]), 2),
    ],
)
def test_tokens_are_as_the_server_counts_them_or_a_quarter_of_the_characters(
    monkeypatch: pytest.MonkeyPatch, prompt: str, answer: dict[str, Any], tokens: int
) -> None:
    answers(monkeypatch, [answer])
    found = Endpoint("http://u", "m").answer(prompt)
    assert (found.text, found.tokens) == (answer["choices"][0]["message"]["content"], tokens)
