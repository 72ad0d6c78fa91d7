"""Train a net of the world on pictures drawn as they are needed; if killed, run again to go on."""

import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from tqdm import tqdm

from hooks.disk import append_text, lock, read_pickled, write_file, write_text
from hooks.errors import InvalidArgument, NotFinite
from interp.common.precision import precision
from interp.postcard.answers import image_vectors, is_right, scale_of
from interp.postcard.captions import captions
from interp.postcard.convnet import ConvNet
from interp.postcard.draw import draw
from interp.postcard.nets import Net, Which, as_input, clip_of, new_net, write_net
from interp.postcard.scene import LANDMARKS, Scene
from interp.postcard.splits import scenes
from interp.postcard.words import caption_tokenizer

TEMPERATURE = 0.07
HOTTEST = math.log(100)
WARM_UP = 0.03
SHARD = 8
PICTURES = {"convnet": (400_000, 64), "vit": (240_000, 64), "clip": (240_000, 200)}
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
        decay: of weights, AdamW's.
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


def recipe_for(which: Which, seed: int = 0, pictures: int | None = None, *, small: bool = False) -> Recipe:
    """The recipe of the bundled net of this kind, or of one that sees another number of pictures.

    Examples:
        >>> recipe_for("convnet").pictures, recipe_for("clip").batch
        (400000, 200)
    """
    many, batch = PICTURES.get(which, PICTURES["convnet"])
    rate = 2e-3 if small and which == "convnet" else 1e-3
    return Recipe(which, seed, pictures or many, 64 if small else batch, rate, small=small)


def train(folder: Path, recipe: Recipe, *, minutes: float | None = None, save_every: int = 250) -> Path:
    """Train a net; the same folder and recipe again to resume.

    Writes `state.pt` (to resume from), `recipe.json`, `log.jsonl` and the net in `folder/model`.

    Args:
        folder: to write to.
        recipe: how.
        minutes: stop after so many, in the middle of the training; None to go on to its end.
        save_every: so many steps.

    Raises:
        InvalidArgument: the folder holds a training by another recipe.
        WrongState: another training is writing to the folder.

    Cost: two milliseconds a picture on one core.
    """
    with lock(folder, "training"):
        net = new_net(recipe.which, recipe.seed, small=recipe.small).train()
        if (clip := clip_of(net)) is not None:
            nn.init.constant_(scale_of(clip), math.log(1 / TEMPERATURE))
        stepper = torch.optim.AdamW(net.parameters(), lr=recipe.rate, betas=(0.9, 0.98), weight_decay=recipe.decay)
        if recipe.which == "convnet":
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        first, spent = _resume(folder / "state.pt", net, stepper, recipe)
        write_text(folder / "recipe.json", json.dumps(asdict(recipe)) + "\n")
        begun = time.monotonic()
        for step in tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc=recipe.which):
            loss = _step(net, stepper, recipe, step)
            seconds = time.monotonic() - begun
            over = minutes is not None and seconds > 60 * minutes
            if (step + 1) % save_every == 0 or step + 1 == recipe.steps or over:
                _log(folder / "log.jsonl", net, {"step": step + 1, "loss": loss, "seconds": spent + seconds})
                _save(folder / "state.pt", net, stepper, recipe, step + 1, spent + seconds)
                write_net(net, folder / "model")
            if over:
                break
    return folder / "model"


def _step(net: Net, stepper: torch.optim.Optimizer, recipe: Recipe, step: int) -> float:
    """One step on pictures never seen before."""
    shown, drawn = _shard(recipe.seed * recipe.steps // SHARD + step // SHARD, recipe.batch)
    part = slice(step % SHARD * recipe.batch, (step % SHARD + 1) * recipe.batch)
    rate = recipe.rate_at(step)
    for group in stepper.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16, enabled=precision(torch.device("cpu")) == torch.bfloat16):
        loss = loss_of(net, shown[part], drawn[part], step)
    if not math.isfinite(loss.item()):
        raise NotFinite(f"the loss is {loss.item()} at step {step}, a rate of {rate:.2g}: resume with a lower rate")
    stepper.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
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
    pixels = as_input(drawn)
    truth = torch.tensor([LANDMARKS.index(scene.landmark) for scene in shown])
    if isinstance(net, ConvNet):
        return F.cross_entropy(net(pixels.to(memory_format=torch.channels_last)), truth)
    clip = clip_of(net)
    if clip is None:
        return F.cross_entropy(net(pixels).logits, truth)
    texts = [said.text for said in captions(shown, seed)]
    read = caption_tokenizer()(texts, padding=True, truncation=True, return_tensors="pt")
    pooled = clip.text_model(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).pooler_output
    return contrast(
        image_vectors(clip, pixels), F.normalize(clip.text_projection(pooled), dim=-1), scale_of(clip), texts
    )


def contrast(
    images: Float[Tensor, "batch d_model"],
    words: Float[Tensor, "batch d_model"],
    log_scale: Float[Tensor, ""],
    texts: Sequence[str],
) -> Float[Tensor, ""]:
    """CLIP's symmetric loss, in which a picture's own text counts wherever the batch repeats it.

    `½ Σ_i [ −Σ_j t_ij log softmax_j(s_ij) − Σ_j t_ij log softmax_j(s_ji) ] / n` with `s = e^σ · image · text` and
    `t_ij` the share of j among the texts equal to text i (Radford et al. 2021, arXiv:2103.00020, several positives).
    """
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    same = torch.tensor([number[text] for text in texts])
    share = (same[:, None] == same).float()
    share = share / share.sum(1, keepdim=True)
    scores = log_scale.exp() * images @ words.T
    return (F.cross_entropy(scores, share) + F.cross_entropy(scores.T, share)) / 2


def _log(file: Path, net: Net, line: Mapping[str, float | int]) -> None:
    """Add a line of how the net does on pictures of the validation split."""
    shown = scenes("validation", 500)
    net.eval()
    right = is_right(net, draw(shown).pixels, [scene.landmark for scene in shown]).float().mean()
    net.train()
    append_text(file, json.dumps({**line, "accuracy": round(float(right), 4)}) + "\n")


def _save(file: Path, net: Net, stepper: torch.optim.Optimizer, recipe: Recipe, step: int, seconds: float) -> None:
    state = {"model": net.state_dict(), "optimizer": stepper.state_dict(), "step": step, "seconds": seconds}
    with write_file(file) as partial:
        torch.save({**state, "recipe": asdict(recipe)}, partial)


def _resume(file: Path, net: Net, stepper: torch.optim.Optimizer, recipe: Recipe) -> tuple[int, float]:
    """Put a saved state back; the next step, and the seconds spent so far."""
    if not file.exists():
        return 0, 0.0
    state = read_pickled(file, CURE)
    for name, asked in asdict(recipe).items():
        if state["recipe"].get(name) != asked:
            raise InvalidArgument(
                f"{file.parent} holds a training with {name}={state['recipe'].get(name)!r}, and {name}={asked!r} was "
                "asked for: give another folder, or the same again to resume"
            )
    net.load_state_dict(state["model"])
    stepper.load_state_dict(state["optimizer"])
    return state["step"], state["seconds"]
