"""Asking a language model: one at an OpenAI-compatible endpoint, or one that is loaded."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

from hooks import Model
from hooks.border import Count, Natural, NotNegative, Positive
from hooks.errors import InvalidArgument, NotReachable

Ask = Callable[[str], str]
LONGEST = 60.0  # seconds that a server's wish to wait is heeded
AGAIN = (408, 409, 429, 500, 502, 503, 504)  # what may pass: busy, overloaded, restarting


@final
@dataclass(frozen=True)
class Answer:
    """What a model said, and the tokens that question and answer took.

    They are as the server counts them, or a quarter of the characters where it does not.
    """

    text: str
    tokens: int


@final
@dataclass(frozen=True)
class Endpoint:
    """A chat model at `url`/chat/completions, in OpenAI's protocol; called with a prompt it gives the answer.

    `timeout` in seconds, for each try; after a timeout, a broken connection, a busy server or an answer that is no
    JSON it tries again, `retries` times, waiting `pause` seconds and twice as long each time, or as long as the server
    says (`Retry-After`, a minute at most).

    Raises:
        NotReachable: when called, if no try gets an answer; or at once, if the server refuses the request.
        InvalidArgument: when called, if the answer is in the protocol but holds no text, or the model declined.

    Examples:
        ```python
        ask = Endpoint("http://localhost:8000/v1", "some-model")
        ask("What do these have in common?")
        ```
    """

    url: str
    model: str
    key: str = ""
    timeout: Positive = 60.0
    retries: Natural = 3
    pause: NotNegative = 1.0

    def __call__(self, prompt: str) -> str:
        """The answer to a prompt."""
        return self.answer(prompt).text

    def answer(self, prompt: str) -> Answer:
        """The answer to a prompt, and what it took."""
        problem, said = "", None
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.pause * 2 ** (attempt - 1) if said is None else said)
            try:
                given = self._post(prompt)
                text = _text(given, self.url)
                return Answer(text, _tokens(given, prompt, text))
            except urllib.error.HTTPError as error:
                body = error.read().decode("utf-8", "replace")[:200]
                if error.code not in AGAIN:
                    raise NotReachable(f"{self.url} refused the request ({error.code}): {body}") from None
                problem, said = f"status {error.code}: {body}", _wait_said(error.headers.get("Retry-After"))
            except (OSError, json.JSONDecodeError) as error:
                said = None
                problem = f"{type(error).__name__}: {error}"
        raise NotReachable(f"{self.url} gave no answer in {self.retries + 1} tries; the last: {problem}")

    def _post(self, prompt: str) -> Any:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            return json.loads(answer.read())


def ask_loaded_model(model: Model, *, max_new_tokens: Count = 60) -> Ask:
    """A loaded model as one that can be asked: its greedy continuation of the prompt.

    Examples:
        ```python
        ask = ask_loaded_model(load("some/instruct-model"))
        ```
    """

    def ask(prompt: str) -> str:
        return str(model.generate(prompt, max_new_tokens=max_new_tokens))

    return ask


def _wait_said(header: str | None) -> float | None:
    """The seconds that a server asks to wait; None where it says none, or a date."""
    try:
        return None if header is None else min(max(float(header), 0.0), LONGEST)
    except ValueError:
        return None


def _tokens(given: Any, prompt: str, text: str) -> int:
    usage = given.get("usage") if isinstance(given, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) else -(-(len(prompt) + len(text)) // 4)


def _text(answer: Any, url: str) -> str:
    try:
        message = answer["choices"][0]["message"]
        refusal, content = message.get("refusal"), message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise InvalidArgument(f"{url} answered with no message: {str(answer)[:200]}") from None
    if refusal:
        raise InvalidArgument(f"the model at {url} declined: {refusal}")
    if not isinstance(content, str) or not content.strip():
        raise InvalidArgument(f"{url} answered with an empty message: {str(answer)[:200]}")
    return content.strip()
