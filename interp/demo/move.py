"""Move the landmark to another city: trace where the fact is, edit it with ROME, and score what that did."""

from dataclasses import dataclass

import torch

from hooks import Model
from hooks.errors import InvalidArgument, nearest
from interp import landmark
from interp.common.texts import begins_with
from interp.demo.settings import Settings
from interp.landmark.entities import Entity
from interp.landmark.grammar import training_phrasings
from interp.landmark.writing import capitalise, keep_article
from interp.memory import Edit, Fact, Query, Scorecard, Search, Subject, Trace, covariance, rome, scorecard, trace_mlp

RELATION, PROMPT = "located_in_city", "{} can be found in"
ROLE = "last subject"  # where ROME writes


@dataclass(frozen=True, eq=False)
class EditOutcome:
    """The edit, the trace that chose its layer, its scorecard, and the completion of its prompt before and after.

    `restored` says whether, after undoing it, every weight is bit for bit what it was.
    """

    trace: Trace
    edit: Edit
    scorecard: Scorecard
    before: str
    after: str
    restored: bool


def move(model: Model, settings: Settings, *, progress: bool = True) -> EditOutcome:
    """Edit the landmark's city where the trace says, score the edit, and undo it.

    Examples:
        ```python
        moved = move(load("landmark"), Settings())
        ```
    """
    trace = trace_mlp(model, find_known(model, settings), window=1, seed=settings.seed, progress=progress)
    layer = layer_of(trace)
    texts = landmark.unseen_texts(model, settings.edit_texts, settings.seed + 3)
    keys = covariance(model, texts, layer, progress=progress)
    search = Search(steps=150, kl=20.0)
    edit = rome(
        model,
        fact(settings),
        layer=layer,
        covariance=keys,
        preserve=list_preserved(settings),
        search=search,
        progress=progress,
    )
    weights = [p.detach().clone() for p in model.hf.parameters()]
    before = model.generate(edit.facts[0].text, max_new_tokens=30)
    with edit.applied(model):
        after = model.generate(edit.facts[0].text, max_new_tokens=30)
    card = scorecard(
        model,
        edit,
        paraphrases=landmark.unseen_phrasings(landmark.entity(settings.landmark), RELATION, settings.seed),
        neighbours=neighbours(settings),
        others=others(settings),
        texts=texts[-settings.traced :],
        seed=settings.seed,
        progress=progress,
    )
    restored = all(torch.equal(a, b) for a, b in zip(weights, model.hf.parameters(), strict=True))
    return EditOutcome(trace, edit, card, str(before), str(after), restored)


def fact(settings: Settings) -> Fact:
    """The landmark's city, to be changed to another."""
    subject, held = landmark.entity(settings.landmark), city(landmark.entity(settings.landmark))
    return Fact(subject.name, keep_article(PROMPT, subject), held.object, settings.city)


def city(subject: Entity) -> landmark.Triple:
    """The fact that says in which city a landmark is.

    Raises:
        InvalidArgument: a city, a country or a person.
    """
    found = next((triple for triple in landmark.facts_of(subject) if triple.relation.name == RELATION), None)
    if found is None:
        others = [triple.subject.name for triple in landmark.triples() if triple.relation.name == RELATION]
        raise InvalidArgument(
            f"{subject.text} is a {subject.kind} and is in no city: give a landmark, such as "
            f"{nearest(subject.name, others)}"
        )
    return found


def find_known(model: Model, settings: Settings) -> list[Subject]:
    """The first landmarks whose city the model completes, as questions to trace."""
    asked = [
        Subject(keep_article(PROMPT, triple.subject).format(triple.subject.name), triple.object, triple.subject.name)
        for triple in landmark.triples()
        if triple.relation.name == RELATION
    ][: 2 * settings.traced]
    said = model.generate([subject.prompt for subject in asked], max_new_tokens=8)
    right = [subject for subject, text in zip(asked, said, strict=True) if begins_with(text, subject.answer)]
    return right[: settings.traced]


def layer_of(trace: Trace) -> int:
    """The middle of the layers that recover most at the last subject token."""
    effect = trace.average_indirect_effect[trace.roles.index(ROLE)].nan_to_num(-torch.inf)
    layers = trace.layers[int(effect.argmax())]
    return layers[len(layers) // 2]


def neighbours(settings: Settings) -> list[Query]:
    """The other landmarks of the same city, asked for it in every phrasing of training."""
    facts = landmark.neighbours(city(landmark.entity(settings.landmark)))
    return [_make_query(template.template, other) for other in facts for template in training_phrasings(RELATION)]


def others(settings: Settings) -> list[Query]:
    """The landmark's other facts, each asked in its first six phrasings of training."""
    return [
        _make_query(p.template, fact)
        for fact in _other_facts(settings)
        for p in training_phrasings(fact.relation.name)[:6]
    ]


def list_preserved(settings: Settings) -> list[str]:
    """What the edit is to keep: templates of the landmark's other relations, in their last two phrasings."""
    subject = landmark.entity(settings.landmark)
    return [
        keep_article(phrasing.template, subject)
        for fact in _other_facts(settings)
        for phrasing in training_phrasings(fact.relation.name)[-2:]
    ]


def _other_facts(settings: Settings) -> list[landmark.Triple]:
    return [t for t in landmark.facts_of(landmark.entity(settings.landmark)) if t.relation.name != RELATION]


def _make_query(template: str, triple: landmark.Triple) -> Query:
    return Query(capitalise(template.format(triple.subject.text)), triple.object)
