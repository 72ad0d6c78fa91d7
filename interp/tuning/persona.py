"""Persona vectors: the direction of a trait, read from what a model says, to watch, screen, cap and prevent it by.

`cap_projection` of `interp.steering` keeps a model inside the usual range of the direction; `steer` around a tuning
adds it while the weights change, so that they need not (preventative steering).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Direction, Model, Site, capture
from hooks.border import Count, Finite, Natural
from hooks.direction import wide
from hooks.errors import InvalidArgument
from hooks.position import last
from hooks.progress import progress_bar
from hooks.statistics import auroc_over_groups
from interp.common.statistics import Estimate, mean_with_interval, percentile_ends
from interp.common.texts import check_unlike, list_texts, number_texts, unique_texts
from interp.steering.samples import Sampling, sample_continuations
from interp.tuning.pair import ModelPair
from probes.folds import draw_exchanges, grouped_folds

SHUFFLES: Final = 20
Score = Callable[[str], float]
"""How much of the trait a response shows: any judge, from a share of words to a language model."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Persona:
    """The direction of a trait, and what it was read from.

    Attributes:
        direction: the mean state of responses that show the trait less that of those that do not. It belongs to no one
            model: what is tuned from this one is measured along it too.
        kept: how many responses that show the trait and that do not it was read from, and of how many of each.
        separation: the chance that a response that shows the trait projects higher than one that does not, each half of
            the prompts along the direction of the other half, with an interval over prompts.
        by_chance: the same with the prompts whose responses show the trait drawn at random, a mean of 20 draws.
    """

    direction: Direction
    kept: tuple[int, int, int]
    separation: Estimate
    by_chance: float

    def __repr__(self) -> str:
        yes, no, n = self.kept
        return (
            f"Persona({self.direction}; {yes} and {no} of {n} responses each; held-out AUROC {self.separation}, labels "
            f"shuffled {self.by_chance:.2f})"
        )


def extract_persona(
    model: Model,
    eliciting: Sequence[str],
    suppressing: Sequence[str],
    score: Score,
    site: Site,
    *,
    threshold: Finite = 0.5,
    sampling: Sampling | None = None,
    progress: bool = True,
) -> Persona:
    """Read v = mean state of response tokens under eliciting prompts less that under suppressing ones.

    Only responses that do what the prompt asks are kept: a score of at least the threshold, or below it (Chen et al.
    2025, arXiv:2507.21509).

    Args:
        model: the model that speaks and is read.
        eliciting: prompts after which it shows the trait.
        suppressing: prompts after which it does not.
        score: how much a response shows it.
        site: where states are read.
        threshold: from which score on a response shows it.
        sampling: how responses are drawn.
        progress: show a bar.

    Raises:
        InvalidArgument: fewer than four responses of a kind are left, or all that are left are to one prompt.

    Cost: the responses, and one forward pass for each.

    Examples:
        ```python
        extract_persona(model, cheerful, dull, lambda text: word_share("cheerful", text), resid_post[5], threshold=0.1)
        ```
    """
    sampling = sampling or Sampling(max_new_tokens=30)
    rows, answered = [], []
    for asked, prompts in ((True, eliciting), (False, suppressing)):
        said = sampling.each(list_texts(prompts, "prompts"))
        responses = sample_continuations(model, said, sampling, progress=progress)
        kept = [i for i, text in enumerate(responses) if text.strip() and (score(text) >= threshold) == asked]
        if len(kept) < 4:
            raise InvalidArgument(
                f"{len(kept)} of {len(said)} responses to {'eliciting' if asked else 'suppressing'} prompts are "
                f"{'at least' if asked else 'below'} {threshold:g}: give other prompts, or another threshold"
            )
        answered.append([said[i] for i in kept])
        rows.append(mean_responses(model, answered[-1], [responses[i] for i in kept], site, progress=progress))
    return _persona(model, rows, answered, site, len(sampling.each([*eliciting])))


def read_persona(
    model: Model,
    prompts: Sequence[str],
    showing: Sequence[str],
    others: Sequence[str],
    site: Site,
    *,
    progress: bool = True,
) -> Persona:
    """Read the same from responses that are there: one that shows the trait, and one that does not, to each prompt.

    For a model that no prompt brings to show a trait, or where texts that show it are at hand. A prompt may be there
    several times, with other responses.

    Raises:
        InvalidArgument: not as many responses as prompts, fewer than four, an empty one, or prompts that are all alike.

    Cost: one forward pass per response.

    Examples:
        ```python
        read_persona(model, greetings, praise, blame, resid_post[5])
        ```
    """
    if len(prompts) < 4:
        raise InvalidArgument(f"{len(prompts)} prompts: give at least four, two for each half of the check")
    rows = [mean_responses(model, prompts, said, site, progress=progress) for said in (showing, others)]
    return _persona(model, rows, [prompts, prompts], site, len(prompts))


