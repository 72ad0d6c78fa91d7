"""The waves of a clock: how much of a + b mod n is in a few frequencies, and what is left without them."""

from dataclasses import dataclass
from math import log, nan, pi

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.summary import summarise
from hooks.weights import weight_of
from interp.common.statistics import Estimate, bootstrap, mean_with_interval, share
from interp.worlds.clock import FIRST_HOUR, HOURS, seen_sums, sums


@dataclass(frozen=True)
class Waves:
    """Progress measures of a clock (Nanda et al. 2023, arXiv:2301.05217), in nats per sum.

    Attributes:
        frequencies: those whose waves of a + b explain most of the logits.
        full: the loss on all sums.
        restricted: with the waves of these frequencies alone.
        excluded: on trained sums, without them.
        chance: log n, what a model that knows nothing loses.
        gini: of the power over frequencies, 0 if flat, near 1 if a few have all.
        share: of the squared size of the centred logits, what is waves of a + b at any frequency; 1 / n of random ones,
            NaN of logits that are all alike.
        by_chance: the mean restricted and excluded loss with as many frequencies drawn at random in their place.
    """

    frequencies: tuple[int, ...]
    full: float
    restricted: float
    excluded: float
    chance: float
    gini: float
    share: float
    by_chance: tuple[float, float]

    __repr__ = summarise


def measure_waves(
    logits: Float[Tensor, "n n n"],
    trained: Bool[Tensor, "n n"] | None = None,
    *,
    count: Count = 5,
    draws: Count = 20,
    seed: Natural = 0,
) -> Waves:
    """Measure how far a clock's logits are waves of a + b.

    For a frequency k the part of the logits along cos(w_k(a + b)) and sin(w_k(a + b)), w_k = 2πk/n, is what a model
    that adds angles writes. Restricted: the mean of the logits and these parts alone; excluded: all but these parts.

    Args:
        logits: for each a and b, those of every c.
        trained: which sums were seen; all by default.
        count: of frequencies to keep.
        draws: of random frequencies, the control.
        seed: of these.

    Raises:
        InvalidArgument: no cube of logits, or more frequencies than there are.

    Examples:
        >>> n, w = 7, 2 * pi / 7
        >>> a, b, c = torch.meshgrid(*[torch.arange(7.0)] * 3, indexing="ij")
        >>> found = measure_waves(20 * torch.cos(w * (a + b - c)), count=1)
        >>> found.frequencies, round(found.excluded / found.chance, 3)
        ((1,), 1.0)
    """
    n = logits.shape[0]
    if tuple(logits.shape) != (n, n, n) or count > n // 2:
        raise InvalidArgument(
            f"logits of {tuple(logits.shape)} and {count} frequencies: give n by n by n, n // 2 at most"
        )
    x = logits.double().reshape(n * n, n)
    centred = _centre(x)
    parts = _parts(centred)
    powers, order = parts.square().sum((1, 2)), _largest(parts, count)
    seen = torch.ones(n * n, dtype=torch.bool) if trained is None else trained.flatten()
    full, restricted, excluded = (float(loss.mean()) for loss in _losses(x, parts[order].sum(0), seen))
    random = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(len(parts), generator=random)[:count] for _ in range(draws)]
    chance = torch.tensor([[float(e.mean()) for e in _losses(x, parts[one].sum(0), seen)[1:]] for one in drawn]).mean(0)
    frequencies = tuple(sorted(int(i) + 1 for i in order))
    whole = float(centred.square().sum())
    share_of = float(powers.sum()) / whole if whole > 0 else nan
    by_chance = float(chance[0]), float(chance[1])
    return Waves(frequencies, full, restricted, excluded, log(n), _gini(powers), share_of, by_chance)


def _centre(x: Float[Tensor, "n _"]) -> Float[Tensor, "n _"]:
    """Logits less the mean of each sum's, and then less that of each answer's."""
    x = x - x.mean(1, keepdim=True)
    return x - x.mean(0)


