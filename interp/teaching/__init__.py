"""The same fact taught in several ways (edit, context, store, passage, steering): what each says, breaks and costs.

1. `lesson`: one fact put to a model one way, how that is left again, what it takes, and its control.
2. `ways`: the ways by name, each a function from a model and a fact to a lesson.
3. `comparison`: the same cases by every way, next to the model untaught and each way's control; what is left after.
"""

from hooks.border import guard
from interp.teaching.comparison import COSTS, WayComparison, compare_ways
from interp.teaching.lesson import Lesson, lesson_of_edit, lesson_of_passages, lesson_of_steering
from interp.teaching.ways import WAYS, make_ways

__all__ = [
    "COSTS",
    "WAYS",
    "Lesson",
    "WayComparison",
    "compare_ways",
    "lesson_of_edit",
    "lesson_of_passages",
    "lesson_of_steering",
    "make_ways",
]

guard(globals(), __all__)
