"""What a model says to the questions of one fact, in full sentences, before an edit and with it."""

from collections.abc import Mapping
from dataclasses import dataclass

from hooks import Model
from interp.common.completion import find_answer_ids
from interp.common.texts import begins_with
from interp.memory.editing.edit import Edit
from interp.memory.evaluation.measurement import generate_greedily
from interp.memory.facts.case import Case


@dataclass(frozen=True)
class Answer:
    """One question, and what the model says to it.

    Attributes:
        kind: "edited" for the edited prompt, or which questions of the case it belongs to.
        prompt: the question.
        wanted: the answer that is right once the fact is the new one.
        before: the continuation without any edit.
        after: the continuation by the method whose edit is in place.
    """

    kind: str
    prompt: str
    wanted: str
    before: str
    after: Mapping[str, str]

    def right(self, method: str | None = None) -> bool:
        """Whether the wanted answer is said, before or with the edit of a method."""
        return begins_with(self.before if method is None else self.after[method], self.wanted)


def ask_case(model: Model, case: Case, edits: Mapping[str, Edit], *, more: int = 8) -> tuple[Answer, ...]:
    """Ask everything a case asks, by greedy generation, without an edit and with each of several.

    Args:
        model: the model, without the edits.
        case: whose questions.
        edits: by method; each is applied and undone.
        more: tokens generated beyond the longest answer.

    Cost: a generation of every prompt, and one for each edit.

    Examples:
        ```python
        for reply in ask_case(model, case, {"rome": edit}):
            print(reply.prompt, reply.before, "->", reply.after["rome"])
        ```
    """
    fact = case.fact
    asked = [("edited", fact.text, fact.new), *(("paraphrase", prompt, fact.new) for prompt in case.paraphrases)]
    named = {
        "neighbour": case.neighbours,
        "other fact": case.others,
        "one step on": case.hops,
        "in reverse": case.reverse,
        "alias": case.aliases,
    }
    asked += [(kind, query.prompt, query.answer) for kind, queries in named.items() for query in queries]
    prompts, answers = [prompt for _, prompt, _ in asked], [answer for _, _, answer in asked]
    n = max(map(len, find_answer_ids(model, prompts, answers))) + more
    before = generate_greedily(model, prompts, n)
    after: dict[str, list[str]] = {}
    for name, edit in edits.items():
        with edit.applied(model):
            after[name] = generate_greedily(model, prompts, n)
    return tuple(
        Answer(kind, prompt, wanted, before[i], {name: said[i] for name, said in after.items()})
        for i, (kind, prompt, wanted) in enumerate(asked)
    )
