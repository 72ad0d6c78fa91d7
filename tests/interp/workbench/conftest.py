"""A workbench of a tiny model with a dictionary and its index, and what speaks to it."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Direction, Model
from hooks.site import resid_post
from interp.features import FeatureIndex, index
from interp.graphs import per_layer
from interp.sae import TopK, Transcoder
from interp.workbench import Workbench
from interp.workbench import open as open_workbench
from tests.interp.graphs.test_attribution_graph import transcoders

TEXTS = ["Fog over the bay", "The sea is cold", "Rome is in Italy", "A bridge over the bay"] * 2


class Client:
    """Speaks to a workbench as its page does."""

    def __init__(self, page: Workbench) -> None:
        self.page, self.port = page, page.port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        data = None if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {self.page.token}"} | ({"Content-Type": "application/json"} if data else {})
        given = {name: value for name, value in (given | headers).items() if value}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def json(self, path: str) -> Any:
        return json.loads(self.ask("GET", f"/api/v1{path}")[1])

    def submit(self, kind: str, **args: Any) -> str:
        status, body, _ = self.ask("POST", "/api/v1/jobs", {"kind": kind, "args": args})
        assert status == 202, body
        return json.loads(body)["id"]

    def events(self, job: str, after: int = -1) -> list[tuple[int, str, Any]]:
        _, body, _ = self.ask("GET", f"/api/v1/jobs/{job}/events", **{"Last-Event-ID": str(after)})
        return self.read(body)

    def read(self, body: bytes) -> list[tuple[int, str, Any]]:
        found = []
        for block in body.decode().strip().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if lines:
                found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
        return found

    def run(self, kind: str, **args: Any) -> Any:
        *_, (_, ended, data) = self.events(self.submit(kind, **args))
        assert ended == "result", data
        return data


@pytest.fixture(scope="session")
def dictionary(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Model], tuple[TopK, FeatureIndex]]:
    """Makes a dictionary of a model at layer 1, and its index."""

    def made(model: Model) -> tuple[TopK, FeatureIndex]:
        sae = TopK(model.d_model, 24, 4, seed=1)
        sae.site, sae.fingerprint = resid_post[1], model.fingerprint
        found = index(sae, model, TEXTS, tmp_path_factory.mktemp("index") / "index", top=3, sampled=2)
        sae.max_activation = torch.full((24,), 2.0)
        return sae, found

    return made


@pytest.fixture
def served(fresh: Callable, dictionary: Callable, tmp_path: Path) -> Iterator[Client]:
    """A workbench of a fresh tiny GPT-2."""
    model = fresh("gpt2")
    sae, found = dictionary(model)
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    direction = Direction(vector, resid_post[1], "random", 2.0, model.fingerprint)
    page = open_workbench(
        model,
        saes={"main": sae},
        indexes={"main": found},
        directions={"one": direction},
        transcoders={"all": per_layer(model, transcoders(Transcoder))},
        session=tmp_path / "kept",
    )
    client = Client(page)
    client.model, client.sae = model, sae
    while client.json("/model")["state"] != "ready":
        pass
    yield client
    page.close()
