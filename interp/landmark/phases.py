"""The course of a training run: phases of steps, each with its own learning rate."""

from dataclasses import dataclass

from hooks.errors import InvalidArgument


@dataclass(frozen=True)
class Phase:
    """Steps at a peak learning rate, after a warm-up and before a linear decay to zero over the last share of them.

    A phase that starts `anew` goes on from the weights alone, in half precision as they are exported, so that it can
    also be run on a model whose optimisers are lost. It ends at the mean of those weights and the ones it reached, as
    stochastic weight averaging does (Izmailov et al. 2018, arXiv:1803.05407).
    """

    steps: int
    learning_rate: float
    warm_up: int
    decay: float
    carried: float
    anew: bool = False

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
