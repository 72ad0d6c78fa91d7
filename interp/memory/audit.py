"""An audit of editors: the same cases under each, one edit at a time, beside the unedited model and a random edit."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model
from interp.estimate import Estimate, bootstrap
from interp.memory.case import Case
from interp.memory.completion import forced, score, spelt
from interp.memory.edit import Edit
from interp.memory.fact import Fact, Query, answered
from interp.memory.scorecard import control, reading

BATCH = 64
Editor = Callable[[Model, Fact], Edit]
MEASURES = {
    "efficacy": "NLL(new) < NLL(old) on the edited prompt (CounterFact's ES)",
    "efficacy magnitude": "p(new) − p(old) there (EM)",
    "efficacy said": "greedy generation says the new object there",
    "paraphrase": "NLL(new) < NLL(old) on paraphrases (PS)",
    "paraphrase magnitude": "p(new) − p(old) there (PM)",
    "paraphrase said": "greedy generation says the new object there",
    "neighbours true over new": "NLL(true) < NLL(new) on neighbours (NS)",
    "neighbours magnitude": "p(true) − p(new) there (NM)",
    "neighbours true": "arg max, token by token, is the true answer (zsRE's specificity)",
    "neighbours unchanged": "arg max, token by token, is what it was unedited (EasyEdit's locality)",
    "others said": "greedy generation says the subject's other facts",
    "consequences said": "greedy generation says what follows from the new fact",
    "drift": "KL(unedited‖edited) on unrelated text, nats per token",
    "perplexity": "perplexity of unrelated text, relative to unedited",
    "fluency": "entropy of two- and three-word sequences generated after the prompt, bits × 100 (GE)",
}


@dataclass(frozen=True)
class Audit:
    """What each editor did: `table[editor][measure]` is a mean over cases with its bootstrap interval.

    A measure that no case has prompts for is absent. `refused[editor]` are the cases it raised an error on, with the
    message: they count as the model unedited.
    """

    table: Mapping[str, Mapping[str, Estimate]]
    refused: Mapping[str, Mapping[str, str]]

    def harmonic(self, editor: str) -> float:
        """S, the harmonic mean of efficacy, paraphrase and neighbours true over new (Meng et al. 2022)."""
        row = self.table[editor]
        parts = [row[name].value for name in ("efficacy", "paraphrase", "neighbours true over new")]
        return 0.0 if min(parts) == 0 else len(parts) / sum(1 / part for part in parts)


def audit(
    model: Model,
    cases: Sequence[Case],
    editors: Mapping[str, Editor],
    texts: Sequence[str],
    *,
    n_generated: int = 30,
    seed: int = 0,
) -> Audit:
    """Edit each case by each editor, measure, undo; beside "unedited" and, by each editor, "… control".

    The control writes a random value of equal norm at the same place.

    Args:
        model: the model.
        cases: what to edit and ask.
        editors: by name, functions from the model and a fact to its edit.
        texts: unrelated texts, for the drift.
        n_generated: tokens generated for the fluency.
        seed: of the controls and the bootstrap.

    Raises:
        ValueError: no cases, editors or texts; an editor called "unedited".

    Cost: per case and editor the edit, and twice a forward pass and a generation of every prompt, and a pass over the
    texts.

    ```python
    editors = {"rome": lambda model, fact: rome(model, fact, covariance=c), "in context": in_context}
    audit(model, cases, editors, texts).table["rome"]["paraphrase said"]
    ```
    """
    if not cases or not editors or not texts or "unedited" in editors:
        raise ValueError(
            f"{len(cases)} cases, the editors {[*editors]} and {len(texts)} texts: give at least one of each, and call "
            "no editor 'unedited'"
        )
    base, loss = reading(model, texts)
    rows: dict[str, list[dict[str, float]]] = {"unedited": []}
    refused: dict[str, dict[str, str]] = {name: {} for name in editors}
    for case in cases:
        before = forced(model, *_split(case.neighbours)) if case.neighbours else []
        plain = _measured(model, case, before, base, loss, texts, n_generated)
        rows["unedited"].append(plain)
        for name, editor in editors.items():
            edit = _tried(editor, model, case.fact, refused[name])
            states = {name: edit, f"{name} control": None if edit is None else control(edit, seed)}
            for called, state in states.items():
                with nullcontext() if state is None else state.applied(model):
                    row = plain if state is None else _measured(model, case, before, base, loss, texts, n_generated)
                rows.setdefault(called, []).append(row)
    return Audit({name: _estimates(found, seed) for name, found in rows.items()}, refused)


def _tried(editor: Editor, model: Model, fact: Fact, refused: dict[str, str]) -> Edit | None:
    try:
        return editor(model, fact)
    except RuntimeError as error:
        refused[fact.text] = str(error)
        return None


def _estimates(rows: Sequence[Mapping[str, float]], seed: int) -> dict[str, Estimate]:
    found = {}
    for name in MEASURES:
        values = [row[name] for row in rows if name in row]
        if values:
            sample = torch.tensor(values, dtype=torch.float64)
            found[name] = bootstrap(lambda s: float(s[0].mean()), [sample], seed=seed)
    return found


@torch.no_grad()
def _measured(
    model: Model, case: Case, before: Sequence[Sequence[int]], base: Float[Tensor, "n vocab"], loss: float,
    texts: Sequence[str], n_generated: int,
) -> dict[str, float]:  # fmt: skip
    fact = case.fact
    found = _preferring(model, "efficacy", [fact.text], [fact.new], [fact.old])
    said = _said(model, [fact.text], n_generated)
    found["efficacy said"] = float(answered(said[0], fact.new))
    found["fluency"] = entropy(said[0])
    if case.paraphrases:
        n = len(case.paraphrases)
        found |= _preferring(model, "paraphrase", case.paraphrases, [fact.new] * n, [fact.old] * n)
        found["paraphrase said"] = _share(_answers(model, case.paraphrases, [fact.new] * n))
    if case.neighbours:
        prompts, answers = _split(case.neighbours)
        now, true = forced(model, prompts, answers), spelt(model, prompts, answers)
        preferring = _preferring(model, "neighbours", prompts, answers, [fact.new] * len(prompts))
        found["neighbours true over new"] = preferring["neighbours"]
        found["neighbours magnitude"] = preferring["neighbours magnitude"]
        found["neighbours true"] = _share([a == b for a, b in zip(now, true, strict=True)])
        found["neighbours unchanged"] = _share([list(a) == list(b) for a, b in zip(now, before, strict=True)])
    for name, queries in (("others said", case.others), ("consequences said", case.consequences)):
        if queries:
            found[name] = _share(_answers(model, *_split(queries)))
    log_probs, now_loss = reading(model, texts)
    found["drift"] = float((base.exp() * (base - log_probs)).sum(-1).mean())
    found["perplexity"] = math.exp(now_loss - loss)
    return found


def _preferring(
    model: Model, name: str, prompts: Sequence[str], better: Sequence[str], worse: Sequence[str]
) -> dict[str, float]:
    """How often, and by how much probability, the better answers are likelier, per token."""
    one, other = score(model, prompts, better), score(model, prompts, worse)
    return {
        name: float((one > other).double().mean()),
        f"{name} magnitude": float((one.exp() - other.exp()).double().mean()),
    }


def entropy(text: str) -> float:
    """GE = 100 · (⅓ H₂ + ⅔ H₃), H_n the entropy in bits of the sequences of n words of the text (Zhang et al. 2018).

    >>> entropy("a b c d") > entropy("a a a a") == 0.0
    True
    """
    words, found = text.split(), 0.0
    for n, weight in ((2, 1 / 3), (3, 2 / 3)):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        if grams:
            counts = torch.tensor([grams.count(gram) for gram in set(grams)], dtype=torch.float64)
            p = counts / counts.sum()
            found += weight * float(-(p * p.log2()).sum())
    return 100 * found


def _answers(model: Model, prompts: Sequence[str], answers: Sequence[str]) -> list[bool]:
    longest = max(len(row) for row in spelt(model, prompts, answers))
    said = _said(model, prompts, longest + 2)
    return [answered(text, answer) for text, answer in zip(said, answers, strict=True)]


def _said(model: Model, prompts: Sequence[str], n: int) -> list[str]:
    parts = [list(prompts[i : i + BATCH]) for i in range(0, len(prompts), BATCH)]
    return [text for part in parts for text in model.generate(part, max_new_tokens=n)]


def _split(queries: Sequence[Query]) -> tuple[list[str], list[str]]:
    return [q.prompt for q in queries], [q.answer for q in queries]


def _share(outcomes: Sequence[bool]) -> float:
    return sum(outcomes) / len(outcomes)
