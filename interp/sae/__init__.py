"""Sparse autoencoders: architectures (one per file), their trainer, their evaluation, and SAELens's file format."""

from hooks.border import guard
from interp.sae.architectures.batch_topk import BatchTopK
from interp.sae.architectures.cross_layer_transcoder import CrossLayerTranscoder
from interp.sae.architectures.crosscoder import Crosscoder
from interp.sae.architectures.gated import Gated
from interp.sae.architectures.initialisation import from_data, median_bias, tie
from interp.sae.architectures.jumprelu import JumpReLU
from interp.sae.architectures.matching_pursuit import MatchingPursuit
from interp.sae.architectures.matryoshka import MatryoshkaBatchTopK
from interp.sae.architectures.sae import SAE, folded
from interp.sae.architectures.sharded import ShardedTopK
from interp.sae.architectures.skip_transcoder import SkipTranscoder
from interp.sae.architectures.sparse_coder import SparseCoder
from interp.sae.architectures.standard import Standard
from interp.sae.architectures.temporal import Temporal
from interp.sae.architectures.topk import TopK
from interp.sae.architectures.transcoder import Transcoder
from interp.sae.data.normalisation import (
    Normalisation,
    RowNorm,
    expected_norm,
    mean_centred,
    rms_scaled,
    side_by_side,
    whitened,
)
from interp.sae.data.source import Source, across, activations_at, activations_of, normalised, pairs_of, stored
from interp.sae.data.store_source import harvested, harvested_across, harvested_at, harvested_pairs
from interp.sae.evaluation.compare import Comparison, Interval, compare
from interp.sae.evaluation.concepts import (
    Absorption,
    ConceptRecovery,
    Labelled,
    SparseProbe,
    absorption,
    concept_recovery,
    k_sparse,
    labelled,
)
from interp.sae.evaluation.evaluate import Quality, Reconstruction, evaluate, reconstruction
from interp.sae.evaluation.matching import Matching, match_truth, nearest_rows, stability
from interp.sae.evaluation.recovery import Recovery, recovery
from interp.sae.evaluation.replacement import replace_layers
from interp.sae.evaluation.splice import ablated, change_latents, check_fits, clamped, scaled, splice
from interp.sae.io.cross_layer_files import load_cross_layer, load_gemma_scope_layers, save_cross_layer
from interp.sae.io.files import load, save
from interp.sae.io.other_libraries import load_dictionary_learning, load_sparsify
from interp.sae.io.pretrained import pretrained, pull, push
from interp.sae.io.transcoder_files import load_gemma_scope, load_transcoder, load_transcoders
from interp.sae.numerics.preselection import Preselected
from interp.sae.training.callbacks import Callback
from interp.sae.training.checkpoint import Checkpoint
from interp.sae.training.history import Point, TrainReport
from interp.sae.training.member import Member
from interp.sae.training.resample import Resampling
from interp.sae.training.schedule import Schedule
from interp.sae.training.train import train, train_many
from interp.sae.training.writers import CSVWriter, JSONLWriter, TensorBoard, WeightsAndBiases

__all__ = [
    "SAE",
    "Absorption",
    "BatchTopK",
    "CSVWriter",
    "Callback",
    "Checkpoint",
    "Comparison",
    "ConceptRecovery",
    "CrossLayerTranscoder",
    "Crosscoder",
    "Gated",
    "Interval",
    "JSONLWriter",
    "JumpReLU",
    "Labelled",
    "Matching",
    "MatchingPursuit",
    "MatryoshkaBatchTopK",
    "Member",
    "Normalisation",
    "Point",
    "Preselected",
    "Quality",
    "Reconstruction",
    "Recovery",
    "Resampling",
    "RowNorm",
    "Schedule",
    "ShardedTopK",
    "SkipTranscoder",
    "Source",
    "SparseCoder",
    "SparseProbe",
    "Standard",
    "TensorBoard",
    "Temporal",
    "TopK",
    "TrainReport",
    "Transcoder",
    "WeightsAndBiases",
    "ablated",
    "absorption",
    "across",
    "activations_at",
    "activations_of",
    "change_latents",
    "check_fits",
    "clamped",
    "compare",
    "concept_recovery",
    "evaluate",
    "expected_norm",
    "folded",
    "from_data",
    "harvested",
    "harvested_across",
    "harvested_at",
    "harvested_pairs",
    "k_sparse",
    "labelled",
    "load",
    "load_cross_layer",
    "load_dictionary_learning",
    "load_gemma_scope",
    "load_gemma_scope_layers",
    "load_sparsify",
    "load_transcoder",
    "load_transcoders",
    "match_truth",
    "mean_centred",
    "median_bias",
    "nearest_rows",
    "normalised",
    "pairs_of",
    "pretrained",
    "pull",
    "push",
    "reconstruction",
    "recovery",
    "replace_layers",
    "rms_scaled",
    "save",
    "save_cross_layer",
    "scaled",
    "side_by_side",
    "splice",
    "stability",
    "stored",
    "tie",
    "train",
    "train_many",
    "whitened",
]

guard(globals(), __all__)
