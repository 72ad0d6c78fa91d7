"""What a model takes from its context: demonstrations, heads and vectors of a task, written steps, conflicts.

1. A task is pairs and a format; prompts are made of it with one thing changed, such as every label made wrong
   (`task.py`).
2. What each change costs is measured (`demonstrations.py`), and how much sooner text is predicted in context
   (`score.py`).
3. Heads that bring the task are found, and their vector is added where there are no demonstrations
   (`function_vectors.py`).
4. Context against weights: who answers when they disagree, and which heads decide (`conflict.py`).
5. Steps: what of the answer hangs on the steps written before it (`steps.py`), and whether a bridge between two hops is
   read, used, or too late (`hops.py`, `patchscope.py`).
"""

from hooks.border import guard
from interp.context.conflict import Conflict, ConflictShares, attribute_conflict, measure_conflict, scale_heads
from interp.context.demonstrations import DemonstrationEffects, measure_demonstrations
from interp.context.function_vectors import (
    Transfer,
    find_function_vector,
    find_task_vector,
    measure_head_effects,
    measure_transfer,
)
from interp.context.hops import BackPatching, Bridges, back_patch, swap_bridges
from interp.context.patchscope import Patchscope, patchscope
from interp.context.score import ContextScore, measure_context_score
from interp.context.steps import StepCase, StepEffects, measure_steps
from interp.context.task import CHANGES, Change, PairTask, derange

__all__ = [
    "CHANGES",
    "BackPatching",
    "Bridges",
    "Change",
    "Conflict",
    "ConflictShares",
    "ContextScore",
    "DemonstrationEffects",
    "PairTask",
    "Patchscope",
    "StepCase",
    "StepEffects",
    "Transfer",
    "attribute_conflict",
    "back_patch",
    "derange",
    "find_function_vector",
    "find_task_vector",
    "measure_conflict",
    "measure_context_score",
    "measure_demonstrations",
    "measure_head_effects",
    "measure_steps",
    "measure_transfer",
    "patchscope",
    "scale_heads",
    "swap_bridges",
]

guard(globals(), __all__)
