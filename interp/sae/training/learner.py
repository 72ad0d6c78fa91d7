"""One autoencoder in training: its optimiser, what is watched, and one step."""

from collections.abc import Callable, Mapping
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.store.processes import Process
from interp.sae.architectures.objective import Objective, Step
from interp.sae.architectures.sae import SAE
from interp.sae.data.distributed import average, average_gradients, local_rows, maximum, share_batch
from interp.sae.training.adam import Adam
from interp.sae.training.history import History, Point
from interp.sae.training.plan import Plan
from interp.sae.training.resample import Resampling, resample

POINTS: Final = 200  # points of a curve
CACHED: Final = 256  # rows of a decoder that a processor keeps at hand

Rows = Callable[[int, torch.Generator], Tensor]


@final
class Learner:
    """An autoencoder, its Adam, and its curve, over `steps` batches that the processes `here` share."""

    def __init__(self, sae: SAE, lr: float, variance: Float[Tensor, ""], plan: Plan, steps: int, here: Process) -> None:
        self.sae, self.lr, self.plan, self.steps, self.here = sae, lr, plan, steps, here
        self.objective: Objective[Any] = sae.objective()
        self.optimiser = Adam(sae.parameters(), lr=lr, betas=self.objective.betas)
        self.history = History(sae.d_sae, variance, plan.dead_after, max(1, steps // POINTS))
        self.settled = 1 - (plan.schedule.decay or 0.2)  # the share of the run after which weights hardly move

    def step(self, step: int, rows: Float[Tensor, "n *d"], more: Rows) -> Point | None:
        """Learn from one batch, having resampled dead latents where that is due on rows that `more` draws."""
        plan, steps = self.plan, self.steps
        if plan.resampling is not None and plan.resampling.due(step, steps):
            self._resample(plan.resampling, step, more)
        self.objective.sparsity_share = plan.schedule.sparsity((step + 1) / steps)
        done = self._gradients(rows)
        update(self.objective, self.optimiser, self.lr * plan.schedule.rate(step / steps), plan.clip)
        return self.history.add(done, len(rows), settled=step >= self.settled * steps)

    def state(self) -> dict[str, Any]:
        """Weights, the optimiser's moments and the history."""
        return {
            "sae": self.sae.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another run was."""
        self.sae.load_state_dict(state["sae"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.history.restore(state["history"])

    def _gradients(self, rows: Float[Tensor, "n *d"]) -> Step:
        """The batch's gradients, in every process the same."""
        if self.here.world == 1 or self.sae.sharded:
            return self.objective.gradients(rows, self.history.dead)
        with share_batch(self.here):
            own = self.objective.gradients(local_rows(rows), self.history.dead)
            average_gradients([*self.sae.parameters()])
            loss, squared_error, l0 = average(torch.stack([own.loss, own.squared_error, own.l0]))
            return Step(loss, squared_error, l0, maximum(own.largest))

    def _resample(self, resampling: Resampling, step: int, more: Rows) -> None:
        generator = torch.Generator().manual_seed(self.plan.seed + 1_000_003 * step)
        dead = self.history.dead
        resample(self.objective, self.optimiser, more(resampling.rows, generator), dead, generator)
        self.history.silent[dead] = 0


@torch.no_grad()
def update(objective: Objective[Any], optimiser: Adam, lr: float, clip: float | int | None) -> None:
    """One step of Adam, clipping inside its kernel; the constraints on the weights are restored.

        g <- g min(1, clip / ||g||),        ||g|| over all parameters

    Where decoder rows keep unit norm, their gradients first lose what points along the rows.

    Examples:
        ```python
        objective.gradients(rows, dead)
        update(objective, optimiser, lr=1e-3, clip=1.0)
        ```
    """
    W_dec = objective.sae.W_dec
    if objective.unit_norm_decoder and (grad := W_dec.grad) is not None:
        rows = CACHED if grad.device.type == "cpu" else len(grad)
        for g, W in zip(grad.split(rows), W_dec.split(rows), strict=True):
            g.addcmul_(torch.linalg.vecdot(g, W)[:, None], W, value=-1)
    if clip is not None:
        scale = (objective.gradient_norm() / clip).clamp(min=1.0).float()
        optimiser.grad_scale = scale  # pyright: ignore[reportAttributeAccessIssue]
    optimiser.param_groups[0]["lr"] = lr
    optimiser.step()
    objective.constrain()
