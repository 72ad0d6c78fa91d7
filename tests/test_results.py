"""Results show themselves: every public result prints in a few lines, and has a table where it holds rows."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from hooks.site import resid_post
from hooks.statistics import Estimate
from hooks.summary import LINES, WIDTH, summarise
from interp.atlas import Analogies, Neighbours, Precision
from interp.circuits.edges import Completeness
from interp.graphs.feature_circuits import FeatureFaithfulness
from interp.memory import Preview
from interp.memory.evaluation.preview import MovedLatent, MovedMemory, MovedText
from interp.sae import Quality, TrainReport
from interp.sae.evaluation.concepts import ConceptRecovery, SparseProbe
from interp.sae.evaluation.matching import Matching
from interp.sae.training.history import Point
from interp.steering.dose_choice import SuggestedDose
from interp.visualisation import Dissection, measure_kernels
from tests.result_types import floods, lacks_table, public_packages, result_types

NO_TABLE = {  # what holds a list that is no list of measurements, and why
    "Case": "what is asked of an edit",
    "Document": "a text",
    "Edit": "a change of weights",
    "Entity": "an entry of the encyclopaedia",
    "FeatureText": "a text on one latent",
    "Record": "its evidence has the table",
    "Source": "activations",
    "Transcoders": "dictionaries, layer by layer",
}


@dataclass(frozen=True)
class Flood:
    """A planted breach: it prints a tensor, and holds rows without a table."""

    scores: Float[Tensor, "n"]
    points: tuple[Point, ...]


def test_no_public_result_prints_itself_field_by_field_where_a_field_can_be_long() -> None:
    kinds = result_types(public_packages())
    assert len(kinds) > 100
    assert [kind.__qualname__ for kind in kinds if floods(kind)] == []
    assert floods(Flood) and floods(dataclass(type("Around", (), {"__annotations__": {"inner": Flood}})))


def test_every_public_result_that_holds_rows_has_a_table_of_them() -> None:
    lacking = {kind.__qualname__ for kind in result_types(public_packages()) if lacks_table(kind)}
    assert lacking == set(NO_TABLE)
    assert lacks_table(Flood)


def quality() -> Quality:
    return Quality(0.8, 12.5, 0.25, 1000, torch.arange(4096), torch.ones(4096))


SITE = resid_post[3]
CURVE = tuple(Point(1000 * i, 1 / i, 0.1 * i, 12.0, 0.5) for i in range(1, 9))
MOVED = Preview(
    tuple(MovedText("fog " * 40, 7, 0.5, 0.1, " a", " b") for _ in range(10)),
    (MovedMemory(3, 17, 0.25, 0.125),),
    (MovedLatent(9, 0.0, 2.0, 1.5, 0.5),),
    500,
)
SUGGESTED = SuggestedDose(2.0, ((1.0, Estimate(1.1, 1.0, 1.2, 9)), (2.0, Estimate(1.5, 1.25, 1.75, 9))), 3.0)


@dataclass(frozen=True)
class Everything:
    """One field of each kind that results have."""

    scores: Float[Tensor, "n d_model"]
    one: Float[Tensor, ""]
    names: tuple[str, ...]
    text: str
    near: dict[str, float]
    inner: Flood
    where: object

    __repr__ = summarise


def test_a_summary_fits_a_terminal_whatever_a_result_holds() -> None:
    flood = Flood(torch.zeros(9), CURVE)
    everything = Everything(
        torch.zeros(300, 4), torch.tensor(2.5), ("x",) * 5000, "fog " * 99, {}, flood, resid_post[3]
    )
    for one in (quality(), MOVED, SUGGESTED, TrainReport(quality(), CURVE, 8000, 0.5, 100), everything):
        lines = repr(one).splitlines()
        assert repr(one).startswith(type(one).__name__)
        assert len(lines) <= LINES and max(map(len, lines)) <= WIDTH
    assert "scores=float32[300, 4]" in repr(everything) and "one=2.5" in repr(everything)
    assert "names=5000 items" in repr(everything) and "where=resid_post.3" in repr(everything)
    assert repr(MOVED).endswith("… and 14 more lines") or "more lines" in repr(MOVED)


SHARE = Estimate(0.5, 0.25, 0.75, 9)
TABLES = [
    (Precision(3, {"pixels": SHARE}, 0.1, {}), 1, {"space": "pixels", "precision": 0.5, "shuffled": 0.1}),
    (Analogies(9, {"c alone": SHARE}, {"c alone": SHARE}), 2, {"answers": "c excluded", "hit@1": 0.5}),
    (Neighbours(("fog", "sea"), torch.tensor([4, 1]), torch.tensor([0.5, 0.25])), 2, {"name": "fog", "number": 4}),
    (
        Dissection(
            ("sky",),
            torch.zeros(2).long(),
            torch.tensor([0.5, 0.25]),
            torch.tensor([0.25, 0.5]),
            torch.ones(1),
            torch.zeros(1).long(),
            torch.tensor([0.5]),
            torch.tensor([0.25]),
        ),
        2,
        {"concept": "sky", "iou": 0.5, "shuffled": 0.25, "constant": 1.0, "detector": True},
    ),
    (measure_kernels(torch.ones(2, 3, 5, 5)), 2, {"colourfulness": 0.0}),
    (
        FeatureFaithfulness({"keep": SHARE}, {"keep": SHARE}, {"keep": SHARE}, 0.75, 4),
        3,
        {"errors": "keep", "nodes": "circuit", "faithfulness": 0.5},
    ),
    (TrainReport(quality(), CURVE, 8000, 0.5, 100), 8, {"tokens": 1000, "loss": 1.0, "l0": 12.0}),
    (MOVED, 12, {"kind": "text", "change": 0.5, "control": 0.1}),
    (SUGGESTED, 2, {"dose": 1.0, "perplexity ratio": 1.1, "high": 1.2}),
    (ConceptRecovery({"fog": 7, "sea": 2}, {"fog": 0.5, "sea": 0.75}), 2, {"concept": "fog", "latent": 7, "F1": 0.5}),
    (SparseProbe((7, 2), (0.5, 0.75)), 2, {"latents": 1, "added": 7, "F1": 0.5}),
    (Matching(0.5, 0.1, torch.tensor([3, 1]), torch.tensor([0.5, 0.25])), 2, {"latent": 3, "cosine": 0.5}),
    (Completeness((("h0.1", "mlp1"), ()), (1.0, 2.0), (1.5, 2.0)), 2, {"removed": "h0.1 mlp1", "gap": 0.5}),
]


@pytest.mark.parametrize(("result", "rows", "first"), TABLES, ids=[type(one[0]).__name__ for one in TABLES])
def test_a_table_has_a_row_for_each_thing_measured(result: object, rows: int, first: dict[str, object]) -> None:
    frame = result.to_pandas()
    assert len(frame) == rows
    assert {name: frame[name][0] for name in first} == first


@dataclass(frozen=True)
class Rule:
    """A callable that is a value."""

    least: float

    def __call__(self, x: float) -> bool:
        """Whether it is that large."""
        return x >= self.least


@dataclass(frozen=True)
class Holder:
    """Something that holds one, and a function."""

    rule: Rule
    score: object

    __repr__ = summarise


def test_a_function_is_shown_by_its_name_and_a_callable_value_by_what_it_holds() -> None:
    assert repr(Holder(Rule(0.25), quality)) == "Holder(rule=Rule(least=0.25), score=quality)"


@dataclass(frozen=True)
class One:
    """A result of one value."""

    it: object

    __repr__ = summarise


SIXTY = "x" * 58  # with its quotes 60 characters
SHORT: list[tuple[object, str]] = [
    (3, "3"),
    (0.123456, "0.1235"),
    (None, "None"),
    ("fog", "'fog'"),
    (SIXTY, f"'{SIXTY}'"),
    (SIXTY + "x", f"'{'x' * 57}…'"),
    (torch.tensor(0.5), "0.5"),
    (torch.zeros(2, 3, dtype=torch.bool), "bool[2, 3]"),
    (np.zeros((4,), dtype=np.float32), "float32[4]"),
    (torch.nn.Linear(2, 2), "Linear(…)"),
    ((1, 2, 3, 4), "(1, 2, 3, 4)"),
    ([1, 2, 3, 4, 5], "5 items"),
    ({1}, "{1}"),
    (frozenset({"a"}), "{'a'}"),
    ({"a": 0.123456}, "{'a': 0.1235}"),
    ({i: i for i in range(4)}, "{0: 0, 1: 1, 2: 2, 3: 3}"),
    ({i: i for i in range(5)}, "5 entries"),
    (("x" * 26, "x" * 26), f"('{'x' * 26}', '{'x' * 26}')"),
    (("x" * 26, "x" * 27), "2 items"),
    (len, "len"),
]


@pytest.mark.parametrize(("value", "said"), SHORT, ids=[said[:20] for _, said in SHORT])
def test_a_value_is_shown_whole_where_it_has_sixty_characters_at_most(value: object, said: str) -> None:
    assert repr(One(value)) == f"One(it={said})"


class Said:
    """A result that prints as it is asked."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    __repr__ = summarise


def test_as_many_lines_as_fit_are_shown_whole_and_of_more_it_is_said_how_many() -> None:
    lines = [f"line {i}" for i in range(12)]
    assert repr(Said("\n".join(lines[:LINES]))) == "\n".join(["Said: line 0", *lines[1:LINES]])
    assert repr(Said("\n".join(lines[:9]))).splitlines() == ["Said: line 0", *lines[1:7], "… and 2 more lines"]
    assert repr(Said("\n".join(lines))).splitlines()[-1] == "… and 5 more lines"


def test_a_line_is_broken_only_where_it_is_too_long_and_never_at_a_hyphen() -> None:
    table = f"{'a    b':<{WIDTH - len('Said: ')}}"
    assert repr(Said(table)) == f"Said: {table}", "what is laid out in columns stays as it is"
    words = ["well-known"] * 12
    first, second = repr(Said(" ".join(words))).splitlines()
    assert len(first) <= WIDTH and second.startswith("    well-known")
    assert f"{first} {second.strip()}" == f"Said: {' '.join(words)}"
