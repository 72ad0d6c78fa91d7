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
from interp.sae.architectures.sae import SAE, decoder_rows, fold_normalisation
from interp.sae.architectures.sharded import ShardedTopK
from interp.sae.architectures.sharded_cross_layer import ShardedCrossLayerTranscoder
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
    mean_centring,
    rms_scaling,
    side_by_side,
    whitening,
)
from interp.sae.data.source import (
    Source,
    across,
    activations_at,
    activations_of,
    drop_registers,
    normalise_source,
    pairs_of,
    tensor_source,
)
from interp.sae.data.store_source import read_across, read_activations, read_activations_at, read_pairs
from interp.sae.evaluation.compare import Comparison, Interval, compare
from interp.sae.evaluation.concepts import (
    Absorption,
    ConceptRecovery,
    LabelledTokens,
    SparseProbe,
    absorption,
    capture_labelled_tokens,
    concept_recovery,
    k_sparse,
)
from interp.sae.evaluation.evaluate import Quality, Reconstruction, evaluate, reconstruction
from interp.sae.evaluation.matching import Matching, match_truth, nearest_rows, stability
from interp.sae.evaluation.recovery import Recovery, recovery
from interp.sae.evaluation.replacement import replace_layers
from interp.sae.evaluation.splice import (
    ablate_latents,
    change_latents,
    check_fits,
    clamp_latents,
    scale_latents,
    splice,
)
from interp.sae.io.cross_layer_files import load_cross_layer, load_gemma_scope_layers, save_cross_layer
from interp.sae.io.cross_layer_shards import load_cross_layer_shards, save_cross_layer_shards
from interp.sae.io.files import load, save
from interp.sae.io.hub import load_pretrained, pull, push
from interp.sae.io.other_libraries import load_dictionary_learning, load_sparsify
from interp.sae.io.shards import load_shards, save_shards
from interp.sae.io.transcoder_files import load_gemma_scope, load_transcoder, load_transcoders
from interp.sae.numerics.preselection import PreselectedRanking
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
    "LabelledTokens",
    "Matching",
    "MatchingPursuit",
    "MatryoshkaBatchTopK",
    "Member",
    "Normalisation",
    "Point",
    "PreselectedRanking",
    "Quality",
    "Reconstruction",
    "Recovery",
    "Resampling",
    "RowNorm",
    "Schedule",
    "ShardedCrossLayerTranscoder",
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
    "ablate_latents",
    "absorption",
    "across",
    "activations_at",
    "activations_of",
    "change_latents",
    "check_fits",
    "clamp_latents",
    "compare",
    "decoder_rows",
    "concept_recovery",
    "evaluate",
    "expected_norm",
    "fold_normalisation",
    "from_data",
    "read_activations",
    "read_across",
    "read_activations_at",
    "read_pairs",
    "k_sparse",
    "capture_labelled_tokens",
    "load",
    "load_cross_layer",
    "load_dictionary_learning",
    "load_gemma_scope",
    "load_gemma_scope_layers",
    "load_sparsify",
    "load_transcoder",
    "load_transcoders",
    "match_truth",
    "mean_centring",
    "median_bias",
    "nearest_rows",
    "drop_registers",
    "normalise_source",
    "pairs_of",
    "load_pretrained",
    "load_cross_layer_shards",
    "load_shards",
    "pull",
    "push",
    "reconstruction",
    "recovery",
    "replace_layers",
    "rms_scaling",
    "save",
    "save_cross_layer_shards",
    "save_shards",
    "save_cross_layer",
    "scale_latents",
    "side_by_side",
    "splice",
    "stability",
    "tensor_source",
    "tie",
    "train",
    "train_many",
    "whitening",
]

guard(globals(), __all__)
