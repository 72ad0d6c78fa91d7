"""What latents are scored against: two fitted probes, the best principal component, and saying yes to everything."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Direction, Model, Site
from interp.features.reading import Reading, find_sites
from interp.features.search.rows import label_tokens
from interp.features.search.score import Evaluation, Score
from interp.sae import SAE
from probes import DifferenceOfMeans, Logistic, best_threshold, detection

COMPONENTS = 10
ROWS = 20_000  # tokens from which components are found


def score_baselines(
    sae: SAE, model: Model, reading: Reading, bench: Evaluation, half: Bool[Tensor, "n"]
) -> tuple[Score, ...]:
    """Two probes fitted to the tokens of the searched half, a principal component, and saying yes to every row.

    All are scored as the latents are; the last is what F1 gives to a detector that knows nothing.

    Where latents read at several sites, each is the best of those of every site, chosen on the searched half.
    """
    sites = find_sites(sae, model)
    x = dict(zip(sites, reading.x.view(len(reading.x), len(sites), -1).unbind(1), strict=True))
    labels = label_tokens(reading, bench.concept)
    fitted = half & labels.counts & ~labels.apart

    def probed(probe: DifferenceOfMeans | Logistic, site: Site) -> Score:
        scored = torch.as_tensor(probe.fit(x[site][fitted], labels.y[fitted]).decision_function(x[site]))
        pooled = bench.rows.pool(scored)
        threshold = best_threshold(pooled[bench.searched], bench.rows.y[bench.searched])
        return bench.score(probe.name, pooled, threshold, None, probe.direction(site, model.fingerprint))

    return (
        _best(probed(DifferenceOfMeans(), site) for site in sites),
        _best(probed(Logistic(), site) for site in sites),
        _best(score_components(x[site], half, bench, site, model.fingerprint) for site in sites),
        bench.score("always yes", torch.zeros(len(bench.rows.y)), -1.0, None, None),
    )


def _best(scores: Iterable[Score]) -> Score:
    return max(scores, key=lambda one: one.searched_f1)


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
