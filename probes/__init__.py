"""Directions read out of activations: one probe per file, and how well scores detect a label."""

from probes.difference_of_means import DifferenceOfMeans
from probes.logistic import Logistic
from probes.metrics import Detection, auroc, best_threshold, detection
from probes.probe import Probe

__all__ = ["Detection", "DifferenceOfMeans", "Logistic", "Probe", "auroc", "best_threshold", "detection"]
