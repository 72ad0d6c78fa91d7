"""Features as the JSON of SAEDashboard, which Neuronpedia takes in: batches of latents with their evidence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hooks.border import Count
from hooks.disk import check_new_folder, write_folder
from hooks.progress import progress_bar
from interp.export.report import ExportReport
from interp.features import FeatureIndex
from interp.features.evidence import Example
from interp.features.index.catalogue import Record

LOGITS: Final = 10
ALL_BINS: Final = (-1.0, 99.0, -1.0)
"""What SAEDashboard writes for the bin of an example that is among the highest of all."""


def to_neuronpedia(
    index: FeatureIndex,
    folder: str | Path,
    *,
    model_id: str,
    sae_set: str,
    layer: int,
    latents: Sequence[int] | None = None,
    batch: Count = 128,
    progress: bool = True,
) -> ExportReport:
    """Write an index as `batch-0.json`, `batch-1.json` and so on, in the fields of SAEDashboard.

    Args:
        index: what `interp.features.index` made.
        folder: where to write; new or empty.
        model_id: Neuronpedia's name of the model.
        sae_set: its name of the set of dictionaries.
        layer: the layer of this one.
        latents: which; all of them where none are named.
        batch: how many a file holds.
        progress: show a bar.

    Raises:
        InvalidArgument: a folder that holds something.
        OutOfRange: a latent that does not exist.

    Cost: one reading of the index a batch.

    Examples:
        ```python
        to_neuronpedia(index, "neuronpedia", model_id="gpt2-small", sae_set="my-saes", layer=6)
        ```
    """
    folder = Path(folder)
    check_new_folder(folder)
    wanted = list(range(len(index)) if latents is None else latents)
    starts = range(0, len(wanted), batch)
    head = {"model_id": model_id, "layer": layer, "sae_set": sae_set, "sae_id_suffix": None}
    with write_folder(folder) as partial:
        for number, start in enumerate(progress_bar(starts, "writing features", progress=progress)):
            records = index.records(wanted[start : start + batch])
            content = {**head, "features": [_feature(record, index.about) for record in records]}
            (partial / f"batch-{number}.json").write_text(json.dumps(content, ensure_ascii=False, allow_nan=False))
    files = tuple(folder / f"batch-{number}.json" for number in range(len(starts)))
    lost = (
        "neurons that a latent is aligned or correlated with, and the histogram of all logits: an index does not "
        "keep them, and their lists are empty",
        "the correlations of partners: they are those of the largest Jaccard index of firings, without a value",
    )
    return ExportReport(f"{len(wanted):,} features for Neuronpedia", files, lost=lost)


def _feature(record: Record, about: dict[str, Any]) -> dict[str, Any]:
    evidence = record.evidence
    edges = evidence.edges.tolist()
    return {
        "feature_index": record.latent,
        "neuron_alignment_indices": [],
        "neuron_alignment_values": [],
        "neuron_alignment_l1": [],
        "correlated_neurons_indices": [],
        "correlated_neurons_l1": [],
        "correlated_neurons_pearson": [],
        "correlated_features_indices": [other for other, _ in record.partners],
        "correlated_features_l1": [],
        "correlated_features_pearson": [],
        "neg_str": [token for token, _ in evidence.suppressed[:LOGITS]],
        "neg_values": [_round(value) for _, value in evidence.suppressed[:LOGITS]],
        "pos_str": [token for token, _ in evidence.promoted[:LOGITS]],
        "pos_values": [_round(value) for _, value in evidence.promoted[:LOGITS]],
        "frac_nonzero": evidence.firing_rate,
        "freq_hist_data_bar_values": [_round((a + b) / 2) for a, b in zip(edges, edges[1:], strict=False)],
        "freq_hist_data_bar_heights": evidence.counts.tolist(),
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "n_prompts_total": int(about["texts"]),
        "n_tokens_in_prompt": int(about["context"]),
        "dataset": str(about["data"]),
        "decoder_weights_dist": [],
        "vector": [],
        "activations": [
            *(_activation(example, *ALL_BINS) for example in evidence.examples),
            *(_activation(example, *_bin(example, edges, evidence.counts.tolist())) for example in record.sampled),
        ],
    }


def _activation(example: Example, low: float, high: float, contains: float) -> dict[str, Any]:
    return {
        "bin_min": low,
        "bin_max": high,
        "bin_contains": contains,
        "tokens": list(example.tokens),
        "values": [_round(value) for value in example.activations],
        "qualifying_token_index": example.peak,
    }


def _bin(example: Example, edges: Sequence[float], counts: Sequence[int]) -> tuple[float, float, float]:
    """The bin of the histogram that an example's peak is in, and the share of all firings that is in it."""
    last = len(counts) - 1
    place = next((i for i in range(last) if example.activation <= edges[i + 1]), last)
    return _round(edges[place]), _round(edges[place + 1]), counts[place] / max(1, sum(counts))


def _round(value: float) -> float:
    return round(float(value), 3)
