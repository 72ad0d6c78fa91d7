"""Interpretability workbench: find directions in a transformer, steer with them, edit its facts, check every result.

Import what you need: `from interp.sae import TopK, train`. Nothing heavy is loaded until it is used.
"""

__all__ = [
    "atlas",
    "circuits",
    "clip",
    "context",
    "directions",
    "emergence",
    "errors",
    "experts",
    "export",
    "features",
    "landmark",
    "lenses",
    "memory",
    "postcard",
    "sae",
    "scale",
    "show",
    "steering",
    "teaching",
    "tuning",
    "visualisation",
    "workbench",
    "worlds",
]
