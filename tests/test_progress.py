"""What takes a model over many texts shows how far it is when it is asked to, and otherwise writes nothing."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Direction, Model
from hooks.position import last
from hooks.site import resid_post
from interp import context, directions, memory, steering
from interp.emergence import measure_answers
from interp.memory import Edit, Fact, Query
from interp.memory.editing.change import LowRank
from interp.memory.outside import make_token_memory
from probes import Examples, gather, sweep

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("hooks", "probes", "interp")
MODELS = re.compile(r"\b(Model|AnyModel|Network|ModelPair|Towers)\b")
MANY = re.compile(
    r"\b(Sequence\[|Iterable\[|Data\b|Dataset|Images|Tokens|Task\b|PairTask|Conflict|Pairs|Edit\b|Examples)"
)

ONE_PASS = "one or two passes over what is given, all of which memory must hold: give it in parts"
NO_PASS = "no forward pass"
ONE_TEXT = "one prompt or a few"
LAZY = "what it returns is called by what shows the bar"
LACKING = {
    "hooks.capture_gradients": ONE_PASS,
    "hooks.intervene": NO_PASS,
    "hooks.store.plan": "one pass of one batch",
    "probes.cut_examples": NO_PASS,
    "interp.circuits.logit_difference": LAZY,
    "interp.circuits.word_log_probability": LAZY,
    "interp.circuits.edges.Ablation.values": ONE_PASS,
    "interp.circuits.edges.mean_ablation": ONE_PASS,
    "interp.circuits.edges.path_patching": ONE_PASS,
    "interp.circuits.edges.kl_from_clean": ONE_PASS,
    "interp.clip.decompose_vectors": ONE_PASS,
    "interp.clip.map_patches": ONE_PASS,
    "interp.context.attribute_conflict": ONE_PASS,
    "interp.context.find_function_vector": ONE_PASS,
    "interp.context.find_task_vector": ONE_PASS,
    "interp.context.measure_conflict": ONE_PASS,
    "interp.context.measure_context_score": ONE_PASS,
    "interp.directions.ffn_value": ONE_PASS,
    "interp.directions.lens_row": ONE_PASS,
    "interp.directions.unembedding": ONE_PASS,
    "interp.experts.measure_ablation": "three passes over what is given, all of which memory must hold",
    "interp.experts.measure_contributions": ONE_PASS,
    "interp.export.to_folder": ONE_TEXT,
    "interp.export.to_gguf_vector": ONE_TEXT,
    "interp.export.to_hook_script": ONE_TEXT,
    "interp.export.to_layer_tensors": ONE_TEXT,
    "interp.export.to_peft": ONE_TEXT,
    "interp.export.to_svec": ONE_TEXT,
    "interp.graphs.per_layer": NO_PASS,
    "interp.lenses.attribute": ONE_TEXT,
    "interp.lenses.components": LAZY,
    "interp.lenses.heads": LAZY,
    "interp.lenses.neurons": LAZY,
    "interp.memory.Triggers.examples_of": "a pass over the examples of one key",
    "interp.memory.composition": ONE_TEXT,
    "interp.memory.ft_l": "at most 25 steps over all facts together",
    "interp.memory.in_context": NO_PASS,
    "interp.memory.knn_memory": ONE_PASS,
    "interp.memory.merge": NO_PASS,
    "interp.memory.silence_neurons": ONE_TEXT,
    "interp.sae.across": LAZY,
    "interp.sae.activations_at": LAZY,
    "interp.show.positions_panel": NO_PASS,
    "interp.teaching.lesson_of_passages": NO_PASS,
    "interp.teaching.lesson_of_steering": "one fact, a generation for each dose up to the first that says it",
    "interp.tuning.name_difference": ONE_PASS,
    "interp.visualisation.compare_with_natural": ONE_PASS,
    "interp.visualisation.compare_with_texts": ONE_PASS,
    "interp.workbench.open": "the page shows how far an action is",
}


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each public function and method of a package, once, under the name by which it is found."""
    seen: set[tuple[str, str]] = set()
    for root in PACKAGES:
        package = importlib.import_module(root)
        names = [root, *(m.name for m in pkgutil.walk_packages(package.__path__, f"{root}.") if m.ispkg)]
        for name in names:
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", ()):
                for called, function in functions_of(public, getattr(module, public, None)):
                    key = function.__module__, function.__qualname__
                    if key not in seen:
                        seen.add(key)
                        yield f"{name}.{called}", function


