"""What a model in its present state says to one case: each measure of an audit, for one fact."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from interp.common.completion import find_answer_ids, predict_forced, score
from interp.common.texts import begins_with
from interp.memory.editing.change import group_by_layer
from interp.memory.editing.edit import Edit
from interp.memory.evaluation.scorecard import measure_reading
from interp.memory.evaluation.skills import measure_induction, measure_sums
from interp.memory.evaluation.text_metrics import measure_consistency, measure_fluency, measure_rarity
from interp.memory.facts.case import Case
from interp.memory.facts.fact import Query

BATCH = 64
HARMONIC = "harmonic score"
MEASURES = {
    "efficacy": "NLL(new) < NLL(old) on the edited prompt (CounterFact's ES)",
    "efficacy magnitude": "p(new) − p(old) there (EM)",
    "efficacy said": "greedy generation says the new object there",
    "paraphrase": "NLL(new) < NLL(old) on paraphrases (PS)",
    "paraphrase magnitude": "p(new) − p(old) there (PM)",
    "paraphrase said": "greedy generation says the new object there",
    "neighbours true over new": "NLL(true) < NLL(new) on neighbours (NS)",
    HARMONIC: "harmonic mean of efficacy, paraphrase and neighbours true over new (S)",
    "neighbours magnitude": "p(true) − p(new) there (NM)",
    "neighbours true": "share of the true answer's tokens that arg max says, teacher-forced (zsRE's specificity)",
    "neighbours unchanged": "share of its tokens at which arg max is what it was unedited (EasyEdit's locality)",
    "others said": "greedy generation says the subject's other facts",
    "hops said": "greedy generation says what follows from the new fact one step on (portability)",
    "reverse said": "greedy generation says the subject, asked from the new object (portability)",
    "aliases said": "greedy generation says the new object under other names of the subject (portability)",
    "drift": "KL(unedited‖edited) on unrelated text, nats per token",
    "perplexity": "perplexity of unrelated text, relative to unedited",
    "fluency": "entropy of two- and three-word sequences generated after the prompt, bits × 100 (GE)",
    "consistency": "cosine of TF-IDF of what is generated with texts about the new object (RS)",
    "induction": "arg max repeats random tokens read once",
    "sums": "arg max says sums of two digits",
    "norm": "the largest ‖ΔW‖/‖W‖ of a layer",
}


SHARES = ("efficacy", "paraphrase", "neighbours", "others", "hops", "reverse", "aliases", "induction", "sums")


def is_share(measure: str) -> bool:
    """Whether a measure is a share of answers, or else a magnitude.

    >>> is_share("paraphrase said"), is_share("paraphrase magnitude"), is_share("drift")
    (True, False, False)
    """
    return measure.startswith(SHARES) and not measure.endswith("magnitude")


@dataclass(frozen=True, eq=False)
class Unedited:
    """What the model without any edit says, to compare with.

    Attributes:
        texts: unrelated ones.
        log_probs: of every next token over them.
        loss: the mean over them, in nats.
        idf: of the words of the texts and of all references.
    """

    texts: Sequence[str]
    log_probs: Float[Tensor, "n vocab"]
    loss: float
    idf: Mapping[str, float]


def measure_unedited(model: Model, texts: Sequence[str], cases: Sequence[Case]) -> Unedited:
    """Read unrelated texts before any edit. Cost: one forward pass over them."""
    log_probs, loss = measure_reading(model, texts)
    references = [text for case in cases for text in case.references]
    return Unedited(texts, log_probs, loss, measure_rarity([*texts, *references]))


@torch.no_grad()
def measure_case(
    model: Model, case: Case, said: str, before: Sequence[Sequence[int]], base: Unedited
) -> dict[str, float]:
    """Every measure the case has prompts for, of the model as it is.

    Args:
        model: the model.
        case: what to ask.
        said: what it generates after the fact's prompt.
        before: what it said of the neighbours unedited.
        base: what it said of unrelated text unedited.
    """
    fact = case.fact
    found = _preferring(model, "efficacy", [fact.text], [fact.new], [fact.old])
    found["efficacy said"] = float(begins_with(said, fact.new))
    found["fluency"] = measure_fluency(said)
    if case.references:
        found["consistency"] = measure_consistency(said, case.references, base.idf)
    if case.paraphrases:
        n = len(case.paraphrases)
        found |= _preferring(model, "paraphrase", case.paraphrases, [fact.new] * n, [fact.old] * n)
        found["paraphrase said"] = _share(_answers(model, case.paraphrases, [fact.new] * n))
    if case.neighbours:
        found |= _near(model, case, before)
    named = {"others": case.others, "hops": case.hops, "reverse": case.reverse, "aliases": case.aliases}
    for name, queries in named.items():
        if queries:
            found[f"{name} said"] = _share(_answers(model, *split_queries(queries)))
    log_probs, loss = measure_reading(model, base.texts)
    found["drift"] = float((base.log_probs.exp() * (base.log_probs - log_probs)).sum(-1).mean())
    found["perplexity"] = math.exp(loss - base.loss)
    return {**found, "induction": measure_induction(model), "sums": measure_sums(model)}


def measure_norm(model: Model, edit: Edit) -> float:
    """The largest ‖ΔW‖/‖W‖ of the layers an edit changes; 0 where it changes no weight."""
    sizes = [0.0]
    for layer, change in group_by_layer(edit.weights).items():
        sizes.append(float(change.delta.norm() / model.w_out(layer).detach().double().norm()))
    return max(sizes)


def _near(model: Model, case: Case, before: Sequence[Sequence[int]]) -> dict[str, float]:
    """The three localities: true over new, true, unchanged."""
    prompts, answers = split_queries(case.neighbours)
    now, true = predict_forced(model, prompts, answers), find_answer_ids(model, prompts, answers)
    preferring = _preferring(model, "neighbours", prompts, answers, [case.fact.new] * len(prompts))
    return {
        "neighbours true over new": preferring["neighbours"],
        "neighbours magnitude": preferring["neighbours magnitude"],
        "neighbours true": _agreement(now, true),
        "neighbours unchanged": _agreement(now, before),
    }


def _preferring(
    model: Model, name: str, prompts: Sequence[str], better: Sequence[str], worse: Sequence[str]
) -> dict[str, float]:
    """How often, and by how much probability, the better answers are likelier, per token."""
    one, other = score(model, prompts, better), score(model, prompts, worse)
    return {
        name: float((one > other).double().mean()),
        f"{name} magnitude": float((one.exp() - other.exp()).double().mean()),
    }


def _answers(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
    longest = max(len(row) for row in find_answer_ids(model, prompts, answers))
    said = generate_greedily(model, prompts, longest + 2)
    return [begins_with(text, answer) for text, answer in zip(said, answers, strict=True)]


def generate_greedily(model: Model, prompts: Sequence[str], n: int) -> list[str]:
    """Greedy continuations of `n` tokens."""
    parts = [list(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
    return [text for part in parts for text in model.generate(part, max_new_tokens=n)]


def split_queries(queries: Sequence[Query]) -> tuple[list[str], list[str]]:
    """Prompts and answers."""
    return [q.prompt for q in queries], [q.answer for q in queries]


def _agreement(rows: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """The share of tokens at which each row is the other, in the mean over rows."""
    return mean(_share([a == b for a, b in zip(*both, strict=True)]) for both in zip(rows, others, strict=True))


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)
