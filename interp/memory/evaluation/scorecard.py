"""What an edit did: efficacy, paraphrase, neighbourhood, other facts, drift; before, after, and a control."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument
from interp.common.completion import predict_forced, score
from interp.common.statistics import Estimate, share
from interp.common.texts import begins_with
from interp.memory.editing.change import LowRank, group_by_layer
from interp.memory.editing.edit import Edit
from interp.memory.facts.fact import Query, extract_answer, fill_template

BATCH = 64


@dataclass(frozen=True)
class Column:
    """One state of the model, measured.

    Attributes:
        efficacy_exact: the edited prompts completed with the new object, by greedy generation.
        efficacy_preferred: NLL(new) < NLL(old), per token (the ES of CounterFact).
        paraphrase_exact: the paraphrases completed with the new object, by greedy generation.
        paraphrase_preferred: NLL(new) < NLL(old) on the paraphrases (PS).
        neighbours_unchanged: other subjects' answers the same as before the edit, by greedy generation.
        neighbours_true: other subjects' answers that are true, by greedy generation.
        neighbours_forced_unchanged: unchanged as well, arg max token by token, teacher-forced.
        neighbours_preferred: NLL(true) < NLL(new) on the neighbours (the NS of CounterFact).
        others_unchanged: the subject's other facts answered as before the edit, by greedy generation.
        kl: mean KL(before‖now) of the next-token distribution over unrelated texts, nats per token.
        perplexity_ratio: perplexity of unrelated texts, relative to before the edit.
    """

    efficacy_exact: Estimate
    efficacy_preferred: Estimate
    paraphrase_exact: Estimate
    paraphrase_preferred: Estimate
    neighbours_unchanged: Estimate
    neighbours_true: Estimate
    neighbours_forced_unchanged: Estimate
    neighbours_preferred: Estimate
    others_unchanged: Estimate
    kl: float
    perplexity_ratio: float


@dataclass(frozen=True)
class Scorecard:
    """An edit measured: the model before, with the edit, and with a control edit.

    The control writes a random value of the same norm with the same key: it moves what any change of that size moves.
    """

    before: Column
    after: Column
    control: Column


@dataclass(frozen=True, eq=False)
class _Answers:
    """Everything the model says in one state: continuations, or the objects they give where some were asked for."""

    efficacy: list[str]
    paraphrase: list[str]
    neighbours: list[str]
    forced: list[list[int]]
    others: list[str]
    log_probs: Float[Tensor, "n vocab"]
    nll: float


def scorecard(
    model: Model,
    edit: Edit,
    *,
    paraphrases: Sequence[str],
    neighbours: Sequence[Query],
    others: Sequence[Query],
    texts: Sequence[str],
    seed: int = 0,
) -> Scorecard:
    """Score an edit of one fact, which is applied and undone on the way.

    Args:
        model: the model, without the edit.
        edit: an edit of one fact.
        paraphrases: templates with `{}` for the subject that ask for the same object.
        neighbours: questions of other subjects with the same relation and the old object.
        others: questions of the subject's other facts.
        texts: unrelated texts, for the drift.
        seed: of the control.

    Raises:
        ValueError: an empty list, or an edit of several facts.

    Cost: three generations of every prompt, and six forward passes over it; three over the texts.
    """
    given = {"paraphrases": paraphrases, "neighbours": neighbours, "others": others, "texts": texts}
    for name, items in given.items():
        if not items:
            raise InvalidArgument(f"{name} is empty: a scorecard needs at least one of them")
    if len(edit.facts) != 1:
        raise InvalidArgument(f"the edit holds {len(edit.facts)} facts; score the edits of single facts one by one")
    fact = edit.facts[0]
    prompts = [fill_template(template, fact.subject) for template in paraphrases]

    def column(state: AbstractContextManager[None], base: _Answers | None) -> tuple[Column, _Answers]:
        with state:
            said = _answers(model, fact.text, prompts, neighbours, others, texts, fact.new)
            base = base or said
            return Column(
                efficacy_exact=_share([begins_with(text, fact.new) for text in said.efficacy]),
                efficacy_preferred=_preferred(model, [fact.text], [fact.new], [fact.old]),
                paraphrase_exact=_share([begins_with(text, fact.new) for text in said.paraphrase]),
                paraphrase_preferred=_preferred(model, prompts, [fact.new] * len(prompts), [fact.old] * len(prompts)),
                neighbours_unchanged=_same(said.neighbours, base.neighbours),
                neighbours_true=_same(said.neighbours, [query.answer for query in neighbours]),
                neighbours_forced_unchanged=_same(said.forced, base.forced),
                neighbours_preferred=_preferred(
                    model, [q.prompt for q in neighbours], [q.answer for q in neighbours], [fact.new] * len(neighbours)
                ),
                others_unchanged=_same(said.others, base.others),
                kl=float((base.log_probs.exp() * (base.log_probs - said.log_probs)).sum(-1).mean()),
                perplexity_ratio=float(torch.tensor(said.nll - base.nll).exp()),
            ), said

    before, base = column(nullcontext(), None)
    after, _ = column(edit.applied(model), base)
    other, _ = column(make_control(edit, seed).applied(model), base)
    return Scorecard(before, after, other)


def make_control(edit: Edit, seed: int = 0) -> Edit:
    """The edit with what it writes replaced by something random of the same size at the same place.

    What is written into a layer's weights is turned to random directions, ‖ΔW‖ kept; the values of a codebook become
    random ones of equal norm, a datastore's tokens others; a preamble's tokens stand in another order.
    """
    random = torch.Generator().manual_seed(seed)
    beside = [update for update in edit.updates if not isinstance(update, LowRank)]
    spoilt = tuple(update.control(random) for update in (*group_by_layer(edit.weights).values(), *beside))
    return replace(edit, method=f"control of {edit.method}", updates=spoilt)


def _answers(
    model: Model, prompt: str, paraphrases: Sequence[str], neighbours: Sequence[Query], others: Sequence[Query],
    texts: Sequence[str], new: str,
) -> _Answers:  # fmt: skip
    spellings = [new, *(query.answer for query in (*neighbours, *others))]
    n = int(model.tokens([f"a {spelling}" for spelling in spellings]).content.sum(1).max()) + 4
    log_probs, nll = measure_reading(model, texts)
    return _Answers(
        _said(model, [prompt], n), _said(model, paraphrases, n), _objects(model, neighbours, n),
        predict_forced(model, [query.prompt for query in neighbours], [query.answer for query in neighbours]),
        _objects(model, others, n), log_probs, nll,
    )  # fmt: skip


def _said(model: Model, prompts: Sequence[str], n: int) -> list[str]:
    parts = [list(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
    return [text for part in parts for text in model.generate(part, max_new_tokens=n)]


def _objects(model: Model, queries: Sequence[Query], n: int) -> list[str]:
    """What each continuation gives as the object: the true one, whatever follows it, or else its first clause."""
    said = _said(model, [query.prompt for query in queries], n)
    return [
        query.answer if begins_with(text, query.answer) else extract_answer(text)
        for query, text in zip(queries, said, strict=True)
    ]


@torch.no_grad()
def measure_reading(model: Model, texts: Sequence[str]) -> tuple[Float[Tensor, "n vocab"], float]:
    """Next-token log-probabilities over the content of the texts, and the mean loss in nats."""
    found, losses = [], []
    for i in range(0, len(texts), BATCH):
        tokens = model.tokens(texts[i : i + BATCH])
        target = tokens.content[:, 1:] & tokens.mask[:, :-1]
        log_probs = model.run(tokens)[:, :-1][target].float().log_softmax(-1)
        losses.append(-log_probs.gather(-1, tokens.ids[:, 1:][target][:, None]).squeeze(-1))
        found.append(log_probs)
    if not any(map(len, losses)):
        raise InvalidArgument(f"the {len(texts)} texts hold no token to predict: give longer ones")
    return torch.cat(found), float(torch.cat(losses).mean())


def _share(outcomes: Sequence[bool]) -> Estimate:
    return share(torch.tensor(outcomes, dtype=torch.bool))


def _same(now: Sequence[object], before: Sequence[object]) -> Estimate:
    return _share([one == other for one, other in zip(now, before, strict=True)])


def _preferred(model: Model, prompts: Sequence[str], better: Sequence[str], worse: Sequence[str]) -> Estimate:
    return share(score(model, prompts, better) > score(model, prompts, worse))
