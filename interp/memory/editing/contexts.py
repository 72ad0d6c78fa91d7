"""What a model says by itself: contexts, texts to estimate keys on, and what it says of a subject."""

from collections.abc import Callable, Sequence

from hooks import Model
from hooks.border import Count, Natural
from hooks.rows import cut_texts
from interp.memory.editing.remembered import Remembered, by_itself
from interp.memory.facts.fact import Fact

OPENERS = ("The", "In", "When", "It", "People", "A", "My", "As", "One", "We")
VERBS = ("", " is", " was", " has")
ROWS, LENGTH = 40, 64
_PREFIXES = Remembered[tuple[int, int], tuple[str, ...]]()


Preserve = Sequence[str] | Callable[[Fact], Sequence[str]] | None
"""Templates with `{}` for the subject whose continuations an edit is to leave: for all facts, or by fact.

Most editors also average the subject's key over them, as texts that name it in other phrasings.
"""


def prefixes(model: Model, n: Count = 5, seed: Natural = 0) -> tuple[str, ...]:
    """Short beginnings in the model's own words, after which a prompt is read in different contexts.

    The first is empty. They are those of the model without its edits and without interventions.

    Cost: a reading of the weights, and one generation of ten tokens for a batch of `n`, once for each model, `n` and
    seed, and again once its weights are others.
    """
    kept = _PREFIXES.of(model)
    key = (n, seed)
    if key not in kept:
        openers = [OPENERS[i % len(OPENERS)] for i in range(n - 1)]
        with by_itself(model):
            rests = model.generate(openers, max_new_tokens=10, temperature=1.0, seed=seed) if openers else []
        whole = [f"{opener}{rest}".split("\n")[0].rstrip(" .,;:") for opener, rest in zip(openers, rests, strict=True)]
        kept[key] = ("", *(f"{text}. " for text in whole))
    return kept[key]


def generate_texts(model: Model, n_tokens: int, seed: int = 0) -> list[str]:
    """Texts sampled from the model, of about so many tokens in all, each after one of ten first words.

    Cost: `n_tokens / 2560` generations of 64 tokens for a batch of 40.
    """
    prompts = [OPENERS[i % len(OPENERS)] for i in range(ROWS)]
    texts: list[str] = []
    for number in range(-(-n_tokens // (ROWS * LENGTH))):
        rests = model.generate(prompts, max_new_tokens=LENGTH, temperature=1.0, seed=seed + number)
        texts += [f"{opener}{rest}" for opener, rest in zip(prompts, rests, strict=True)]
    return [piece for each in cut_texts(model, texts) for piece in each]  # no one's texts were cut, so no note


def generate_templates(model: Model, *facts: Fact, n: int = 3, length: int = 6, seed: int = 0) -> tuple[str, ...]:
    """Templates of what the model says of the facts' one subject, `{}` being the subject: what an edit is to leave.

    They begin as a prompt does, go on after the subject in the model's own words, or after it and " is", " was" or "
    has", and are left out where they ask what a fact's prompt asks, or contain an old or a new object or would be
    continued with one: what leads up to a fact's object is what the edit is to change. "{} is a" comes first, so that
    there is one.

    Cost: two generations of `length` tokens for a batch of 4 × `n`.
    """
    subject, objects = facts[-1].subject, {o for fact in facts for o in (fact.old, fact.new)}
    head = facts[-1].prompt[: facts[-1].prompt.index("{}")]
    verbs = [verb for verb in VERBS for _ in range(n)]
    starts = [f"{head}{subject}{verb}" for verb in verbs]
    rests = model.generate(starts, max_new_tokens=length, temperature=1.0, seed=seed)
    said = [f"{verb}{rest}".rstrip().replace("{", "").replace("}", "") for verb, rest in zip(verbs, rests, strict=True)]
    asked = tuple(fact.prompt[fact.prompt.index("{}") + 2 :] for fact in facts)
    found = [text for text in dict.fromkeys(said) if text.strip() and not any(a and text.startswith(a) for a in asked)]
    onward = model.generate([f"{head}{subject}{text}" for text in found], max_new_tokens=length) if found else []
    kept = [text for text, rest in zip(found, onward, strict=True) if not any(o in f"{text}{rest}" for o in objects)]
    return ("{} is a", *(f"{head}{{}}{text}" for text in kept))


def choose_preserved(model: Model, facts: Sequence[Fact], preserve: Preserve) -> Sequence[str]:
    """The templates to keep for facts of one subject: those given, or what the model says of it."""
    if preserve is None:
        return generate_templates(model, *facts)
    return preserve(facts[-1]) if callable(preserve) else preserve