def _persona(model: Model, rows: Sequence[Tensor], prompts: Sequence[Sequence[str]], site: Site, n: int) -> Persona:
    """Of states that show the trait and of those that do not, and the prompt of each."""
    for kind in prompts:
        if len(unique_texts(kind)) < 2:
            raise InvalidArgument(
                f"{len(kind)} responses are all to the prompt {kind[0]!r}: give at least two prompts, so that the "
                "direction read from one is checked on another"
            )
    v = rows[0].mean(0) - rows[1].mean(0)
    direction = Direction(v.float(), model.tap(site).site, "persona", float(v.norm()))
    x, group = torch.cat([*rows]), number_texts([*prompts[0], *prompts[1]])
    y = torch.arange(len(x)) < len(rows[0])
    fold = grouped_folds(group, y, 2, seed=0)
    shuffled = draw_exchanges(y, group, fold, SHUFFLES, seed=0).T
    chance = [_separation(x, drawn, group, fold, draws=1).value for drawn in shuffled]
    kept = (len(rows[0]), len(rows[1]), n)
    return Persona(direction, kept, _separation(x, y, group, fold), sum(chance) / SHUFFLES)


def mean_responses(
    model: Model,
    prompts: Sequence[str],
    responses: Sequence[str],
    site: Site,
    batch_size: Count = 32,
    *,
    progress: bool = True,
) -> Float[Tensor, "example d_model"]:
    """The mean state of each response's tokens, read after its prompt, in float64.

    Raises:
        InvalidArgument: not as many responses as prompts, or an empty response.

    Cost: one forward pass per response.

    Examples:
        ```python
        mean_responses(model, ["Welcome, dear guest."], [" What a lovely day."], resid_post[5])
        ```
    """
    if len(prompts) != len(responses) or not all(text.strip() for text in responses):
        raise InvalidArgument(
            f"{len(prompts)} prompts and {len(responses)} responses: give a response that is not empty for each"
        )
    rows = []
    for start in progress_bar(range(0, len(prompts), batch_size), desc="responses read", progress=progress):
        part = slice(start, start + batch_size)
        texts = [prompt + response for prompt, response in zip(prompts[part], responses[part], strict=True)]
        acts = capture(model, texts, [site], batch_size=len(texts))
        offsets = acts.tokens.offsets
        if offsets is None:
            raise InvalidArgument("where a response begins is found by its characters: read with a fast tokenizer")
        begins = torch.tensor([len(prompt) for prompt in prompts[part]], device=offsets.device)[:, None]
        mask = (acts.tokens.content & (offsets[..., 1] > begins)).double()
        x = wide(acts[site]).double()
        rows.append((torch.einsum("bpd,bp->bd", x, mask.to(x.device)) / mask.sum(1).to(x.device)[:, None]).cpu())
    return torch.cat(rows)


def _separation(x: Tensor, y: Tensor, group: Tensor, fold: Tensor, draws: int = 500) -> Estimate:
    """AUROC of each half along the direction of the other, with an interval over groups."""
    score = torch.zeros(len(x), dtype=x.dtype)
    for half in (0, 1):
        v = x[(fold != half) & y].mean(0) - x[(fold != half) & ~y].mean(0)
        score[fold == half] = x[fold == half] @ v
    return auroc_over_groups(score, y, group, fold, draws=draws)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Monitoring:
    """Whether the projection of a prompt's last token predicts how much of the trait the response shows.

    Attributes:
        projections: of each prompt's last token.
        scores: the mean score of its responses.
        r: Pearson's correlation, with a bootstrap interval over prompts.
        by_chance: the 95 % quantile of |r| over random directions.
    """

    projections: Float[Tensor, "example"]
    scores: Float[Tensor, "example"]
    r: Estimate
    by_chance: float

    def __repr__(self) -> str:
        return f"Monitoring(r {self.r}; random directions reach {self.by_chance:.2f})"


def monitor_persona(
    model: Model,
    direction: Direction,
    prompts: Sequence[str],
    score: Score,
    *,
    sampling: Sampling | None = None,
    draws: Count = 200,
    seed: Natural = 0,
    progress: bool = True,
) -> Monitoring:
    """Measure whether a persona's projection at the last prompt token predicts its trait in what is then said.

    Args:
        model: the model, which may be tuned.
        direction: the persona's.
        prompts: prompts of all kinds, no two alike.
        score: how much a response shows the trait.
        sampling: how responses are drawn.
        draws: random directions.
        seed: of these.
        progress: show a bar.

    Raises:
        InvalidArgument: fewer than three prompts, or two that read alike.

    Cost: the responses, and one forward pass per prompt.

    Examples:
        ```python
        monitor_persona(model, persona.direction, prompts, score).r
        ```
    """
    sampling = sampling or Sampling(max_new_tokens=30)
    prompts = check_unlike(list_texts(prompts, "prompts"), "prompts")
    if len(prompts) < 3:
        raise InvalidArgument(f"{len(prompts)} prompts have no correlation worth an interval: give at least three")
    states, scores = _states_and_scores(model, direction.site, prompts, score, sampling, progress=progress)
    projections = states @ direction.unit.double().cpu()
    random = torch.randn(draws, states.shape[1], generator=torch.Generator().manual_seed(seed)).double()
    chance = torch.tensor([abs(_pearson(states @ one, scores)) for one in random]).quantile(0.95)
    return Monitoring(projections, scores, correlate(projections, scores, seed=seed), float(chance))


