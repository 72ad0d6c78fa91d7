"""What a model in its present state says to one case: the one measure of an edit, which audit and scorecard read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Model
from hooks.capture import read_rows
from hooks.errors import InvalidArgument
from interp.common.completion import find_answer_ids, predict_forced, score
from interp.common.texts import begins_with
from interp.memory.editing.change import group_by_layer
from interp.memory.editing.edit import Edit
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

    Examples:
        >>> is_share("paraphrase said"), is_share("paraphrase magnitude"), is_share("drift")
        (True, False, False)
    """
    return measure.startswith(SHARES) and not measure.endswith("magnitude")


@dataclass(frozen=True, eq=False)
class Preference:
    """How likely a wanted answer and another one are after each prompt: log-probabilities per token, in nats."""

    wanted: Float[Tensor, "n"]
    other: Float[Tensor, "n"]

    @property
    def outcomes(self) -> Bool[Tensor, "n"]:
        """Whether NLL(wanted) < NLL(other), prompt by prompt."""
        return self.wanted > self.other

    @property
    def magnitudes(self) -> Float[Tensor, "n"]:
        """p(wanted) − p(other), prompt by prompt, each the geometric mean over tokens."""
        return self.wanted.exp() - self.other.exp()


@dataclass(frozen=True, eq=False)
class Reading:
    """Unrelated texts read by the model: log-probabilities of every next token, and the mean loss in nats."""

    log_probs: Float[Tensor, "n vocab"]
    loss: float

    def measure_drift(self, before: "Reading") -> tuple[float, float]:
        """KL(before‖now) in nats per token, and the perplexity relative to before, of the same texts."""
        kl = (before.log_probs.exp() * (before.log_probs - self.log_probs)).sum(-1).mean()
        return float(kl), math.exp(self.loss - before.loss)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What the model in its present state says to one case, prompt by prompt: every score of an edit is read from it.

    Attributes:
        efficacy: the new object against the old one, after the edited prompt.
        paraphrase: the same after the paraphrases.
        neighbours: the true object against the new one, after the neighbours.
        forced: the arg-max tokens at the neighbours' true objects, teacher-forced.
        said: whether greedy generation says the wanted answer, by the kind of prompt.
        reading: of unrelated texts.
    """

    efficacy: Preference
    paraphrase: Preference
    neighbours: Preference
    forced: list[list[int]]
    said: Mapping[str, list[bool]]
    reading: Reading


@dataclass(frozen=True, eq=False)
class UneditedBaseline:
    """What the model without any edit says, to compare with.

    Attributes:
        texts: unrelated ones.
        reading: of these texts.
        idf: of the words of the texts and of all references.
    """

    texts: Sequence[str]
    reading: Reading
    idf: Mapping[str, float]


def measure_unedited(model: Model, texts: Sequence[str], cases: Sequence[Case]) -> UneditedBaseline:
    """Read unrelated texts before any edit.

    Cost: one forward pass over them.
    """
    references = [text for case in cases for text in case.references]
    return UneditedBaseline(texts, measure_reading(model, texts), measure_rarity([*texts, *references]))


@torch.no_grad()
def measure_reading(model: Model, texts: Sequence[str]) -> Reading:
    """Next-token log-probabilities over the content of the texts, and the mean loss in nats.

    Raises:
        InvalidArgument: texts without a token to predict.

    Cost: one forward pass over the texts.
    """
    found, losses = [], []
    for tokens in read_rows(model, [*texts], batch_size=BATCH):
        target = tokens.predicted[:, 1:]
        log_probs = model.run(tokens)[:, :-1][target].float().log_softmax(-1)
        losses.append(-log_probs.gather(-1, tokens.ids[:, 1:][target][:, None]).squeeze(-1))
        found.append(log_probs)
    if not any(map(len, losses)):
        raise InvalidArgument(f"the {len(texts)} texts hold no token to predict: give longer ones")
    return Reading(torch.cat(found), float(torch.cat(losses).mean()))


@torch.no_grad()
def measure_outcomes(model: Model, case: Case, said: str, texts: Sequence[str]) -> Outcomes:
    """Ask the model as it is everything the case has prompts for, and let it read unrelated texts.

    Args:
        model: the model, in the state to measure.
        case: what to ask.
        said: what it generates after the fact's prompt.
        texts: unrelated ones.

    Cost: at most four forward passes and one generation of every prompt, and a forward pass over the texts.
    """
    fact, n = case.fact, len(case.paraphrases)
    asked = {
        "paraphrase": (list(case.paraphrases), [fact.new] * n),
        "others": split_queries(case.others),
        "hops": split_queries(case.hops),
        "reverse": split_queries(case.reverse),
        "aliases": split_queries(case.aliases),
    }
    near, true = split_queries(case.neighbours)
    return Outcomes(
        _prefer(model, [fact.text], [fact.new], [fact.old]),
        _prefer(model, *asked["paraphrase"], [fact.old] * n),
        _prefer(model, near, true, [fact.new] * len(near)),
        predict_forced(model, near, true),
        {
            "efficacy": [begins_with(said, fact.new)],
            **{kind: _says(model, *both) for kind, both in asked.items() if both[0]},
        },
        measure_reading(model, texts),
    )


def measure_case(
    model: Model, case: Case, said: str, before: Sequence[Sequence[int]], base: UneditedBaseline
) -> dict[str, float]:
    """Every measure the case has prompts for, of the model as it is: means over the prompts of `measure_outcomes`.

    Args:
        model: the model, in the state to measure.
        case: what to ask.
        said: what it generates after the fact's prompt.
        before: the arg-max tokens at the neighbours' answers, unedited.
        base: what it says of unrelated texts, unedited.

    Cost: that of `measure_outcomes`, and two forward passes over short texts for the skills.
    """
    now = measure_outcomes(model, case, said, base.texts)
    found = _means("efficacy", now.efficacy)
    if case.paraphrases:
        found |= _means("paraphrase", now.paraphrase)
    if case.neighbours:
        likelier, magnitude = _means("neighbours", now.neighbours).values()
        true = find_answer_ids(model, *split_queries(case.neighbours))
        found |= {"neighbours true over new": likelier, "neighbours magnitude": magnitude}
        found |= {"neighbours true": _agree(now.forced, true), "neighbours unchanged": _agree(now.forced, before)}
    found |= {f"{kind} said": _share(outcomes) for kind, outcomes in now.said.items()}
    found["fluency"] = measure_fluency(said)
    if case.references:
        found["consistency"] = measure_consistency(said, case.references, base.idf)
    found["drift"], found["perplexity"] = now.reading.measure_drift(base.reading)
    return {**found, "induction": measure_induction(model), "sums": measure_sums(model)}


def measure_norm(model: Model, edit: Edit) -> float:
    """The largest ‖ΔW‖/‖W‖ of the layers an edit changes; 0 where it changes no weight."""
    sizes = [0.0]
    for layer, change in group_by_layer(edit.weights).items():
        sizes.append(float(change.delta.norm() / model.w_out(layer).detach().double().norm()))
    return max(sizes)


def generate_greedily(model: Model, prompts: Sequence[str], n: int) -> list[str]:
    """Greedy continuations of `n` tokens.

    Cost: one generation of every prompt.
    """
    parts = [list(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
    return [text for part in parts for text in model.generate(part, max_new_tokens=n)]


def split_queries(queries: Sequence[Query]) -> tuple[list[str], list[str]]:
    """Prompts and answers.

    Examples:
        >>> split_queries([Query("Rome is in", "Italy"), Query("Lima is in", "Peru")])
        (['Rome is in', 'Lima is in'], ['Italy', 'Peru'])
    """
    return [q.prompt for q in queries], [q.answer for q in queries]


def _prefer(model: Model, prompts: Sequence[str], wanted: Sequence[str], other: Sequence[str]) -> Preference:
    if not prompts:
        return Preference(torch.empty(0), torch.empty(0))
    return Preference(score(model, prompts, wanted), score(model, prompts, other))


def _says(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Whether greedy generation says each answer."""
    longest = max(len(row) for row in find_answer_ids(model, prompts, answers))
    said = generate_greedily(model, prompts, longest + 2)
    return [begins_with(text, answer) for text, answer in zip(said, answers, strict=True)]


def _means(name: str, found: Preference) -> dict[str, float]:
    """How often, and by how much probability, the wanted answers are likelier."""
    return {
        name: float(found.outcomes.double().mean()),
        f"{name} magnitude": float(found.magnitudes.double().mean()),
    }


def _agree(rows: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """The share of tokens at which each row is the other, in the mean over rows."""
    return mean(_share([a == b for a, b in zip(*both, strict=True)]) for both in zip(rows, others, strict=True))


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)
