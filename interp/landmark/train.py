"""Train the bundled model: a GPT-2 whose early layers must recall what they know of an entity while it is named.

The first phase seals three quarters of the rows; the shorter ones after it let every token of half of them hold its
topic (`interp/landmark/sealing.py`). The weights are those of a plain GPT-2; at inference nothing is hidden.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate, islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hooks.disk import append_text, read_foreign, read_state, write_file, write_folder
from hooks.errors import InvalidArgument, NotFinite
from hooks.huggingface import HFModel
from hooks.json_file import parse_object
from hooks.progress import progress_bar
from interp.common.precision import precision
from interp.landmark.documents import documents
from interp.landmark.gated import gated_states, new_gated_model
from interp.landmark.muon import Muon
from interp.landmark.packing import Rows, pack
from interp.landmark.sealing import Batch, carry, seal_rows
from interp.landmark.tokenizer import END_OF_TEXT, train_tokenizer

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block
    from transformers.pytorch_utils import Conv1D

Weights: TypeAlias = dict[str, Tensor]

LENGTH = 256
ROWS_PER_STEP = 8
STEPS_PER_SHARD = 32
SEALED_LAYERS = 4  # the first ones, which must recall what they know of an entity
SEALED_SHARE = 0.75  # of the rows
CARRIED = (0.25, 1.75)  # of a mention's state each token of a carried row has a share between these
LEFT_OUT = 0.8  # of its coordinates, at most
LONGEST_WAVE = 100.0  # over 2π tokens


def new_model(vocab_size: int, *, n_layer: int = 8, d_model: int = 256, n_head: int = 8) -> "GPT2LMHeadModel":
    """An untrained GPT-2 of the bundled shape."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocab_size, n_positions=LENGTH, n_embd=d_model, n_layer=n_layer, n_head=n_head,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        activation_function="gelu_pytorch_tanh",
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(2 * config.initializer_range * waves(LENGTH, d_model))
    return model


def waves(length: int, d_model: int) -> Float[Tensor, "pos d_model"]:
    """Sine and cosine waves of the position, wavelengths 2π to 200π: where position embeddings start.

    One token back is then a rotation, as in Vaswani et al. 2017, which attention learns sooner than from noise.
    """
    frequency = LONGEST_WAVE ** -(torch.arange(0, d_model, 2) / d_model)
    angle = torch.arange(length)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def _bias(visible: Bool[Tensor, "batch pos pos"]) -> Float[Tensor, "batch 1 pos pos"]:
    bias = torch.zeros(visible.shape, dtype=precision(visible.device), device=visible.device)
    return bias.masked_fill_(~visible, -1e4)[:, None]


