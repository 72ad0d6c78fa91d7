"""What latents are scored against: two fitted probes, and the best principal component, which knows no labels."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Direction, Model, Site
from interp.features.reading import Reading, find_site
from interp.features.search.rows import label_tokens
from interp.features.search.score import Evaluation, Score
from interp.sae import SAE
from probes import DifferenceOfMeans, Logistic, best_threshold, detection

COMPONENTS = 10
ROWS = 20_000  # tokens from which components are found


def score_baselines(
    sae: SAE, model: Model, reading: Reading, bench: Evaluation, half: Bool[Tensor, "n"]
) -> tuple[Score, ...]:
    """Two probes fitted to the tokens of the searched half, and a principal component, scored as the latents are."""
    labels = label_tokens(reading, bench.concept)
    fitted = half & labels.counts & ~labels.apart
    scores = []
    for probe in (DifferenceOfMeans(), Logistic()):
        scored = torch.as_tensor(probe.fit(reading.x[fitted], labels.y[fitted]).decision_function(reading.x))
        pooled = bench.rows.pool(scored)
        threshold = best_threshold(pooled[bench.searched], bench.rows.y[bench.searched])
        direction = probe.direction(find_site(sae, model), model.fingerprint)
        scores.append(bench.score(probe.name, pooled, threshold, None, direction))
    return (*scores, score_components(reading.x, half, bench, find_site(sae, model), model.fingerprint))


def score_components(
    x: Float[Tensor, "n d_model"], token_half: Bool[Tensor, "n"], bench: Evaluation, site: Site, fingerprint: str
) -> Score:
    """The best of the first ten components and their opposites, chosen as latents are.

    x - mean = U S V^T on the tokens of the searched half; the scores are (x - mean) . v_j or their negatives, taken
    to rows as a latent's are, and the one with the highest F1 on the searched half is reported on the other.

    Examples:
        ```python
        score_components(reading.x, half[reading.text], bench, site, model.fingerprint)
        ```
    """
    rows = x[token_half].double()
    rows = rows[:: max(1, len(rows) // ROWS)]
    mean = rows.mean(0)
    V = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:COMPONENTS]
    y, searched, best = bench.rows.y, bench.searched, None
    for number, v in enumerate(V, 1):
        for sign in (1, -1):
            pooled = bench.rows.pool((x.double() - mean) @ (sign * v))
            threshold = best_threshold(pooled[searched], y[searched])
            f1 = detection(pooled[searched], y[searched], threshold).f1
            if best is None or f1 > best[0]:
                best = (f1, number, sign * v, pooled, threshold)
    assert best is not None  # there is at least one component
    _, number, v, pooled, threshold = best
    reach = float(((rows - mean) @ v).max())
    direction = Direction(v.to(x.dtype), site, f"principal component {number}", reach, fingerprint)
    return bench.score(f"PCA, component {number}", pooled, threshold, None, direction)
