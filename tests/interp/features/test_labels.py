"""Labels of latents: offline from planted texts, and by a language model spoken to over a local server."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Model
from interp.features import (
    Describer,
    Endpoint,
    Example,
    FeatureIndex,
    ask_loaded_model,
    explain_latent,
    find_hard_negatives,
    index,
)
from interp.features.explain.explanation import (
    ask_for_explanation,
    mark_tokens,
    move_marks,
    score_by_detection,
    score_by_fuzzing,
)
from interp.features.explain.labels import find_words
from interp.sae import TopK

G = torch.Generator().manual_seed(0)
WORDS = ["dice", "beam", "clad", "bend", "mile", "pond"]
TEXTS = [
    f"{WORDS[i % 6]} fog h {WORDS[(i // 6 + 2) % 6]}" if i % 3 == 0 else f"{WORDS[i % 6]} {WORDS[i // 6 % 6]} lamp."
    for i in range(60)
]
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def found(letters: TopK, gpt2: Model, tmp_path: Path) -> FeatureIndex:
    return index(letters, gpt2, TEXTS, tmp_path / "made", top=4, sampled=16, context=9)


def test_a_latent_is_described_by_its_token_and_the_words_that_are_near_it_only(found: FeatureIndex) -> None:
    describe = Describer(found)
    assert describe(found.record("abcdefgh".index("h"))).startswith("fires on 'h' (100%), near fog;")
    assert "fog" not in describe(found.record("abcdefghijklmnop".index("p")))
    assert describe(found.record("abcdefghijk".index("k"))) == "never fires"


def test_a_label_names_up_to_three_tokens_of_a_tenth_of_the_activation_and_three_promotions(
    found: FeatureIndex,
) -> None:
    record, describe = found.record("abcdefgh".index("h")), Describer(found)
    promoted = tuple((f" p{i}", 1.0) for i in range(5))
    shown = replace(record, evidence=replace(record.evidence, promoted=promoted))
    four = describe(replace(shown, tokens=(("a", 0.4), ("b", 0.3), ("c", 0.2), ("d", 0.1))))
    assert four.startswith("fires on 'a' (40%), 'b' (30%), 'c' (20%), near fog;") and four.endswith(
        "promotes p0, p1, p2"
    )
    assert describe(replace(shown, tokens=(("a", 0.1), ("b", 0.099)))).startswith("fires on 'a' (10%), near")
    assert describe(replace(shown, tokens=(("a", 0.099),))).startswith("fires on many different tokens")


def test_words_near_a_peak_are_whole_words_of_the_window_and_not_the_one_the_peak_is_part_of() -> None:
    names = [f"word{a}{b}" for a in "abcd" for b in "efgh"]
    whole = tuple(f" {name}" for name in names)
    assert find_words(whole, 8) == {*names[:8], *names[9:]}  # eight on each side, all of them
    halves = tuple(piece for name in names for piece in (f" {name[:3]}", name[3:]))
    # a window of eight tokens before and after token 15, the second half of word 7, and after 16, the first of word 8
    assert find_words(halves, 15) == {*names[4:7], *names[8:12]}
    assert find_words(halves, 16) == {*names[4:8], *names[9:12]}
    assert find_words((" one", " two", ",", " 3rd", " of", " four"), 3) == {"one", "two", "four"}


def test_hard_negatives_are_texts_it_is_off_on_the_likest_first(found: FeatureIndex) -> None:
    record = found.record("abcdefghijklm".index("m"))
    negatives = find_hard_negatives(found, record, 10)
    assert len(negatives) == 10 and not any("m" in e.tokens for e in negatives)
    own = [frozenset(e.tokens) for e in (*record.evidence.examples, *record.sampled)]
    alike = [max(len(set(e.tokens) & bag) / len(set(e.tokens) | bag) for bag in own) for e in negatives]
    assert alike == sorted(alike, reverse=True)


def test_marks_are_around_tokens_at_least_half_as_active_as_the_peak() -> None:
    assert mark_tokens(Example(0, ("a", "b", "c", "d"), (0.9, 2.0, 1.0, 0.0), 1)) == "a<<bc>>d"


def test_moved_marks_are_where_the_latent_was_off() -> None:
    import random

    example = Example(0, tuple("abcdef"), (0.0, 2.0, 1.0, 0.0, 0.0, 0.0), 1)
    for seed in range(20):
        acts = move_marks(example, random.Random(seed)).activations
        assert sorted(f for f in acts if f) == [1.0, 2.0] and acts[1] == acts[2] == 0


def reader(prompt: str) -> str:
    """Knows what an explanation of one letter means, and nothing else."""
    if "Phrase:" in prompt:
        return "the letter h\nas I said"
    letter = prompt.split("the letter ")[1][0]
    text = prompt.split("\n\n")[1]
    inside = text.split("<<")[1].split(">>")[0] if "<<" in text else text
    return "Yes." if letter in inside else "no"


def test_a_reader_of_the_right_explanation_predicts_the_latent_and_of_another_does_not(found: FeatureIndex) -> None:
    record = found.record("abcdefgh".index("h"))
    said = explain_latent(reader, record, find_hard_negatives(found, record), "the letter z")
    assert said.text == "the letter h"
    assert said.detection.value == 1.0 and said.fuzzing.value == 1.0
    assert said.detection_by_chance.value == 0.5 and said.fuzzing_by_chance.value == 0.5
    assert said.detection.n == 24 and "detection 1.00" in str(said)


def test_an_explanation_that_is_wrong_scores_below_chance_and_not_by_its_sign(found: FeatureIndex) -> None:
    record = found.record("abcdefgh".index("h"))
    contrary = lambda prompt: "no" if reader(prompt) == "Yes." else "yes"  # noqa: E731
    assert (
        score_by_detection(contrary, "the letter h", record.sampled[:4], find_hard_negatives(found, record)[:4]).value
        == 0.0
    )
    assert score_by_fuzzing(contrary, "the letter h", record.sampled[:4]).value == 0.0


def test_a_blank_answer_explains_nothing(found: FeatureIndex) -> None:
    examples = next(r for r in found.records(range(len(found))) if r.evidence.examples).evidence.examples
    with pytest.raises(ValueError, match="a short phrase was asked for, and the answer is blank"):
        ask_for_explanation(lambda _: " \n", examples)


def test_a_model_that_declines_or_does_not_answer_gives_no_number(found: FeatureIndex) -> None:
    record = found.record("abcdefgh".index("h"))
    with pytest.raises(ValueError, match="the model declined to explain: I'm sorry"):
        ask_for_explanation(lambda _: "I'm sorry, but I can't help.", record.evidence.examples)
    with pytest.raises(ValueError, match="the answer has neither: 'perhaps'"):
        score_by_detection(lambda _: "perhaps", "x", record.sampled, record.sampled)
    with pytest.raises(ValueError, match="give negatives"):
        explain_latent(reader, record, [], "the letter z")


def test_a_loaded_model_can_be_asked(gpt2: Model) -> None:
    assert ask_loaded_model(gpt2, max_new_tokens=4)("fog") == gpt2.generate("fog", max_new_tokens=4)


@pytest.fixture
def served() -> Iterator[Callable[[list[Any]], tuple[str, list[dict[str, Any]]]]]:
    """A server on this machine that gives the answers listed, one per request, and notes what it was asked."""
    servers = []

    def serve(answers: list[Any]) -> tuple[str, list[dict[str, Any]]]:
        asked: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
                status, content = answers[min(len(asked), len(answers)) - 1]
                if status == "slow":
                    time.sleep(0.6)
                    status = 200
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client has gone

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/v1", asked

    yield serve
    for server, thread in servers:
        server.shutdown(), server.server_close(), thread.join()


def said(text: Any, **more: Any) -> tuple[int, Any]:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text, **more}}]}


def test_the_endpoint_is_spoken_to_in_the_protocol(served) -> None:
    url, asked = served([said(" bridges ")])
    assert Endpoint(url, "tiny", key="k")("what?") == "bridges"
    (request,) = asked
    assert request["path"] == "/v1/chat/completions" and request["key"] == "Bearer k" and request["model"] == "tiny"
    assert request["messages"] == [{"role": "user", "content": "what?"}]


@pytest.mark.parametrize(
    "trouble", [(500, {}), (429, {}), (200, b"{ not json"), ("slow", {})], ids=["500", "429", "malformed", "slow"]
)
def test_what_may_pass_is_tried_again(served, trouble: tuple[Any, Any]) -> None:
    url, asked = served([trouble, said("yes")])
    assert Endpoint(url, "tiny", timeout=0.3, pause=0.01)("?") == "yes"
    assert len(asked) == 2


def test_trouble_that_stays_ends_after_the_tries_with_the_last_of_it(served) -> None:
    url, asked = served([(503, {"error": "overloaded"})])
    with pytest.raises(ConnectionError, match=r"gave no answer in 3 tries; the last: status 503.*overloaded"):
        Endpoint(url, "tiny", retries=2, pause=0.01)("?")
    assert len(asked) == 3


def test_a_refused_request_is_not_repeated(served) -> None:
    url, asked = served([(401, {"error": "no such key"})])
    with pytest.raises(ConnectionError, match=r"refused the request \(401\): .*no such key"):
        Endpoint(url, "tiny", pause=0.01)("?")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"choices": []}), "answered with no message"),
        ((200, []), "answered with no message"),
        (said(None), "answered with an empty message"),
        (said("  "), "answered with an empty message"),
        (said(None, refusal="not that"), "declined: not that"),
    ],
)
def test_an_answer_without_text_is_an_error_and_not_a_label(served, answer: tuple[int, Any], message: str) -> None:
    url, _ = served([answer])
    with pytest.raises(ValueError, match=message):
        Endpoint(url, "tiny", pause=0.01)("?")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ConnectionError, match="http://127.0.0.1:9/v1 gave no answer in 1 tries"):
        Endpoint("http://127.0.0.1:9/v1", "tiny", retries=0)("?")
