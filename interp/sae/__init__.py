"""Sparse autoencoders: architectures (one per file), their trainer, their evaluation, and SAELens's file format."""

from interp.sae.batch_topk import BatchTopK
from interp.sae.callbacks import Callback
from interp.sae.checkpoint import Checkpoint
from interp.sae.compare import Comparison, Interval, compare
from interp.sae.concepts import (
    Absorption,
    ConceptRecovery,
    Labelled,
    SparseProbe,
    absorption,
    concept_recovery,
    k_sparse,
    labelled,
)
from interp.sae.course import Point, TrainReport
from interp.sae.crosscoder import Crosscoder
from interp.sae.evaluate import Quality, Reconstruction, evaluate, reconstruction
from interp.sae.files import load, save
from interp.sae.fold import folded
from interp.sae.gated import Gated
from interp.sae.harvested import harvested, harvested_across, harvested_at, harvested_pairs
from interp.sae.initial import from_data, median_bias, tie
from interp.sae.jumprelu import JumpReLU
from interp.sae.matching import Matching, match_truth, nearest_rows, stability
from interp.sae.matryoshka import MatryoshkaBatchTopK
from interp.sae.member import Member
from interp.sae.normalisation import Normalisation, expected_norm, mean_centred, side_by_side, whitened
from interp.sae.others import load_dictionary_learning, load_sparsify
from interp.sae.preselection import Preselected
from interp.sae.pretrained import pretrained, pull, push
from interp.sae.recovery import Recovery, recovery
from interp.sae.resample import Resampling
from interp.sae.sae import SAE
from interp.sae.schedule import Schedule
from interp.sae.sharded import ShardedTopK
from interp.sae.skip_transcoder import SkipTranscoder
from interp.sae.source import Source, across, activations_at, activations_of, normalised, pairs_of, stored
from interp.sae.splice import ablated, change_latents, check_fits, clamped, scaled, splice
from interp.sae.standard import Standard
from interp.sae.topk import TopK
from interp.sae.train import train, train_many
from interp.sae.transcoder import Transcoder
from interp.sae.writers import CSVWriter, JSONLWriter, TensorBoard, WeightsAndBiases

__all__ = [
    "SAE",
    "Absorption",
    "BatchTopK",
    "CSVWriter",
    "Callback",
    "Checkpoint",
    "Comparison",
    "ConceptRecovery",
    "Crosscoder",
    "Gated",
    "Interval",
    "JSONLWriter",
    "JumpReLU",
    "Labelled",
    "Matching",
    "MatryoshkaBatchTopK",
    "Member",
    "Normalisation",
    "Point",
    "Preselected",
    "Quality",
    "Reconstruction",
    "Recovery",
    "Resampling",
    "Schedule",
    "ShardedTopK",
    "SkipTranscoder",
    "Source",
    "SparseProbe",
    "Standard",
    "TensorBoard",
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
    "load_dictionary_learning",
    "load_sparsify",
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
    "save",
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
