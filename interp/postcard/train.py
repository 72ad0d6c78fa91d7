"""Train a net of the world on pictures drawn as they are needed; if killed, run again to go on."""

import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from hooks.disk import append_text, lock, read_state, write_file
from hooks.errors import InvalidArgument, NotFinite
from hooks.json_file import Kind, read_json, write_json
from hooks.progress import progress_bar
from interp.common.precision import precision
from interp.landmark.muon import Muon
from interp.postcard.answers import device_of, image_vectors, is_right, scale_of, text_vectors
from interp.postcard.captions import captions, truths
from interp.postcard.convnet import ConvNet
from interp.postcard.draw import draw
from interp.postcard.nets import Net, Which, as_input, clip_of, new_net, write_net
from interp.postcard.scene import LANDMARKS, Scene
from interp.postcard.splits import scenes

TEMPERATURE = 0.07
HOTTEST = math.log(100)
WARM_UP = 0.03
SHARD = 8
PICTURES = {"convnet": (400_000, 64), "vit": (240_000, 64), "clip": (300_000, 100)}
Steppers: TypeAlias = list[torch.optim.Optimizer]
RECIPE = "recipe.json"
CURE = "delete it to train from scratch, or put it back from a copy"


@dataclass(frozen=True)
class Recipe:
    """How a net is trained.

    Attributes:
        which: "convnet", "vit" or "clip".
        seed: of the weights; nets of two seeds see other pictures, too.
        pictures: seen in all, each once.
        batch: of them in a step.
        rate: the greatest learning rate, after a linear warm-up and before a cosine to zero.
        decay: of weights.
        small: a smaller net, for tests.
    """

    which: Which = "convnet"
    seed: int = 0
    pictures: int = 400_000
    batch: int = 64
    rate: float = 1e-3
    decay: float = 0.05
    small: bool = False

    @property
    def steps(self) -> int:
        """Steps in all."""
        return max(1, self.pictures // self.batch)

    def rate_at(self, step: int) -> float:
        """The learning rate at a step, counted from 0."""
        warm = max(1, round(WARM_UP * self.steps))
        return self.rate * min((step + 1) / warm, (1 + math.cos(math.pi * step / self.steps)) / 2)


KIND: Final = Kind("interp.postcard.recipe", "recipe of a net", "interp postcard train", Recipe)


def recipe_for(which: Which, seed: int = 0, pictures: int | None = None, *, small: bool = False) -> Recipe:
    """The recipe of the bundled net of this kind, or of one that sees another number of pictures.

    Examples:
        >>> recipe_for("convnet").pictures, recipe_for("clip").batch
        (400000, 100)
    """
    many, batch = PICTURES.get(which, PICTURES["convnet"])
    rate = 1e-3 if which == "convnet" and not small else 2e-3
    return Recipe(which, seed, pictures or many, 64 if small else batch, rate, small=small)


def train(
    folder: Path,
    recipe: Recipe,
    *,
    minutes: float | None = None,
    save_every: int = 250,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Path:
    """Train a net; the same folder and recipe again to resume.

    Writes `state.pt` (to resume from), `recipe.json`, `log.jsonl` and the net in `folder/model`.

    Args:
        folder: to write to.
        recipe: how.
        minutes: stop after so many, in the middle of the training; None to go on to its end.
        save_every: so many steps.
        device: where it is trained.
        progress: show a bar.

    Raises:
        InvalidArgument: the folder holds a training by another recipe.
        WrongState: another training is writing to the folder.

    Cost: two milliseconds a picture on one core.
    """
    with lock(folder, "training"):
        net = new_net(recipe.which, recipe.seed, small=recipe.small).train()
        nn.Module.to(net, device)
        if (clip := clip_of(net)) is not None:
            nn.init.constant_(scale_of(clip), math.log(1 / TEMPERATURE))
        steppers = _steppers(net, recipe)
        if recipe.which == "convnet":
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        first, spent = _resume(folder / "state.pt", net, steppers, recipe)
        write_json(folder / RECIPE, KIND, asdict(recipe))
        begun = time.monotonic()
        for step in progress_bar(
            range(first, recipe.steps), initial=first, total=recipe.steps, desc=recipe.which, progress=progress
        ):
            loss = _step(net, steppers, recipe, step)
            seconds = time.monotonic() - begun
            over = minutes is not None and seconds > 60 * minutes
            if (step + 1) % save_every == 0 or step + 1 == recipe.steps or over:
                _log(folder / "log.jsonl", net, {"step": step + 1, "loss": loss, "seconds": spent + seconds})
                _save(folder / "state.pt", net, steppers, recipe, step + 1, spent + seconds)
                write_net(net, folder / "model")
            if over:
                break
    return folder / "model"


def read_recipe(folder: Path) -> Recipe:
    """The recipe by which the net of a training's folder is trained.

    Raises:
        MissingFile: there is none.
        DamagedFile: it is torn or changed.

    Examples:
        ```python
        read_recipe(Path("nets/convnet-0")).pictures
        ```
    """
    return Recipe(**read_json(folder / RECIPE, KIND))


def _steppers(net: Net, recipe: Recipe) -> Steppers:
    """AdamW for a convnet; for a transformer, which it leaves on a plateau, Muon on the matrices inside its blocks."""
    betas, decay = (0.9, 0.98), recipe.decay
    if recipe.which == "convnet":
        return [torch.optim.AdamW(net.parameters(), lr=recipe.rate, betas=betas, weight_decay=decay)]
    inside = [w for name, w in net.named_parameters() if w.ndim == 2 and "layers." in name]
    others = [w for w in net.parameters() if all(w is not one for one in inside)]
    dtype = precision(device_of(net))
    return [
        Muon(inside, lr=recipe.rate, dtype=dtype, weight_decay=decay),
        torch.optim.AdamW(others, lr=recipe.rate, betas=betas, weight_decay=decay),
    ]


def _step(net: Net, steppers: Steppers, recipe: Recipe, step: int) -> float:
    """One step on pictures never seen before."""
    shown, drawn = _shard(recipe.seed * recipe.steps // SHARD + step // SHARD, recipe.batch)
    part = slice(step % SHARD * recipe.batch, (step % SHARD + 1) * recipe.batch)
    rate = recipe.rate_at(step)
    for group in (group for stepper in steppers for group in stepper.param_groups):
        group["lr"] = rate
    device = device_of(net)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == torch.bfloat16):
        loss = loss_of(net, shown[part], drawn[part], step)
    if not math.isfinite(loss.item()):
        raise NotFinite(f"the loss is {loss.item()} at step {step}, a rate of {rate:.2g}: resume with a lower rate")
    net.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    for stepper in steppers:
        stepper.step()
    if (clip := clip_of(net)) is not None:
        scale_of(clip).data.clamp_(max=HOTTEST)
    return loss.item()


@functools.lru_cache(maxsize=1)
def _shard(number: int, batch: int) -> tuple[tuple[Scene, ...], UInt8[np.ndarray, "batch channel height width"]]:
    """The scenes and pictures of several steps, which are drawn faster together."""
    shown = scenes("train", SHARD * batch, number * SHARD * batch)
    return shown, draw(shown).pixels


def loss_of(
    net: Net, shown: Sequence[Scene], drawn: UInt8[np.ndarray, "batch channel height width"], seed: int = 0
) -> Float[Tensor, ""]:
    """The training loss of a batch: of the landmark's name, or of a CLIP's pairs of picture and caption."""
    pixels = as_input(drawn).to(device_of(net))
    truth = torch.tensor([LANDMARKS.index(scene.landmark) for scene in shown], device=pixels.device)
    if isinstance(net, ConvNet):
        return F.cross_entropy(net(pixels.to(memory_format=torch.channels_last)), truth)
    clip = clip_of(net)
    if clip is None:
        return F.cross_entropy(net(pixels).logits, truth)
    said = captions(shown, seed)
    words = text_vectors(clip, [one.text for one in said])
    return contrast(
        image_vectors(clip, pixels), words, scale_of(clip), torch.from_numpy(truths(said, shown)).to(pixels.device)
    )


def contrast(
    images: Float[Tensor, "batch d_model"],
    words: Float[Tensor, "batch d_model"],
    log_scale: Float[Tensor, ""],
    true: Bool[Tensor, "batch batch"],
) -> Float[Tensor, ""]:
    """CLIP's symmetric loss, in which every text that is true of a picture counts as one of its own.

    `½ Σ_i [ −Σ_j t_ij log softmax_j(s_ij) ] / n + ½ Σ_j [ −Σ_i u_ij log softmax_i(s_ij) ] / n` with
    `s = e^σ · image · text`, `t_ij` the share of text j among those true of picture i, and `u_ij` that of picture i
    among those of which text j is true (Radford et al. 2021, arXiv:2103.00020, with several positives).
    """
    share = true.float() / true.sum(1, keepdim=True), true.T.float() / true.T.sum(1, keepdim=True)
    scores = log_scale.exp() * images @ words.T
    return (F.cross_entropy(scores, share[0]) + F.cross_entropy(scores.T, share[1])) / 2


def _log(file: Path, net: Net, line: Mapping[str, float | int]) -> None:
    """Add a line of how the net does on pictures of the validation split."""
    shown = scenes("validation", 500)
    net.eval()
    right = is_right(net, draw(shown).pixels, [scene.landmark for scene in shown]).float().mean()
    net.train()
    append_text(file, json.dumps({**line, "accuracy": round(float(right), 4)}) + "\n")


def _save(file: Path, net: Net, steppers: Steppers, recipe: Recipe, step: int, seconds: float) -> None:
    state = {
        "model": net.state_dict(),
        "optimizers": [one.state_dict() for one in steppers],
        "step": step,
        "seconds": seconds,
    }
    with write_file(file) as partial:
        torch.save({**state, "recipe": asdict(recipe)}, partial)


def _resume(file: Path, net: Net, steppers: Steppers, recipe: Recipe) -> tuple[int, float]:
    """Put a saved state back; the next step, and the seconds spent so far."""
    if not file.exists():
        return 0, 0.0
    state = read_state(file, ("recipe", "model", "optimizers", "step", "seconds"), CURE)
    for name, asked in asdict(recipe).items():
        if state["recipe"].get(name) != asked:
            raise InvalidArgument(
                f"{file.parent} holds a training with {name}={state['recipe'].get(name)!r}, and {name}={asked!r} was "
                "asked for: give another folder, or the same again to resume"
            )
    net.load_state_dict(state["model"])
    for stepper, held in zip(steppers, state["optimizers"], strict=True):
        stepper.load_state_dict(held)
    return state["step"], state["seconds"]
