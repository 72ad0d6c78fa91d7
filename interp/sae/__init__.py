"""Sparse autoencoders: architectures (one per file), their trainer, their evaluation, and SAELens's file format."""

from interp.sae.evaluate import Quality, evaluate
from interp.sae.files import load, save
from interp.sae.sae import SAE
from interp.sae.source import Source, activations_of, stored
from interp.sae.topk import TopK
from interp.sae.train import TrainReport, train

__all__ = [
    "SAE",
    "Quality",
    "Source",
    "TopK",
    "TrainReport",
    "activations_of",
    "evaluate",
    "load",
    "save",
    "stored",
    "train",
]
