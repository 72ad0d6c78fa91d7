"""What appears while a model is trained, or as models grow, and whether it is the model that jumps or the metric.

1. Metrics of one model, discontinuous and continuous ones of the same behaviour, from the same passes (`metrics.py`).
2. They are tracked over checkpoints or sizes (`track.py`).
3. Breaks are looked for against smooth curves, with the rate of false alarms (`changes.py`), and the verdict is given
   (`verdict.py`).
4. Features are followed over checkpoints: dictionaries matched one to the next (`features.py`), one crosscoder over
   all of them (`lifetimes.py`); and a clock's waves (`waves.py`).
"""

from hooks.border import guard
from interp.emergence.changes import Break, find_break, find_changes
from interp.emergence.features import FeatureHistory, follow_features
from interp.emergence.lifetimes import Lifetimes, measure_lifetimes
from interp.emergence.metrics import (
    AnswerScores,
    measure_answers,
    measure_induction_world,
    measure_sampled_match,
    measure_segments_world,
)
from interp.emergence.track import Track, read_track, track
from interp.emergence.verdict import Verdict, judge
from interp.emergence.waves import Waves, measure_clock_world, measure_waves

__all__ = [
    "AnswerScores",
    "Break",
    "FeatureHistory",
    "Lifetimes",
    "Track",
    "Verdict",
    "Waves",
    "find_break",
    "find_changes",
    "follow_features",
    "judge",
    "measure_answers",
    "measure_clock_world",
    "measure_induction_world",
    "measure_lifetimes",
    "measure_sampled_match",
    "measure_segments_world",
    "measure_waves",
    "read_track",
    "track",
]

guard(globals(), __all__)
