"""Results show themselves where interp.show is imported, by the panels made for them, and nothing lower knows of it."""

import subprocess
import sys
from dataclasses import replace

import pytest

from hooks import Model
from hooks.errors import InvalidType
from hooks.site import resid_pre
from interp.circuits import denoising, each_position, logit_difference, patch_sweep
from interp.circuits.heads import induction
from interp.features import SearchResult
from interp.lenses import LogitLens, attribute, rank, read
from interp.memory.neurons.composition import composition
from interp.show import panels_of
from interp.show.results import PANELS
from interp.steering import DoseResponse


def results(model: Model, found: SearchResult, response: DoseResponse) -> list[object]:
    metric = logit_difference(model, "a", "c")
    return [
        found,
        response,
        read(LogitLens(model), "fog"),
        rank(LogitLens(model), "fog", "g"),
        attribute(model, "fog", "g"),
        induction(model),
        patch_sweep(model, denoising("fog over", "fig ever"), metric, over=each_position(resid_pre)),
        composition(model, "fog over", 1),
    ]


def test_each_result_shows_the_panels_made_for_its_type_with_their_controls(
    gpt2: Model, found: SearchResult, response: DoseResponse
) -> None:
    for result in results(gpt2, found, response):
        shown = result._repr_html_()
        panels = panels_of(result)
        assert panels and shown.count("<figure>") == len(panels)
        assert all(panel.title.split(":")[0].split("<")[0][:12] in shown for panel in panels)
        assert shown.count('class="control"') == len(panels)


def test_hostile_names_in_a_result_are_shown_as_text(found: SearchResult) -> None:
    hostile = replace(found, concept="<script>alert(1)</script>")
    assert "<script>alert" not in hostile._repr_html_()


def test_what_has_no_panel_is_refused_and_a_kind_of_a_result_is_shown_as_one(found: SearchResult) -> None:
    with pytest.raises(InvalidType, match="no panel shows a int; there are panels of Agreement"):
        panels_of(3)
    assert all(callable(kind._repr_html_) for kind in PANELS)


def test_results_have_no_html_before_show_is_imported() -> None:
    code = (
        "from interp.lenses import LensReading; before = hasattr(LensReading, '_repr_html_'); import interp.show; "
        "print(before, hasattr(LensReading, '_repr_html_'))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
