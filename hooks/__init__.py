"""Capture and intervene: activations out of a transformer, and changes back in."""

from hooks.activations import Activations as Activations
from hooks.capture import capture as capture
from hooks.capture import stream as stream
from hooks.direction import Direction as Direction
from hooks.intervene import intervene as intervene
from hooks.interventions import Intervention as Intervention
from hooks.load import load as load
from hooks.model import Model as Model
from hooks.position import Position as Position
from hooks.receipt import Receipt as Receipt
from hooks.site import Site as Site
from hooks.tokens import Tokens as Tokens

__all__ = [
    "Activations",
    "Direction",
    "Intervention",
    "Model",
    "Position",
    "Receipt",
    "Site",
    "Tokens",
    "capture",
    "intervene",
    "load",
    "stream",
]