def _parts(x: Float[Tensor, "n _"]) -> Float[Tensor, "_ n _"]:
    """The part of centred logits along the waves of a + b, for every frequency from 1."""
    n, found = x.shape[1], []
    total = _add(n)
    for k in range(1, n // 2 + 1):
        angle = 2 * pi * k * total.double() / n
        basis = torch.stack([angle.cos(), angle.sin()], 1) * (2**0.5 / n)
        found.append(basis @ (basis.T @ x))
    return torch.stack(found)


def _largest(parts: Float[Tensor, "_ n _"], count: int) -> Int[Tensor, "_"]:
    """The frequencies of a + b that explain most, counted from 0."""
    return parts.square().sum((1, 2)).argsort(descending=True)[:count]


def _add(n: int) -> Tensor:
    a, b = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    return (a + b).flatten()


def _losses(x: Tensor, kept: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of every sum: the loss, and that of the mean and the kept waves alone; of seen sums: that without these waves."""
    n = x.shape[1]
    x = x - x.mean(1, keepdim=True)
    right, mean = _add(n) % n, x.mean(0, keepdim=True)

    def loss(y: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(y[rows], right[rows], reduction="none")

    every = torch.ones(n * n, dtype=torch.bool)
    return loss(x, every), loss(kept + mean, every), loss(x - kept, seen)


@torch.no_grad()
def measure_clock_world(model: Model, *, seed: Natural = 0, count: Count = 5) -> dict[str, Estimate]:
    """Measure a model of the world `clock`: sums that it was trained on, sums it never saw, and how much is waves.

    Unseen both ways are a + b where b + a was not seen, either: a model that knows sums by heart, and that their order
    does not matter, has the other ones right. Restricted: log p of all sums with the waves of a few frequencies alone;
    excluded: log p of seen sums without them. A model that has learnt sums by heart loses nothing without the waves,
    and knows nothing by them. The share of waves is that of the logits' squared size at any frequency, 1 / n by chance:
    1 where the sum alone decides. The Gini coefficient of the numbers' embeddings is that of their power over
    frequencies: near 0 where all have as much, as in an untrained model, and near 1 where a few have all.

    Args:
        model: of that world.
        seed: of its training, which says what sums it saw.
        count: of frequencies.

    Cost: one forward pass over the 2,809 sums.

    Examples:
        ```python
        measure_clock_world(load(checkpoints(run)[5000]))
        ```
    """
    x = model.run(sums()[:, :-1])[:, -1, FIRST_HOUR : FIRST_HOUR + HOURS].double().cpu()
    found = _score_sums(x, seen_sums(seed), count)
    E = weight_of(model.hf.get_input_embeddings())[FIRST_HOUR : FIRST_HOUR + HOURS].double().cpu()
    return {**found, "embedding: Gini of its waves": _embedding_gini(E)}


def _wave_share(parts: Float[Tensor, "_ n _"], centred: Float[Tensor, "n _"]) -> Estimate:
    """What of the squared size of centred logits is waves of a + b, with an interval over the answers c."""
    sizes = torch.stack([parts.sum(0).square().sum(0), centred.square().sum(0)], 1)
    return bootstrap(lambda drawn: float(drawn[0][:, 0].sum() / drawn[0][:, 1].sum()), [sizes])


def _embedding_gini(E: Float[Tensor, "n d_model"]) -> Estimate:
    """The Gini coefficient of the power of embeddings over frequencies, with an interval over their dimensions."""
    power = torch.fft.rfft(E - E.mean(0), dim=0).abs().square()[1:].T
    return bootstrap(lambda drawn: float(_gini(drawn[0].mean(0))), [power])


def _score_sums(x: Float[Tensor, "n _"], seen: Bool[Tensor, "n"], count: int) -> dict[str, Estimate]:
    """The metrics of a clock's logits for every a and b."""
    log_p, right = x.log_softmax(-1), _add(x.shape[1]) % x.shape[1]
    own = log_p.gather(1, right[:, None])[:, 0]
    found: dict[str, Estimate] = {}
    n = x.shape[1]
    mirrored = seen.view(n, n).T.flatten()
    for name, rows in (("seen", seen), ("unseen", ~seen), ("unseen both ways", ~seen & ~mirrored)):
        found[f"{name}: right"] = share((log_p.argmax(-1) == right)[rows])
        found[f"{name}: log p"] = mean_with_interval(own[rows])
    centred = _centre(x)
    parts = _parts(centred)
    _, restricted, excluded = _losses(x, parts[_largest(parts, count)].sum(0), seen)
    found["waves alone: log p"] = mean_with_interval(-restricted)
    found["without the waves: log p"] = mean_with_interval(-excluded)
    return {**found, "share of waves": _wave_share(parts, centred)}


def _gini(power: Float[Tensor, "n"]) -> float:
    """1 less twice the area under the Lorenz curve; 0 where there is no power: none is shared unequally."""
    ordered = power.sort().values
    if not bool(ordered.any()):
        return 0.0
    n = len(ordered)
    weights = torch.arange(1, n + 1)
    return float((2 * (weights * ordered).sum() / (n * ordered.sum())) - (n + 1) / n)
