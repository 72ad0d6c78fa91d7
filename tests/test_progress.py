"""What takes a model over many texts shows how far it is, from the second second on, unless it is asked not to."""

import ast
import importlib
import inspect
import pkgutil
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from hooks import Direction, Model
from hooks.position import last
from hooks.progress import progress_bar
from hooks.site import resid_post
from interp import context, directions, memory, steering
from interp.emergence import measure_answers
from interp.memory import Edit, Fact, Query
from interp.memory.editing.change import LowRank
from interp.memory.outside import make_token_memory
from probes import Examples, gather, sweep
from tests.interp.context.nets import TASKS, relation_model

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
    assert sorted(silent - LACKING.keys()) == [], "give it `progress: bool = True` and a bar"
    assert sorted(LACKING.keys() - silent) == [], "it has a bar now, or is gone: take it out of the list"


SINGLE_PASSES = {"hooks.capture": "called in loops", "hooks.stream": "read by what shows the bar"}


def test_every_function_shows_its_bar_by_itself_but_a_single_pass() -> None:
    """The bar waits for two seconds, so that what is short shows none."""
    off = set()
    for name, function in public_functions():
        progress = inspect.signature(function).parameters.get("progress")
        if progress is not None and progress.default is not True:
            off.add(name)
    assert off == SINGLE_PASSES.keys()


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def test_every_argument_called_progress_turns_a_bar_on_or_is_passed_to_what_has_one() -> None:
    breaches = []
    for where, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and "progress" in {
                a.arg for a in node.args.args + node.args.kwonlyargs
            }:
                used = [n for one in node.body for n in ast.walk(one) if isinstance(n, ast.Name) and n.id == "progress"]
                stub = all(isinstance(one, ast.Expr) for one in node.body)
                breaches += [] if used or stub else [f"{where}:{node.lineno} {node.name} does not use `progress`"]
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "tqdm":
                breaches.append(f"{where}:{node.lineno} makes a bar of its own: take progress_bar")
    assert breaches == []


def test_every_call_of_what_shows_a_bar_says_whether_it_does() -> None:
    """Else what was asked to be quiet would show the bars of what it calls."""
    breaches = []
    for where, tree in sources():
        module = importlib.import_module(where.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and shows_by_itself(called_by(node, module)):
                said = any(keyword.arg in ("progress", None) for keyword in node.keywords)
                breaches += [] if said else [f"{where}:{node.lineno} {ast.unparse(node.func)} is not given `progress`"]
    assert breaches == []


def called_by(node: ast.Call, module: ModuleType) -> Any:
    """The function that a call of a module's own or imported name goes to; None of a call of anything else."""
    found: Any = module
    for name in ast.unparse(node.func).split("."):
        found = getattr(found, name, None)
    return found if inspect.isfunction(found) and found.__module__.split(".")[0] in PACKAGES else None


def shows_by_itself(function: Any) -> bool:
    return (
        function is not None and getattr(inspect.signature(function).parameters.get("progress"), "default", 0) is True
    )


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
    "measure_head_effects": lambda _, p: context.measure_head_effects(
        relation_model(), TASKS["a"], shots=2, n=4, trials=2, progress=p
    ),
    "measure_answers": lambda m, p: measure_answers(m, TEXTS, ["."] * 4, progress=p),
    "caa": lambda m, p: directions.caa(m, directions.Pairs(TEXTS[:2], TEXTS[2:]), resid_post[1], last, progress=p),
    "compare": lambda m, p: directions.compare(m, {"a": direction_of(m), "b": direction_of(m)}, TEXTS, progress=p),
    "make_token_memory": lambda m, p: make_token_memory(m, TEXTS, resid_post[1], progress=p),
    "measure_damage": lambda m, p: steering.measure_damage(m, direction_of(m), 0.1, TEXTS, progress=p),
    "measure_projections": lambda m, p: steering.measure_projections(m, direction_of(m), TEXTS, progress=p),
}


@pytest.mark.parametrize("name", [*CALLS])
def test_a_bar_is_on_stderr_unless_it_is_turned_off(
    name: str, gpt2: Model, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hooks.progress.DELAY", 0.0)
    CALLS[name](gpt2, False)
    assert capsys.readouterr() == ("", "")
    CALLS[name](gpt2, True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "%|" in err or "it/s" in err or "s/it" in err


def test_a_bar_is_shown_from_the_second_second_on_and_what_is_shorter_shows_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seconds, shown in ((1.9, False), (2.1, True)):
        bar = progress_bar(range(3), "reading", progress=True)
        bar.start_t -= seconds
        bar.last_print_t = 0.0
        assert [*bar] == [0, 1, 2]
        assert ("reading" in capsys.readouterr().err) is shown


def test_a_bar_starts_no_thread(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    assert sum(progress_bar(range(3), "reading", progress=True)) == 3
    assert set(threading.enumerate()) == before
    assert capsys.readouterr().err == ""
