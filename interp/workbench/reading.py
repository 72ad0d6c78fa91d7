"""Reading a prompt: what each layer would say, which latents fire, which parts made a logit."""

from hooks.pieces import piece
from interp.features import explain_text
from interp.lenses import LogitLens, attribute, read
from interp.workbench.arguments import AttributeArguments, FeaturesArguments, TextArguments
from interp.workbench.log import Entry
from interp.workbench.progress import Document, Progress, check_length
from interp.workbench.session import Session, name_of


def read_lens(session: Session, given: TextArguments, progress: Progress) -> Document:
    """What every layer would say after every token, by the logit lens."""
    check_length(session.model.tokens(given.text))
    reading = read(LogitLens(session.model), given.text, top=given.top)
    value = reading.probability[:, 0].tolist()
    progress.check()
    code = (
        f"reading = read(LogitLens(model), {given.text!r}, top={given.top})\nvalue = reading.probability[:, 0].tolist()"
    )
    session.record(Entry("lens", given.model_dump(), code, value))
    words = [[[reading.words[i] for i in place] for place in layer] for layer in reading.top[:, 0].tolist()]
    tokens = session.model.tokens(given.text)
    return {
        "tokens": [piece(session.model.tokenizer, i) for i in tokens.ids[0].tolist()],
        "content": tokens.content[0].tolist(),
        "ids": tokens.ids[0].tolist(),
        "layers": list(reading.layers),
        "words": words,
        "top": reading.top[:, 0].tolist(),
        "probability": value,
        "kl": [[None if one != one else one for one in row] for row in reading.kl[:, 0].tolist()],
    }


def read_features(session: Session, given: FeaturesArguments, progress: Progress) -> Document:
    """The latents that fire on every token, special ones left out, with their labels where an index has them."""
    check_length(session.model.tokens(given.text))
    sae = session.sae(given.sae)
    found = explain_text(sae, session.model, given.text, top=given.top)
    progress.check()
    value = [[[firing.latent, firing.activation] for firing in one.firings] for one in found]
    code = (
        f"found = explain_text({name_of('saes', given.sae)}, model, {given.text!r}, top={given.top})\n"
        "value = [[[firing.latent, firing.activation] for firing in one.firings] for one in found]"
    )
    session.record(Entry("features", given.model_dump(), code, value))
    labels = {latent: _label(session, given.sae, latent) for one in value for latent, _ in one}
    return {
        "tokens": [one.token for one in found],
        "firings": [
            [
                {"latent": f.latent, "activation": f.activation, "label": labels[f.latent], "raises": list(f.raises)}
                for f in one.firings
            ]
            for one in found
        ],
    }


def split_logit(session: Session, given: AttributeArguments, progress: Progress) -> Document:
    """The logit of a token after the text, as the sum of what the parts of the stream write."""
    check_length(session.model.tokens(given.text))
    found = attribute(session.model, given.text, given.word)
    progress.check()
    value = found.parts[0].tolist()
    code = f"found = attribute(model, {given.text!r}, {given.word!r})\nvalue = found.parts[0].tolist()"
    session.record(Entry("attribute", given.model_dump(), code, value))
    return {"names": list(found.names), "parts": value, "logit": float(found.logit[0])}


def _label(session: Session, sae: str, latent: int) -> str:
    labels = session.labels.get(sae)
    place = None if labels is None else labels.place(latent)
    return "" if labels is None or place is None else labels.labels[place]
