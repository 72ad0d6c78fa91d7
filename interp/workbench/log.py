"""The log of a session: each action as a line of Python that gives the same numbers, and a notebook of all of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

IMPORTS: Final = """from hooks import Direction, load
from hooks.fingerprint import fingerprint
from hooks.site import LayerSites, Site
from interp.circuits import denoising, each_position, logit_difference, patch_sweep
from interp.circuits.edges import Task, eap_ig, edge_attribution, faithfulness_curve, random_scores
from interp.directions import mean_centring
from interp.export import to_gguf_vector, to_hook_script, to_peft
from interp.features import FeatureIndex, explain_text, map_dictionary
from interp.graphs import attribution_graph, neurons, read_transcoders, scale_features, shuffle_decoders, steer_features
from interp.lenses import LogitLens, attribute, read
from interp.memory import Edit, Fact, preview
from interp.memory.editors.registry import make_editors
from interp.sae import load as load_sae
from interp.steering import Names, Recipe, Sampling, add_direction, measure_dose_response, steer
from interp.workbench.search import LabelTable, find_by_label"""


@final
@dataclass(frozen=True)
class Entry:
    """One action: what was asked, the Python that does the same, and the value that its last line has.

    Attributes:
        kind: the action's name.
        given: its arguments.
        code: lines of Python, of which the last sets `value`.
        value: what `value` is then, as JSON has it.
    """

    kind: str
    given: Mapping[str, Any]
    code: str
    value: Any


def write_script(head: str, entries: Sequence[Entry]) -> str:
    """The session as one Python file.

    Examples:
        >>> print(write_script("model = load('landmark')", [Entry("ask", {}, "value = 1 + 1", 2)]).splitlines()[-1])
        value = 1 + 1
    """
    return "\n\n".join([IMPORTS, head, *(entry.code for entry in entries)]) + "\n"


def write_notebook(head: str, entries: Sequence[Entry]) -> str:
    """The session as a notebook: a cell for what it begins with, and one for each action.

    Examples:
        >>> made = json.loads(write_notebook("model = load('landmark')", [Entry("ask", {}, "value = 1 + 1", 2)]))
        >>> [cell["cell_type"] for cell in made["cells"]]
        ['code', 'code']
    """
    cells = [f"{IMPORTS}\n\n{head}", *(f"{entry.code}\nvalue" for entry in entries)]
    return json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"language_info": {"name": "python"}},
            "cells": [
                {
                    "id": f"action-{number}",
                    "cell_type": "code",
                    "metadata": {},
                    "execution_count": None,
                    "outputs": [],
                    "source": cell,
                }
                for number, cell in enumerate(cells)
            ],
        },
        indent=1,
    )