def functions_of(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isclass(found):
        for member, value in vars(found).items():
            function = getattr(value, "__func__", value)
            if not member.startswith("_") and inspect.isfunction(function):
                yield f"{name}.{member}", function
    elif inspect.isfunction(found):
        yield name, found


def takes_long(function: Callable[..., Any]) -> bool:
    """Whether it takes a model and as many texts as somebody gives."""
    parameters = inspect.signature(function).parameters.values()
    kinds = [str(p.annotation) for p in parameters if p.name != "self"]
    return any(MODELS.search(kind) for kind in kinds) and any(MANY.search(kind) for kind in kinds)


def shows_progress(function: Callable[..., Any]) -> bool:
    return "progress" in inspect.signature(function).parameters


def test_what_takes_a_model_and_many_texts_can_show_progress_or_has_its_reason() -> None:
    long = {name: function for name, function in public_functions() if takes_long(function)}
    silent = {name for name, function in long.items() if not shows_progress(function)}
    assert len(long) > 120
    assert sorted(silent - LACKING.keys()) == [], "give it `progress: bool = False` and a bar"
    assert sorted(LACKING.keys() - silent) == [], "it has a bar now, or is gone: take it out of the list"


def names_of(node: ast.FunctionDef) -> set[str]:
    return {argument.arg for argument in node.args.args + node.args.kwonlyargs}


def test_every_argument_called_progress_turns_a_bar_on_or_is_passed_to_what_has_one() -> None:
    """It is the `disable` of a bar (`not progress`), or an argument of another call; nothing else shows bars."""
    breaches = []
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        where = path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and "progress" in {
                a.arg for a in node.args.args + node.args.kwonlyargs
            }:
                used = [n for one in node.body for n in ast.walk(one) if isinstance(n, ast.Name) and n.id == "progress"]
                breaches += [] if used else [f"{where}:{node.lineno} {node.name} does not use `progress`"]
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "tqdm":
                off = [k for k in node.keywords if k.arg in ("disable", None)]
                breaches += (
                    [] if off or where in ALWAYS else [f"{where}:{node.lineno} shows a bar that nothing turns off"]
                )
    assert breaches == []


ALWAYS = {
    "hooks/capture.py": "made where progress is asked for only",
    "interp/commands/arguments.py": "a line of a command, which --quiet takes away",
}


def edit_of(model: Model) -> Edit:
    update = LowRank(1, torch.ones(1, model.d_mlp), torch.ones(1, model.d_model))
    return Edit((Fact("Anna", "{} lives in", "Paris", "Oslo"),), "by hand", (update,), model.fingerprint)


def direction_of(model: Model) -> Direction:
    return Direction(torch.ones(model.d_model), resid_post[1], "by hand", 1.0, model.fingerprint)


TEXTS = ["fog over the bay", "a tall tower", "rain and sun", "the red bridge"]
PAIRS = context.PairTask("letters", tuple((one, one.upper()) for one in "abcdef"))
CALLS: dict[str, Callable[[Model, bool], Any]] = {
    "gather": lambda m, p: gather(m, TEXTS, [resid_post[1]], [last], progress=p),
    "sweep": lambda m, p: sweep(
        m,
        Examples([f"{t} {i}" for i in range(3) for t in TEXTS], [True, False] * 6, list(range(12))),
        [resid_post[1]],
        permutations=1,
        progress=p,
    ),
    "preview": lambda m, p: memory.preview(m, edit_of(m), TEXTS, progress=p),
    "scorecard": lambda m, p: memory.scorecard(
        m,
        edit_of(m),
        paraphrases=["the home of {} is"],
        neighbours=[Query("Bob lives in", "Rome")],
        others=[Query("Anna was born in", "Rome")],
        texts=TEXTS,
        progress=p,
    ),
    "measure_demonstrations": lambda m, p: context.measure_demonstrations(m, PAIRS, shots=2, n=4, progress=p),
    "measure_head_effects": lambda m, p: context.measure_head_effects(m, PAIRS, shots=2, n=4, trials=2, progress=p),
    "measure_answers": lambda m, p: measure_answers(m, TEXTS, ["."] * 4, progress=p),
    "caa": lambda m, p: directions.caa(m, directions.Pairs(TEXTS[:2], TEXTS[2:]), resid_post[1], last, progress=p),
    "compare": lambda m, p: directions.compare(m, {"a": direction_of(m), "b": direction_of(m)}, TEXTS, progress=p),
    "make_token_memory": lambda m, p: make_token_memory(m, TEXTS, resid_post[1], progress=p),
    "measure_damage": lambda m, p: steering.measure_damage(m, direction_of(m), 0.1, TEXTS, progress=p),
    "measure_projections": lambda m, p: steering.measure_projections(m, direction_of(m), TEXTS, progress=p),
}


@pytest.mark.parametrize("name", [*CALLS])
def test_a_bar_is_on_stderr_where_it_is_asked_for_and_otherwise_nothing(
    name: str, gpt2: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    CALLS[name](gpt2, False)
    assert capsys.readouterr() == ("", "")
    CALLS[name](gpt2, True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "%|" in err or "it/s" in err or "s/it" in err
