"""Steering a prompt: text streams under the directions, without them, and under random ones; doses are compared."""

from contextlib import ExitStack
from typing import Any

from hooks import Direction
from hooks.errors import InvalidArgument
from hooks.generate import continuation
from hooks.site import Site
from interp.directions import mean_centring
from interp.steering import Names, Sampling, Steering, add_direction, measure_dose_response, steer
from interp.steering.fluency import measure_surprisal
from interp.workbench.arguments import DirectionArguments, DoseArguments, SteerArguments
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress, check_length
from interp.workbench.session import Session, name_of


def steer_prompt(session: Session, given: SteerArguments, progress: Progress) -> Document:
    """The prompt continued with the directions, without, and with random ones of equal norm, token by token."""
    tokens = session.model.tokens(given.prompt)
    check_length(tokens, given.max_new_tokens)
    ids = tokens.ids[0].tolist()
    resolved = [resolve_direction(session, one) for one in given.directions]
    steerings = [add_direction(direction) for direction, _ in resolved]
    texts: dict[str, str] = {}
    texts["steered"], touched = _continued(session, given, ids, steerings, "steered", progress)
    controls = [one.control(seed=given.seed + number) for number, one in enumerate(steerings)]
    texts["unsteered"], _ = _continued(session, given, ids, [], "unsteered", progress)
    texts["random"], _ = _continued(session, given, ids, controls, "random", progress)
    value = [texts[column] for column in ("steered", "unsteered", "random")]
    nats, lengths = measure_surprisal(session.model, [given.prompt] * 3, value)
    perplexity = [float(x) if x == x else None for x in (nats / lengths.clamp_min(1)).exp()]
    session.record(Entry("steer", given.model_dump(), _steer_code(given, resolved), value))
    return {
        "texts": texts,
        "perplexity": dict(zip(("steered", "unsteered", "random"), perplexity, strict=True)),
        "receipt": touched,
        "seeds": [given.seed + number for number in range(len(controls))],
        "sources": [one.source for one in steerings],
    }


def sweep_doses(session: Session, given: DoseArguments, progress: Progress) -> Document:
    """How often continuations name the concept, and their perplexity, at each dose next to a random direction's."""
    check_length(session.model.tokens(given.prompt), given.max_new_tokens)
    direction, code = resolve_direction(session, given.direction)
    sampling = Sampling(given.per_prompt, given.max_new_tokens, 1.0, given.seed)
    progress.check()
    found = measure_dose_response(
        session.model,
        add_direction(direction),
        [given.prompt],
        Names(tuple(given.words)),
        doses=given.doses,
        sampling=sampling,
        progress=False,
    )
    value = [one.naming.value for one in found.steered]
    lines = (
        f"direction = {code}\n"
        f"found = measure_dose_response(model, add_direction(direction), [{given.prompt!r}], "
        f"Names({tuple(given.words)!r}), doses={given.doses!r}, "
        f"sampling=Sampling({given.per_prompt}, {given.max_new_tokens}, 1.0, {given.seed}), progress=False)\n"
        "value = [one.naming.value for one in found.steered]"
    )
    session.record(Entry("dose", given.model_dump(), lines, value))

    def rows(samples: Any) -> list[Document]:
        return [
            {
                "dose": one.dose,
                "naming": [one.naming.value, one.naming.low, one.naming.high],
                "perplexity_ratio": one.perplexity_over(found.unsteered).value,
            }
            for one in samples
        ]

    return {
        "steered": rows(found.steered),
        "random": rows(found.control),
        "unsteered": rows([found.unsteered]),
        "n": given.per_prompt,
    }


def _continued(
    session: Session, given: SteerArguments, ids: list[int], ways: list[Steering], column: str, progress: Progress
) -> tuple[str, Document]:
    """The continuation under some steerings, sent piece by piece, and what they touched."""
    model = session.model
    sent = ""

    def each(made: list[list[int]]) -> None:
        nonlocal sent
        progress.check()
        text = continuation(model.tokenizer, ids, made[0])
        if text.endswith("\ufffd"):
            return  # the first bytes of a character; it is sent when it is whole
        progress.send("token", {"column": column, "text": text[len(sent) :], "number": len(made[0])})
        sent = text

    doses = [one.dose for one in given.directions]
    with ExitStack() as stack:
        receipts = [stack.enter_context(steer(model, way, dose)) for way, dose in zip(ways, doses, strict=False)]
        text = model.generate(
            given.prompt,
            max_new_tokens=given.max_new_tokens,
            temperature=given.temperature,
            seed=given.seed,
            each=each,
        )
    if isinstance(text, str) and len(text) > len(sent):
        progress.send("token", {"column": column, "text": text[len(sent) :], "number": -1})
    touched = {
        str(site): {"fired": one.fired, "change": one.relative_change}
        for receipt in receipts
        for site, one in receipt.as_dict().items()
    }
    return str(text), touched


def _steer_code(given: SteerArguments, resolved: list[tuple[Direction, str]]) -> str:
    how = f"max_new_tokens={given.max_new_tokens}, temperature={given.temperature!r}, seed={given.seed}"
    lines = [f"d{i} = add_direction({code})" for i, (_, code) in enumerate(resolved)]
    doses = [one.dose for one in given.directions]
    steered = ", ".join(f"steer(model, d{i}, {dose!r})" for i, dose in enumerate(doses))
    control = ", ".join(f"steer(model, d{i}.control(seed={given.seed + i}), {dose!r})" for i, dose in enumerate(doses))
    for name, block in (("steered", steered), ("control", control)):
        lines += [f"with {block}:", f"    {name} = model.generate({given.prompt!r}, {how})"]
    lines += [f"unsteered = model.generate({given.prompt!r}, {how})", "value = [steered, unsteered, control]"]
    return "\n".join(lines)


def resolve_direction(session: Session, given: DirectionArguments) -> tuple[Direction, str]:
    """The direction that was asked for, and the Python that gives it."""
    if given.name:
        return session.direction(given.name), name_of("directions", given.name)
    if given.texts or given.background:
        site = Site.parse(given.site)
        made = mean_centring(session.model, given.texts, given.background, site, progress=False)
        code = f"mean_centring(model, {given.texts!r}, {given.background!r}, Site.parse({given.site!r}))"
        return made, code
    if given.sae:
        return session.sae(given.sae).direction(given.latent), f"{name_of('saes', given.sae)}.direction({given.latent})"
    raise InvalidArgument("a direction is a latent of a dictionary, one by its name, or two sets of texts: give one")
