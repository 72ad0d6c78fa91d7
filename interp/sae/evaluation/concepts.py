"""Latents compared with tokens whose concepts are known: recovery, k-sparse probing, splitting and absorption."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model, Site, capture
from hooks.border import Count, Natural, Share
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.summary import summarise
from interp.sae.architectures.sae import CHUNK, SAE, check_whole
from interp.sae.evaluation.splice import resolve_latents
from probes import Logistic, best_threshold, detection

if TYPE_CHECKING:
    from datasets import Dataset
    from pandas import DataFrame

LEVELS = tuple(i / 20 for i in range(20))  # thresholds tried, in shares of a latent's maximum
JUMP = 0.03  # of F1, by which another latent counts as part of a concept (Chanin et al. 2024)
COSINE, SHARE = 0.025, 0.4  # of a latent that absorbs (Karvonen et al. 2025, SAEBench)


@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Activations with the concept each token expresses ("" for none), and the text it comes from."""

    x: Float[Tensor, "n d_model"]
    concepts: tuple[str, ...]
    text: Int[Tensor, "n"]

    __repr__ = summarise

    def where(self, concept: str) -> Bool[Tensor, "n"]:
        """Which rows express a concept."""
        return torch.tensor([c == concept for c in self.concepts])

    def ends(self) -> "LabelledTokens":
        """Of each run of tokens that express one concept the last alone, and all that express none.

        Where a concept is a name, its last token is where a model that reads from left to right first knows it.

        Examples:
            >>> data = LabelledTokens(torch.eye(4), ("", "Rome", "Rome", ""), torch.zeros(4, dtype=torch.long))
            >>> data.ends().concepts
            ('', 'Rome', '')
        """
        following = zip((*self.concepts[1:], None), (*self.text[1:].tolist(), -1), strict=True)
        each = zip(self.concepts, self.text.tolist(), following, strict=True)
        kept = torch.tensor([concept == "" or (concept, text) != after for concept, text, after in each])
        concepts = tuple(c for c, keep in zip(self.concepts, kept.tolist(), strict=True) if keep)
        return LabelledTokens(self.x[kept], concepts, self.text[kept])

    def choose_half(self, seed: Natural) -> Bool[Tensor, "n"]:
        """Which rows are to choose on: those of a random half of the texts; the rest are to report on."""
        names = self.text.unique()
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
        return torch.isin(self.text, names[order[: len(names) // 2]])


def capture_labelled_tokens(
    model: Model, dataset: "Dataset", site: Site, column: str, *, batch_size: Count = 32, progress: bool = True
) -> LabelledTokens:
    """A model's activations on annotated texts, such as `landmark.corpus`, with one label per token.

    The data set has token ids in "input_ids" and, in `column`, as many labels per text. BOS and padding are left
    out. Costs one forward pass per batch, up to the site.

    Raises:
        InvalidArgument: the data set lacks a column, or a text has another number of labels than of tokens.

    Examples:
        ```python
        data = capture_labelled_tokens(model, landmark.corpus(500, seed=2000), resid_post[3], "entity")
        ```
    """
    if missing := {"input_ids", column} - set(dataset.column_names):
        raise InvalidArgument(f"the data set has columns {sorted(dataset.column_names)}, and lacks {sorted(missing)}")
    rows, concepts, text = [], [], []
    every = dataset[column]
    for start in progress_bar(range(0, len(dataset), batch_size), desc="forward passes", progress=progress):
        some = dataset.select(range(start, min(start + batch_size, len(dataset))))
        acts = capture(model, some, [site], batch_size=batch_size)
        rows.append(acts.flat(site).flatten(1))
        for mask, content in zip(acts.tokens.mask, acts.tokens.content, strict=True):
            number = len(text)
            labels = every[number]
            if len(labels) != int(mask.sum()):
                raise InvalidArgument(
                    f"text {number} has {len(labels)} labels and {int(mask.sum())} tokens: give one each"
                )
            kept = content[mask].tolist()
            concepts += [label for label, keep in zip(labels, kept, strict=True) if keep]
            text.append(torch.full((sum(kept),), number))
    return LabelledTokens(torch.cat(rows), tuple(concepts), torch.cat(text))


@dataclass(frozen=True)
class ConceptRecovery:
    """For each concept, the latent chosen on one half of the texts and its F1 on the other."""

    latents: Mapping[str, int]
    f1: Mapping[str, float]

    __repr__ = summarise

    def share(self, at_least: Share = 0.9) -> float:
        """The share of concepts whose latent has a held-out F1 of at least that."""
        return sum(f1 >= at_least for f1 in self.f1.values()) / len(self.f1)

    def __str__(self) -> str:
        return f"{self.share():.1%} of {len(self.f1)} concepts have a latent of held-out F1 >= 0.9"

    def to_pandas(self) -> "DataFrame":
        """A row for each concept: its latent, and the F1 on texts not chosen on."""
        from pandas import DataFrame

        rows = [(concept, self.latents[concept], f1) for concept, f1 in self.f1.items()]
        return DataFrame(rows, columns=["concept", "latent", "F1"])


@torch.no_grad()
def concept_recovery(sae: SAE, data: LabelledTokens, *, min_tokens: Count = 10, seed: Natural = 0) -> ConceptRecovery:
    """Find for each concept the single latent, and threshold, with the highest F1; report on texts not chosen on.

    Concepts with fewer than `min_tokens` tokens in either half are left out. Thresholds are twentieths of each
    latent's maximum. Holds all latents dense once.

    Raises:
        InvalidArgument: no concept has tokens enough, or the weights read normalised activations.

    Examples:
        ```python
        data = capture_labelled_tokens(model, landmark.corpus(500, seed=2000), resid_post[3], "entity")
        concept_recovery(sae, data).share()
        ```
    """
    chosen = data.choose_half(seed)
    f = _latents(sae, data.x)
    counts = {c: data.where(c) for c in sorted(set(data.concepts) - {""})}
    kept = {c: y for c, y in counts.items() if min(int(y[chosen].sum()), int(y[~chosen].sum())) >= min_tokens}
    if not kept:
        raise InvalidArgument(f"none of {len(counts)} concepts has {min_tokens} tokens in both halves of the texts")
    y = torch.stack([*kept.values()])
    top = f[chosen].amax(0)
    scores = torch.stack([_f1(y[:, chosen], f[chosen] > level * top) for level in LEVELS])
    best = scores.flatten(1).view(len(LEVELS), len(kept), -1).permute(1, 0, 2).flatten(1).argmax(1)
    levels, latents = torch.tensor(LEVELS)[best // f.shape[1]], best % f.shape[1]
    found = f[:, latents] > levels * top[latents]
    held_out = [_f1(y[i : i + 1, ~chosen], found[~chosen, i : i + 1]).item() for i in range(len(kept))]
    return ConceptRecovery(dict(zip(kept, latents.tolist(), strict=True)), dict(zip(kept, held_out, strict=True)))


@dataclass(frozen=True)
class SparseProbe:
    """Latents by falling mean difference, and the held-out F1 of a probe on the first 1, 2, ... k of them."""

    latents: tuple[int, ...]
    f1: tuple[float, ...]

    __repr__ = summarise

    @property
    def split(self) -> int:
        """How many latents the concept is split into: as many as each raise F1 by more than 0.03 over the last."""
        parts = 1
        while parts < len(self.f1) and self.f1[parts] > self.f1[parts - 1] + JUMP:
            parts += 1
        return parts

    def to_pandas(self) -> "DataFrame":
        """A row for each number of latents: the one added, and the F1 with it."""
        from pandas import DataFrame

        rows = zip(range(1, len(self.f1) + 1), self.latents, self.f1, strict=False)
        return DataFrame(rows, columns=["latents", "added", "F1"])


@torch.no_grad()
def k_sparse(sae: SAE, data: LabelledTokens, concept: str, *, k: Count = 5, seed: Natural = 0) -> SparseProbe:
    """Probe for a concept with its 1, 2, ... k best latents (Gurnee et al. 2023): a logistic probe on those alone.

    Latents are ranked by the difference of class means, and probes fitted, on one half of the texts; F1 is of the
    other.

    Raises:
        InvalidArgument: a half has no token that expresses the concept, or none that does not; or the weights read
            normalised activations.

    Examples:
        ```python
        k_sparse(sae, data, "Golden Gate Bridge").split
        ```
    """
    y, chosen = data.where(concept), data.choose_half(seed)
    for half in (y[chosen], y[~chosen]):
        if not bool(half.any()) or bool(half.all()):
            raise InvalidArgument(
                f"both halves of the texts need tokens that express '{concept}', and others that do not"
            )
    f = _latents(sae, data.x)
    difference = f[chosen & y].mean(0) - f[chosen & ~y].mean(0)
    latents = difference.topk(min(k, f.shape[1])).indices
    f1 = []
    for parts in range(1, len(latents) + 1):
        part = f[:, latents[:parts]]
        probe = Logistic().fit(part[chosen], y[chosen])
        threshold = best_threshold(probe.decision_function(part[chosen]), y[chosen])
        f1.append(detection(probe.decision_function(part[~chosen]), y[~chosen], threshold).f1)
    return SparseProbe(tuple(latents.tolist()), tuple(f1))


@dataclass(frozen=True)
class Absorption:
    """Of the rows that express a concept, the shares on which its own latents are off, and another takes over."""

    rate: float
    missed: float
    rows: int


@torch.no_grad()
def absorption(
    sae: SAE,
    x: Float[Tensor, "n d_model"],
    y: Bool[Tensor, "n"],
    latents: Sequence[int],
    direction: Float[Tensor, "d_model"],
) -> Absorption:
    """How often another latent has taken over from the latents of a concept (Chanin et al. 2024, arXiv:2409.14507).

    A row that expresses the concept, y, is absorbed where all of its own `latents` are off, and some other latent j
    points along the concept's direction u and writes it: cos(W_dec,j, u) >= 0.025 and f_j W_dec,j . u >= 0.4 (x -
    b_dec) . u. `direction` is the true one where it is known, a probe's otherwise.

    Raises:
        OutOfRange: a latent does not exist.
        InvalidArgument: no row expresses the concept, or y does not say so of each row; no latents; a direction without
            length; or weights that read normalised activations.

    Examples:
        ```python
        absorption(sae, x, parent_on, [parent_latent], truth[0]).rate
        ```
    """
    if y.dtype != torch.bool or y.shape != x.shape[:1]:
        raise InvalidArgument(f"y is {y.dtype} of shape {tuple(y.shape)}: give True or False for each of {len(x)} rows")
    if not bool(y.any()):
        raise InvalidArgument("no row expresses the concept: absorption is a share of those that do")
    if not latents:
        raise InvalidArgument(
            "latents is empty: name the latents of the concept, of which some are missed where it is on"
        )
    check_whole(sae, "a measure of absorption")
    length = float(direction.norm())
    if not 0 < length < math.inf:
        raise InvalidArgument(f"the concept's direction has length {length}: it points nowhere")
    u = (direction / length).to(sae.W_dec.dtype)
    u, W_dec, b_dec, on = (t.cpu() for t in (u, sae.W_dec, sae.b_dec, x[y].to(sae.W_dec.dtype)))
    f = _latents(sae, on)
    along = W_dec @ u
    holds = f * along >= SHARE * ((on - b_dec) @ u).clamp(min=0)[:, None]
    points = along / W_dec.norm(dim=1) >= COSINE
    own = torch.zeros(sae.d_sae, dtype=torch.bool)
    own[resolve_latents(latents, sae.d_sae)] = True
    missed = (f[:, own] <= 0).all(1)
    absorbed = missed & ((f > 0) & holds & points & ~own).any(1)
    return Absorption(float(absorbed.double().mean()), float(missed.double().mean()), len(f))


def _latents(sae: SAE, x: Tensor) -> Float[Tensor, "n latent"]:
    return torch.cat([sae.raw().encode(rows.to(sae.W_dec.device)).cpu() for rows in x.split(CHUNK)])


def _f1(y: Bool[Tensor, "class n"], on: Bool[Tensor, "n latent"]) -> Float[Tensor, "class latent"]:
    """2 TP / (positives + detected), for each class and latent."""
    hits = y.float() @ on.float()
    return 2 * hits / (y.sum(1, keepdim=True) + on.sum(0)).clamp(min=1)
