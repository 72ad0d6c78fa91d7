"""Heads: detectors for what an attention head does, each with what it would score if it did not."""

from hooks.border import guard
from interp.circuits.heads.copying import copying as copying
from interp.circuits.heads.duplicate_token import duplicate_token as duplicate_token
from interp.circuits.heads.induction import induction as induction
from interp.circuits.heads.previous_token import previous_token as previous_token
from interp.circuits.heads.scores import HeadScores as HeadScores

__all__ = ["HeadScores", "copying", "duplicate_token", "induction", "previous_token"]

guard(globals(), __all__)
