"""Discontinuous and continuous metrics of one behaviour, all from the same outputs of one model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model, capture
from hooks.border import Count, Natural
from hooks.errors import InvalidArgument
from hooks.progress import progress_bar
from hooks.site import pattern
from hooks.summary import summarise
from interp.common.completion import generate_ids, tokenise_completions
from interp.common.statistics import Estimate, bootstrap, mean_share, mean_with_interval, share
from interp.worlds.induction import prompts as induction_prompts
from interp.worlds.segments import segments


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """How well answers are predicted, each a number for every question.

    Attributes:
        exact: whether arg max, teacher-forced, is every token of the answer.
        right_tokens: the share of its tokens that are; 1 less the token edit distance of teacher-forced arg max.
        brier: mean over tokens of Σ_v (p_v − [v is right])².
        log_p: log-probability of the whole answer, in nats.
        n_tokens: how many tokens the answer has.
    """

    exact: Bool[Tensor, "example"]
    right_tokens: Float[Tensor, "example"]
    brier: Float[Tensor, "example"]
    log_p: Float[Tensor, "example"]
    n_tokens: Float[Tensor, "example"]

    __repr__ = summarise

    @property
    def chance(self) -> Float[Tensor, "example"]:
        """The probability that a sample at temperature 1 is exactly the answer: Π_t p(y_t | y_<t, x), item by item.

        Its mean over items is not the power of a mean: where the tokens of an item share its difficulty,
        E[p_i^L] ≥ (E p)^L.
        """
        return self.log_p.exp()

    def estimates(self) -> dict[str, Estimate]:
        """The mean of each, with its interval over questions."""
        return {
            "exact match": share(self.exact),
            "sampled match": mean_share(self.chance.clamp(0, 1)),
            "right tokens": mean_share(self.right_tokens),
            "Brier score": mean_with_interval(self.brier),
            "log p of a token": bootstrap(_ratio, [torch.stack([self.log_p, self.n_tokens], 1)]),
        }


def _ratio(rows: list[Float[Tensor, "n _"]]) -> float:
    return float(rows[0][:, 0].sum() / rows[0][:, 1].sum())


@torch.no_grad()
def measure_answers(
    model: Model, prompts: Sequence[str], answers: Sequence[str], *, batch_size: Count = 64, progress: bool = True
) -> AnswerScores:
    """Measure how well whole answers are predicted, by metrics with and without a threshold, from the same passes.

    Schaeffer et al. 2023, arXiv:2304.15004: most abilities said to emerge are measured by exact match or multiple
    choice, which are sharp where the probability of a token is smooth.

    Args:
        model: a causal language model.
        prompts: questions.
        answers: one for each.
        batch_size: questions in a pass.
        progress: show a bar.

    Raises:
        InvalidArgument: no questions.

    Cost: one forward pass over the questions.

    Examples:
        ```python
        measure_answers(model, ["The capital of France is"], ["Paris"]).estimates()
        ```
    """
    if not prompts:
        raise InvalidArgument("no questions were given: give at least one prompt with its answer")
    parts = []
    for i in progress_bar(range(0, len(prompts), batch_size), desc="questions", progress=progress):
        asked = tokenise_completions(model, prompts[i : i + batch_size], answers[i : i + batch_size])
        log_p = model.run(asked.tokens)[:, :-1].float().log_softmax(-1)
        ids, target = asked.tokens.ids[:, 1:], asked.target[:, 1:].double()
        p = log_p.exp()
        own = log_p.gather(-1, ids[..., None])[..., 0]
        brier = p.square().sum(-1) - 2 * own.exp() + 1
        right = (log_p.argmax(-1) == ids).double()
        n = target.sum(1)
        parts.append(
            torch.stack([(right * target).sum(1), (brier * target).sum(1) / n, (own * target).sum(1), n], 1).cpu()
        )
    rows = torch.cat(parts)
    n = rows[:, 3]
    return AnswerScores(rows[:, 0] == n, rows[:, 0] / n, rows[:, 1], rows[:, 2], n)


def measure_sampled_match(
    model: Model,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    draws: Count = 1,
    seed: Natural = 0,
    batch_size: Count = 64,
    progress: bool = True,
) -> Estimate:
    """Measure how often a sample at temperature 1 is exactly the answer, token by token, by drawing samples.

    Its expectation is the mean over questions of `AnswerScores.chance`, Π_t p(y_t | y_<t, x); the interval is Wilson's
    over samples, of these questions.

    Args:
        model: a causal language model.
        prompts: questions.
        answers: one for each.
        draws: samples of each question.
        seed: of the samples.
        batch_size: samples in a pass.
        progress: show a bar.

    Raises:
        InvalidArgument: no questions.

    Cost: one forward pass over the questions and one token more for each token of the longest answer, per draw.

    Examples:
        ```python
        measure_sampled_match(model, ["The capital of France is"], ["Paris"], draws=100)
        ```
    """
    if not prompts:
        raise InvalidArgument("no questions were given: give at least one prompt with its answer")
    asked = tokenise_completions(model, prompts, answers)
    wanted = [ids[on].tolist() for ids, on in zip(asked.tokens.ids, asked.target, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: len(wanted[i]))
    each = [i for i in order for _ in range(draws)]
    hits: list[bool] = []
    for start in progress_bar(range(0, len(each), batch_size), desc="samples", progress=progress):
        part = each[start : start + batch_size]
        lengths = [len(wanted[i]) for i in part]
        made = generate_ids(model, [prompts[i] for i in part], lengths, temperature=1.0, seed=seed + start)
        hits += [row == wanted[i] for i, row in zip(part, made, strict=True)]
    return share(torch.tensor(hits))


@torch.no_grad()
def measure_induction_world(
    model: Model, *, copies: Natural = 1, n: Count = 200, seed: Natural = 7_000_000
) -> dict[str, Estimate]:
    """Measure a model of the world `induction`: what it takes from the context and what from its weights, separately.

    In context, every label of the prompt is one that is not its class's own, so that only the prompt is right. By
    heart, the class that is asked for is not among the pairs. The head's score is the most attention that any head
    gives, where a label is due, to the label that follows the earlier place of the class.

    Args:
        model: of that world.
        copies: how often the class is among the pairs, in context.
        n: prompts.
        seed: of prompts that no training drew.

    Cost: three forward passes over n prompts.

    Examples:
        ```python
        measure_induction_world(load(checkpoints(run)[2000]))
        ```
    """
    found: dict[str, Estimate] = {}
    for name, shown, remapped in (("in context", max(1, copies), True), ("by heart", 0, False)):
        ids, label = induction_prompts(n, shown, seed, remapped=remapped)
        log_p = model.run(ids)[:, -1].float().log_softmax(-1)
        found[f"{name}: right"] = share(log_p.argmax(-1) == label)
        found[f"{name}: log p"] = mean_with_interval(log_p.gather(1, label[:, None])[:, 0])
    ids, _ = induction_prompts(n, 1, seed, remapped=True)
    at = ((ids[:, 1:-1:2] == ids[:, -1:]).float().argmax(1) * 2 + 2)[:, None]
    looks = _patterns(model, ids)[:, :, -1]
    each = looks.gather(2, at[:, None].expand(-1, looks.shape[1], -1))[..., 0]
    best = each[:, int(each.mean(0).argmax())]
    found["attention of the best head"] = mean_share(best.double().clamp(0, 1))
    return found


@torch.no_grad()
def measure_segments_world(model: Model, *, n: Count = 200, seed: Natural = 7_000_000) -> dict[str, Estimate]:
    """Measure a model of the world `segments`: what it copies, by words and by heads; intervals are over rows.

    Copied words are those that the context tells, new ones those that it does not, of which one in 256 is right by
    chance. Two heads are read where a word is to be copied: the induction head is the one that attends most to places
    after an earlier place of the same word, the previous-token head the one that attends most to the place before. By
    chance is the attention of a head that looks at every place alike.

    Cost: two forward passes over n rows.

    Examples:
        ```python
        measure_segments_world(load(checkpoints(run)[2000]))
        ```
    """
    ids, copied = segments(n, seed)
    read, due = ids[:, :-1], copied[:, 1:]
    log_p = model.run(read).float().log_softmax(-1)
    right = (log_p.argmax(-1) == ids[:, 1:]).float()
    likely = log_p.gather(2, ids[:, 1:, None])[..., 0]
    found = {
        "copied: right": mean_share(_row_means(right, due)),
        "copied: log p": mean_with_interval(_row_means(likely, due)),
        "new: right": mean_share(_row_means(right, ~due)),
    }
    looks = _patterns(model, read)
    after = torch.zeros_like(looks[:, 0], dtype=torch.bool)
    after[:, :, 1:] = read[:, :, None] == read[:, None, :-1]
    after = after.tril()
    even = torch.ones_like(after).tril().float()
    even = even / even.sum(-1, keepdim=True)
    before = torch.ones_like(after).tril(-1).triu(-1)
    for name, places in (("induction head", after), ("previous-token head", before)):
        each = torch.stack([_row_means((looks[:, h] * places).sum(-1), due) for h in range(looks.shape[1])], 1)
        found[f"attention of the {name}"] = mean_share(each[:, int(each.mean(0).argmax())].clamp(0, 1))
        found[f"attention of the {name}, by chance"] = mean_share(_row_means((even * places).sum(-1), due))
    return found


def _patterns(model: Model, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch head pos _"]:
    """The attention of the heads of all layers, in one pass."""
    sites = [pattern[layer] for layer in range(model.n_layers)]
    acts = capture(model, ids, sites, batch_size=len(ids))
    return torch.cat([acts[site] for site in sites], 1)


def _row_means(x: Float[Tensor, "batch pos"], of: Bool[Tensor, "batch pos"]) -> Float[Tensor, "batch"]:
    """The mean over some places of each row."""
    return (x.double() * of).sum(1) / of.sum(1)
