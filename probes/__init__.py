"""Directions read out of activations: one probe per file, how well each detects a label, and whether to believe it."""

from hooks.border import guard
from probes.attention import AttentionProbe as AttentionProbe
from probes.causal import CausalTest as CausalTest
from probes.causal import does_it_matter as does_it_matter
from probes.causal import logit_difference as logit_difference
from probes.ccs import CCS as CCS
from probes.cells import Cells as Cells
from probes.cells import gather as gather
from probes.code_length import CodeLength as CodeLength
from probes.code_length import online_code as online_code
from probes.difference_of_means import DifferenceOfMeans as DifferenceOfMeans
from probes.examples import Examples as Examples
from probes.examples import cut_examples as cut_examples
from probes.grid import ProbeGrid as ProbeGrid
from probes.k_sparse import KSparse as KSparse
from probes.lda import LDA as LDA
from probes.leace import LEACE as LEACE
from probes.least_squares import LeastSquares as LeastSquares
from probes.logistic import Logistic as Logistic
from probes.mass_mean import MassMean as MassMean
from probes.mean_projection import MeanProjection as MeanProjection
from probes.metrics import Detection as Detection
from probes.metrics import auroc as auroc
from probes.metrics import best_threshold as best_threshold
from probes.metrics import detection as detection
from probes.mlp import MLP as MLP
from probes.multinomial import Multinomial as Multinomial
from probes.probe import Probe as Probe
from probes.rankings import by_f_statistic as by_f_statistic
from probes.rankings import by_l1 as by_l1
from probes.rankings import by_logistic as by_logistic
from probes.rankings import by_mean_difference as by_mean_difference
from probes.rankings import by_mutual_information as by_mutual_information
from probes.ridge import Ridge as Ridge
from probes.store_rows import StoreBatches as StoreBatches
from probes.store_rows import read_cells as read_cells
from probes.sweep import measure as measure
from probes.sweep import sweep as sweep
from probes.untrained_model import make_untrained_model as make_untrained_model

__all__ = [
    "CCS",
    "LDA",
    "LEACE",
    "MLP",
    "AttentionProbe",
    "Cells",
    "CodeLength",
    "Detection",
    "DifferenceOfMeans",
    "Examples",
    "KSparse",
    "LeastSquares",
    "Logistic",
    "MassMean",
    "CausalTest",
    "MeanProjection",
    "Multinomial",
    "Probe",
    "ProbeGrid",
    "Ridge",
    "StoreBatches",
    "auroc",
    "best_threshold",
    "by_f_statistic",
    "by_l1",
    "by_logistic",
    "by_mean_difference",
    "by_mutual_information",
    "cut_examples",
    "detection",
    "does_it_matter",
    "gather",
    "logit_difference",
    "measure",
    "online_code",
    "read_cells",
    "sweep",
    "make_untrained_model",
]

guard(globals(), __all__)