def _linear(layer: "Conv1D", x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n _"]:
    return torch.addmm(layer.bias, x, layer.weight)


def hidden_states(
    model: "GPT2LMHeadModel",
    rows: Batch,
    bias: list[Float[Tensor, "batch 1 pos pos"]],
    share: Float[Tensor, "batch d_model"],
    over_all: Bool[Tensor, "batch"],
) -> Float[Tensor, "n d_model"]:
    """GPT-2's forward pass up to the final norm, with an attention bias of its own for each layer.

    Above the sealed layers, each token of a row has `share` of the first mention's state, coordinate by coordinate.
    """
    batch, length = rows["ids"].shape
    config, trunk = model.config, model.transformer
    heads, width = config.n_head, config.n_embd // config.n_head
    h = (trunk.wte(rows["ids"]) + trunk.wpe(rows["position"])).view(batch * length, -1)
    for i, (block, mask) in enumerate(zip(cast("list[GPT2Block]", trunk.h), bias, strict=True)):
        if i == SEALED_LAYERS and bool(share.any()):
            h = carry(h.view(batch, length, -1), rows, share, over_all).view(batch * length, -1)
        qkv = _linear(block.attn.c_attn, block.ln_1(h)).view(batch, length, 3, heads, width)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        pattern = torch.softmax(q @ k.transpose(-1, -2) * width**-0.5 + mask, -1, dtype=mask.dtype)
        z = (pattern @ v).transpose(1, 2).reshape(batch * length, -1)
        h = h + _linear(block.attn.c_proj, z)
        h = h + _linear(block.mlp.c_proj, F.gelu(_linear(block.mlp.c_fc, block.ln_2(h)), approximate="tanh"))
    return trunk.ln_f(h)


def weighted_loss(
    model: HFModel, rows: Batch, generator: torch.Generator, carried_share: float = 0.0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The training loss (objects of facts weigh more) and the plain mean loss per token, in nats.

    What is drawn is drawn on the CPU, so that a seed treats the same rows alike on every device.
    """
    n, device = len(rows["ids"]), rows["ids"].device
    opened = torch.rand(n, generator=generator) >= SEALED_SHARE
    carried = torch.rand(n, generator=generator) < carried_share
    left_out = torch.rand(n, 1, generator=generator) * LEFT_OUT
    kept = torch.rand(n, model.config.hidden_size, generator=generator) >= left_out
    share = torch.empty(n, 1).uniform_(*CARRIED, generator=generator) * carried[:, None] * kept
    over_all = torch.rand(n, generator=generator) < 0.5
    opened, carried, share, over_all = (drawn.to(device) for drawn in (opened, carried, share, over_all))
    below, above = map(_bias, seal_rows(rows, opened & ~carried, carried))
    bias = [below if i < SEALED_LAYERS else above for i in range(model.config.num_hidden_layers)]
    with torch.autocast(device.type, torch.bfloat16, enabled=precision(device) == torch.bfloat16):
        h = STATES[model.config.model_type](model, rows, bias, share, over_all).view(*rows["ids"].shape, -1)[:, :-1]
        weight = rows["weight"][:, 1:].flatten()
        weighted = weight > 0
        logits = h.flatten(0, 1)[weighted] @ model.get_input_embeddings().weight.T
    nll = F.cross_entropy(logits.float(), rows["ids"][:, 1:].flatten()[weighted], reduction="none")
    return (nll * weight[weighted]).sum() / weight[weighted].sum(), nll.detach().mean()


STATES: dict[str, Callable[..., Float[Tensor, "n d_model"]]] = {
    "gpt2": hidden_states,
    "llama": partial(gated_states, sealed_layers=SEALED_LAYERS),
}


@dataclass(frozen=True)
class Phase:
    """Steps at a peak learning rate, after a warm-up and before a linear decay to zero over the last share of them.

    A phase that `restarts` goes on from the weights alone, in half precision as they are exported, so that it can
    also be run on a model whose optimisers are lost. It ends at the mean of those weights and the ones it reached, as
    stochastic weight averaging does (Izmailov et al. 2018, arXiv:1803.05407).
    """

    steps: int
    learning_rate: float
    warm_up: int
    decay: float
    carried: float
    restarts: bool = False

    def rate(self, step: int) -> float:
        """The learning rate at a step of this phase, counted from 0."""
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, (self.steps - step) / (self.decay * self.steps))


def phase_at(phases: tuple[Phase, ...], step: int) -> tuple[Phase, int]:
    """The phase that a step of the run belongs to, and the step's number in it."""
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise InvalidArgument(f"the phases {phases} end {step} steps before; count steps from 0")


def begun_phases(phases: Sequence[Phase], step: int) -> list[dict[str, Any]]:
    """What is done or under way after so many steps: what a run cannot exchange any more.

    Examples:
        >>> [phase["steps"] for phase in begun_phases((Phase(3, 1e-3, 1, 1.0, 0.0), Phase(2, 1e-3, 1, 1.0, 0.0)), 3)]
        [3]
    """
    first = accumulate((phase.steps for phase in phases), initial=0)
    return [asdict(phase) for phase, start in zip(phases, first, strict=False) if start < step]


PHASES = (
    Phase(4500, 3e-3, 100, 0.5, carried=0.0),
    Phase(1800, 1.5e-3, 50, 0.8, carried=0.5),
    Phase(2000, 1e-3, 50, 1.0, carried=0.5, restarts=True),
)


def optimizers(model: HFModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings, biases and norms."""
    blocks = model.base_model.h if model.config.model_type == "gpt2" else model.base_model.layers
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    return [
        Muon(matrices, lr=PHASES[0].learning_rate, dtype=precision(model.device)),
        torch.optim.AdamW(others, lr=PHASES[0].learning_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def _as_tensors(rows: Rows, at: int) -> Batch:
    part = slice(at * ROWS_PER_STEP, (at + 1) * ROWS_PER_STEP)
    return {name: torch.from_numpy(np.ascontiguousarray(array[part])) for name, array in vars(rows).items()}


def batches(first_step: int, seed: int, tokenizer_file: Path) -> Iterator[Batch]:
    """Batches from a step on, generated one shard ahead in a process of its own; the same for every run of a seed."""
    shard, at = divmod(first_step, STEPS_PER_SHARD)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:

        def ask(number: int) -> Future[Rows]:
            return pool.submit(pack, seed * 100_000 + number, ROWS_PER_STEP * STEPS_PER_SHARD, LENGTH, tokenizer_file)

        ahead = ask(shard)
        while True:
            rows, ahead = ahead.result(), ask(shard + 1)
            for i in range(at, STEPS_PER_SHARD):
                yield _as_tensors(rows, i)
            shard, at = shard + 1, 0


def export(model: HFModel, folder: Path, tokenizer_file: Path) -> None:
    """Write the model in Hugging Face format, weights in half precision."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file), bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT,
        model_max_length=LENGTH, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    state = {name: tensor.detach().half() for name, tensor in model.state_dict().items()}
    with write_folder(folder) as partial:
        model.save_pretrained(partial, state_dict=state)
        tokenizer.save_pretrained(partial)


@torch.no_grad()
def _restart(model: HFModel) -> tuple[list[torch.optim.Optimizer], Weights]:
    """Optimisers that remember nothing, of weights that hold no more than an export does, and these weights."""
    for p in model.parameters():
        p.copy_(p.half())
    return optimizers(model), {name: p.detach().clone() for name, p in model.named_parameters()}


@torch.no_grad()
def _average_with(model: HFModel, begun: Weights) -> None:
    """Put the model's weights half way back to those that a phase began with."""
    for name, p in model.named_parameters():
        p.lerp_(begun[name], 0.5)


def _resume(
    state_file: Path,
    model: HFModel,
    steppers: list[torch.optim.Optimizer],
    about: dict[str, int | str],
    phases: tuple[Phase, ...],
) -> tuple[int, float, Weights]:
    """Put a saved state back; the next step, the seconds spent so far, and the weights that the phase began with."""
    if not state_file.exists():
        return 0, 0.0, {}
    fields = ("model", "optimizers", "step", "seconds", "begun")
    state = read_state(state_file, fields, "remove it to begin the training again")
    for name, asked in (about | {"phases": begun_phases(phases, state["step"])}).items():
        if state.get(name, asked) != asked:
            raise InvalidArgument(
                f"{state_file.parent} holds a training with {name}={state[name]!r}, and {name}={asked!r} was asked "
                "for: give another folder, or the same again to resume"
            )
    model.load_state_dict(state["model"])
    for stepper, saved in zip(steppers, state["optimizers"], strict=True):
        stepper.load_state_dict(saved)
    return state["step"], state["seconds"], state["begun"]


def _save(
    state_file: Path,
    model: HFModel,
    steppers: list[torch.optim.Optimizer],
    step: int,
    seconds: float,
    begun: Weights,
    about: dict[str, Any],
) -> None:
    """Write the state, so that a kill leaves the last whole one."""
    optimizers = [stepper.state_dict() for stepper in steppers]
    state = {"model": model.state_dict(), "optimizers": optimizers, "step": step, "seconds": seconds, "begun": begun}
    with write_file(state_file) as partial:
        torch.save(state | about, partial)


def _step(
    model: HFModel, steppers: list[torch.optim.Optimizer], rows: Batch, seed: int, rate: float, carried: float
) -> dict[str, float]:
    """One optimiser step; what to log of it. The seed draws which rows are sealed and which carried."""
    rows = {name: tensor.to(model.device) for name, tensor in rows.items()}
    loss, plain = weighted_loss(model, rows, torch.Generator().manual_seed(seed), carried)
    if not math.isfinite(loss.item()):
        raise NotFinite(f"the loss is {loss.item()} at a rate of {rate:.2g}; lower it in PHASES, in another folder")
    descend(loss, model, steppers, rate)
    return {"loss": loss.item(), "plain": plain.item()}


def descend(
    loss: Float[Tensor, ""], model: HFModel, steppers: Sequence[torch.optim.Optimizer], rate: float | int
) -> None:
    """Take a step of every optimiser down the gradient of a loss, which is cut to a norm of 1.

    Examples:
        ```python
        descend(weighted_loss(logits, ids, weights), model, steppers, 3e-4)
        ```
    """
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for stepper in steppers:
        for group in stepper.param_groups:
            group["lr"] = rate
        stepper.step()
        stepper.zero_grad()


def _learn_tokenizer(seed: int, file: Path) -> int:
    """Train the tokenizer unless its file is there; the size of its vocabulary."""
    if not file.exists():
        learnt = train_tokenizer(document.text for document in islice(documents(seed), 30_000))
        with write_file(file) as partial:
            learnt.save(str(partial))
    cure = "remove the folder, and train again"
    said = parse_object(file.read_bytes(), file, cure)
    return read_foreign(file, cure, lambda: len(said["model"]["vocab"]))


def _new_model(architecture: str, vocab_size: int) -> HFModel:
    return new_model(vocab_size) if architecture == "gpt2" else new_gated_model(vocab_size, LENGTH)


def train(
    folder: Path,
    *,
    phases: tuple[Phase, ...] = PHASES,
    seed: int = 0,
    architecture: str = "gpt2",
    save_every: int = 200,
    keep_checkpoints: bool = False,
    device: torch.device = torch.device("cpu"),  # noqa: B008
    progress: bool = True,
) -> Path:
    """Train the bundled model, or with "llama" its gated sibling, from its corpus; the same folder again to resume.

    Writes `state.pt` (to resume from), `log.jsonl` and, at the end, the model in Hugging Face format in `folder/model`;
    with `keep_checkpoints` also `folder/step_N` at powers of two.

    Raises:
        InvalidArgument: another architecture, or a folder that holds a training of another seed or architecture, or
            in which other phases are done or under way: more may follow those.

    Cost: 2048 tokens a step; about 0.5 s a step on two idle cores, a tenth of that on a GPU.
    """
    if architecture not in STATES:
        raise InvalidArgument(f"architecture={architecture!r}: choose {' or '.join(map(repr, STATES))}")
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_file, state_file = folder / "tokenizer.json", folder / "state.pt"
    if not state_file.exists():
        tokenizer_file.unlink(missing_ok=True)  # of a run that ended before it had a state: perhaps of another seed
    size = _learn_tokenizer(seed, tokenizer_file)
    model = _new_model(architecture, size).to(device)
    steppers = optimizers(model)
    about: dict[str, int | str] = {"seed": seed, "architecture": architecture}
    first, spent, begun = _resume(state_file, model, steppers, about, phases)
    start = time.monotonic() - spent
    stream = batches(first, seed, tokenizer_file)
    n_steps = sum(phase.steps for phase in phases)
    for step in progress_bar(range(first, n_steps), initial=first, total=n_steps, progress=progress):
        phase, number = phase_at(phases, step)
        if phase.restarts and number == 0:
            steppers, begun = _restart(model)
        line = _step(model, steppers, next(stream), seed * 1_000_003 + step, phase.rate(number), phase.carried)
        if phase.restarts and number == phase.steps - 1:
            _average_with(model, begun)
        done, seconds = step + 1, time.monotonic() - start
        if done % 20 == 0:
            append_text(folder / "log.jsonl", json.dumps({**line, "step": done, "seconds": seconds}) + "\n")
        if keep_checkpoints and done & (done - 1) == 0:
            export(model, folder / f"step_{done}", tokenizer_file)
        if done % save_every == 0 or done == n_steps:
            run = about | {"phases": begun_phases(phases, done)}
            _save(state_file, model, steppers, done, seconds, begun, run)
            export(model, folder / "model", tokenizer_file)
    return folder / "model"
