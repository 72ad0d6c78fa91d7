"""Train any world by its name, with checkpoints at logarithmically spaced steps; if killed, run again to go on."""

import json
import math
import re
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hooks.disk import append_text, lock, read_state, write_file, write_folder
from hooks.errors import InvalidArgument, NotFinite, UnknownName, nearest
from hooks.huggingface import HFModel
from hooks.progress import progress_bar
from interp.common.precision import precision
from interp.landmark.muon import Muon
from interp.landmark.train import descend
from interp.worlds.clock import CLOCK
from interp.worlds.experts import EXPERTS
from interp.worlds.induction import INDUCTION
from interp.worlds.ladder import LADDER
from interp.worlds.lists import LISTS
from interp.worlds.recipe import Rows, World
from interp.worlds.segments import SEGMENTS
from interp.worlds.steps import STEPS

WORLDS: dict[str, World] = {one.name: one for one in (LISTS, *INDUCTION, SEGMENTS, CLOCK, STEPS, EXPERTS, *LADDER)}
Steppers = list[torch.optim.Optimizer]


def world(name: str) -> World:
    """The world of this name.

    Raises:
        UnknownName: there is none.

    Examples:
        >>> world("clock").steps
        5000
    """
    if name not in WORLDS:
        raise UnknownName(f"no world is called {name!r}; did you mean {nearest(name, WORLDS)}?")
    return WORLDS[name]


def checkpoints(folder: str | Path) -> dict[int, Path]:
    """The checkpoints of a run by their step, the first steps first.

    Raises:
        InvalidArgument: the folder holds none.

    Examples:
        ```python
        for step, model in checkpoints("runs/clock").items(): ...
        ```
    """
    found = {int(m[1]): p for p in Path(folder).glob("step_*") if (m := re.fullmatch(r"step_(\d+)", p.name))}
    if not found:
        raise InvalidArgument(f"{folder} holds no checkpoints: give the folder that a training wrote to")
    return dict(sorted(found.items()))


def train(
    folder: Path,
    name: str,
    *,
    seed: int = 0,
    steps: int | None = None,
    save_every: int = 100,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Path:
    """Train a world; the same folder, name and seed again to resume.

    Writes `state.pt` (to resume from), `log.jsonl`, checkpoints in `folder/step_N` and the model in `folder/model`, all
    weights in half precision.

    Args:
        folder: to write to.
        name: of the world.
        seed: of the first weights and of the rows.
        steps: stop at this one, and go on later; by default at the world's last.
        save_every: so many steps.
        device: where it is trained.
        progress: show a bar.

    Raises:
        UnknownName: no world is called that.
        InvalidArgument: the folder holds a training of another world or seed.

    Cost: one to seven minutes of one core.
    """
    of = world(name)
    with lock(folder, "training"):
        torch.manual_seed(seed)
        model = of.build(seed)
        torch.nn.Module.to(model, device)
        steppers = _steppers(model, of)
        first, spent = _resume(folder / "state.pt", model, steppers, {"world": name, "seed": seed})
        kept, begun = _checkpoint_steps(of), time.monotonic()
        if first == 0:
            _export(model, of, folder / "step_0")
        last = min(of.steps, steps or of.steps)
        for step in progress_bar(range(first, last), initial=first, total=last, desc=name, progress=progress):
            loss = _step(model, steppers, of, of.draw(seed, step), of.rate_at(step))
            done, seconds = step + 1, spent + time.monotonic() - begun
            if done % 20 == 0:
                append_text(folder / "log.jsonl", json.dumps({"step": done, "loss": loss, "seconds": seconds}) + "\n")
            if done in kept:
                _export(model, of, folder / f"step_{done}")
            if done % save_every == 0 or done == last:
                _save(folder / "state.pt", model, steppers, done, seconds, {"world": name, "seed": seed})
        _export(model, of, folder / "model")
    return folder / "model"


def _checkpoint_steps(of: World) -> set[int]:
    """Logarithmically spaced steps."""
    return {round(step) for step in np.geomspace(4, of.steps, of.n_checkpoints)}


def _steppers(model: HFModel, of: World) -> Steppers:
    learnt = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inside = [p for name, p in learnt if of.muon and p.ndim == 2 and re.search(r"\.(h|layers)\.\d", name)]
    others = [p for _, p in learnt if all(p is not one for one in inside)]
    steppers: Steppers = [torch.optim.AdamW(others, lr=of.rate, betas=(0.9, 0.98), weight_decay=of.decay)]
    dtype = precision(model.device)
    return [*steppers, Muon(inside, lr=of.rate, dtype=dtype, weight_decay=of.decay)] if inside else steppers


def _step(model: HFModel, steppers: Steppers, of: World, rows: Rows, rate: float) -> float:
    ids, weights = rows.ids.to(model.device), rows.weights.to(model.device)[:, 1:].flatten()
    at = weights > 0
    given = model.base_model(ids, **({} if of.loss is None else {"output_router_logits": True}))
    h = given.last_hidden_state[:, :-1].flatten(0, 1)[at]
    loss = weighted_loss(model.get_output_embeddings()(h), ids[:, 1:].flatten()[at], weights[at])
    whole = loss if of.loss is None else loss + of.loss(given)
    if not math.isfinite(loss.item()):
        raise NotFinite(f"the loss of {of.name} is {loss.item()} at a rate of {rate:.2g}; lower the rate and resume")
    descend(whole, model, steppers, rate)
    return loss.item()


def weighted_loss(
    logits: Float[Tensor, "n vocab"], ids: Int[Tensor, "n"], weights: Float[Tensor, "n"]
) -> Float[Tensor, ""]:
    """The mean over tokens of −log p(token | those before it), weighted.

    Examples:
        >>> round(float(weighted_loss(torch.zeros(2, 4), torch.tensor([0, 3]), torch.tensor([1.0, 0.5])).exp()), 4)
        4.0
    """
    return (F.cross_entropy(logits.float(), ids, reduction="none") * weights).sum() / weights.sum()


@torch.no_grad()
def _export(model: HFModel, of: World, folder: Path) -> None:
    state = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    with write_folder(folder) as partial:
        model.save_pretrained(partial, state_dict=state)
        of.tokenizer().save_pretrained(partial)


def _save(
    file: Path, model: HFModel, steppers: Steppers, step: int, seconds: float, about: dict[str, int | str]
) -> None:
    state = {"model": model.state_dict(), "optimizers": [one.state_dict() for one in steppers]}
    with write_file(file) as partial:
        torch.save({**state, **about, "step": step, "seconds": seconds}, partial)


def _resume(file: Path, model: HFModel, steppers: Steppers, about: dict[str, int | str]) -> tuple[int, float]:
    """Put a saved state back; the next step, and the seconds spent so far."""
    if not file.exists():
        return 0, 0.0
    state = read_state(file, (*about, "model", "optimizers", "step", "seconds"), "delete it to train from scratch")
    for name, wanted in about.items():
        if state.get(name) != wanted:
            raise InvalidArgument(
                f"{file.parent} holds a training with {name}={state.get(name)!r}, and {name}={wanted!r} was asked "
                "for: give another folder, or the same again to resume"
            )
    model.load_state_dict(state["model"])
    for stepper, held in zip(steppers, state["optimizers"], strict=True):
        stepper.load_state_dict(held)
    return state["step"], state["seconds"]