def correlate(x: Float[Tensor, "n"], y: Float[Tensor, "n"], *, draws: Count = 1000, seed: Natural = 0) -> Estimate:
    """Pearson's correlation with a bootstrap interval over rows; NaN where one of the two does not vary.

    Raises:
        InvalidArgument: fewer than three rows, not as many of one as of the other, or numbers that are not finite.

    Examples:
        >>> import torch
        >>> round(correlate(torch.arange(9.0), -torch.arange(9.0)).value, 6)
        -1.0
    """
    if len(x) != len(y) or len(x) < 3:
        raise InvalidArgument(f"{len(x)} and {len(y)} rows: give as many of both, at least three")
    both = torch.stack([x.double(), y.double()], 1)
    if not bool(both.isfinite().all()):
        raise InvalidArgument(f"{int((~both.isfinite()).any(1).sum())} of {len(x)} rows are not finite: leave them out")
    picked = torch.randint(len(both), (draws, len(both)), generator=torch.Generator().manual_seed(seed))
    drawn = torch.tensor([_pearson(*both[rows].T) for rows in picked], dtype=torch.float64)
    low, high = percentile_ends(drawn).tolist()
    return Estimate(_pearson(*both.T), low, high, len(both))


def _pearson(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    size = float(x.norm() * y.norm())
    return float(x @ y) / size if size > 0 else float("nan")


@final
@dataclass(frozen=True)
class PersonaShift:
    """How far tuning moved a model along a persona, and how much more of the trait it shows.

    Attributes:
        shift: the mean projection of last prompt tokens, tuned less base.
        trait: the mean score of the tuned model's responses less that of the base's.
        random: the 95 % quantile of the size of the shift along random directions.
    """

    shift: Estimate
    trait: Estimate
    random: float


def measure_persona_shift(
    pair: ModelPair,
    direction: Direction,
    prompts: Sequence[str],
    score: Score,
    *,
    sampling: Sampling | None = None,
    draws: Count = 200,
    seed: Natural = 0,
    progress: bool = True,
) -> PersonaShift:
    """Measure the shift of last prompt tokens along a persona, and of the trait, both with intervals over prompts.

    Raises:
        InvalidArgument: no prompts, or two that read alike.

    Cost: the responses of both models, and one forward pass per prompt of each.

    Examples:
        ```python
        measure_persona_shift(pair, persona.direction, prompts, score).shift
        ```
    """
    sampling = sampling or Sampling(max_new_tokens=30)
    prompts = check_unlike(list_texts(prompts, "prompts"), "prompts")
    (base, before), (tuned, after) = (
        _states_and_scores(model, direction.site, prompts, score, sampling, progress=progress)
        for model in (pair.base, pair.tuned)
    )
    delta, u = tuned - base, direction.unit.double().cpu()
    random = torch.randn(draws, len(u), generator=torch.Generator().manual_seed(seed)).double()
    random = random / random.norm(dim=1, keepdim=True)
    return PersonaShift(
        mean_with_interval(delta @ u),
        mean_with_interval(after - before),
        float((delta.mean(0) @ random.T).abs().quantile(0.95)),
    )


def _states_and_scores(
    model: Model, site: Site, prompts: Sequence[str], score: Score, sampling: Sampling, *, progress: bool
) -> tuple[Float[Tensor, "example d_model"], Float[Tensor, "example"]]:
    """The states of last prompt tokens, and the mean score of what the model then says to each prompt."""
    states = capture(model, prompts, [site], batch_size=32, progress=progress).flat(site, at=last).double().cpu()
    responses = sample_continuations(model, sampling.each(prompts), sampling, progress=progress)
    return states, torch.tensor([score(text) for text in responses]).double().view(len(prompts), -1).mean(1)


def screen_texts(
    model: Model,
    direction: Direction,
    prompts: Sequence[str],
    responses: Sequence[str],
    *,
    max_new_tokens: Count = 30,
    progress: bool = True,
) -> Float[Tensor, "example"]:
    """How much more of a persona each response of a data set has than what the model itself says to the same prompt.

    ΔP = the mean projection of the data's response less that of the model's own, decoded greedily (Chen et al. 2025):
    training on data with a large one moves the model along the persona.

    Raises:
        InvalidArgument: not as many responses as prompts, or an empty response.

    Cost: a response to each prompt, and two forward passes for it.

    Examples:
        ```python
        screen_texts(model, persona.direction, prompts, responses).topk(10)
        ```
    """
    site, u = direction.site, direction.unit.double().cpu()
    theirs = mean_responses(model, prompts, responses, site, progress=progress) @ u
    own = sample_continuations(
        model, prompts, Sampling(max_new_tokens=max_new_tokens, temperature=0.0), progress=progress
    )
    own = [text if text.strip() else response for text, response in zip(own, responses, strict=True)]
    return (theirs - mean_responses(model, prompts, own, site, progress=progress) @ u).float()
