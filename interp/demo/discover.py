"""Learn a dictionary of the residual stream, and find in it the latent, or the few latents, of one landmark."""

from dataclasses import dataclass

import torch

from hooks import Model, capture
from hooks.site import resid_post
from interp import landmark
from interp.common.statistics import Estimate, share
from interp.demo.settings import Settings
from interp.features import Concept, Feature, SearchResult, by_token, collect_evidence, search
from interp.landmark.entities import Form
from interp.sae import SAE, Quality, TopK, TrainReport, activations_of, evaluate, train

BATCH, RATE = 1024, 2e-3  # for a dictionary this small: many short, large steps
ALL = 1 << 20  # activations kept at once: all that are read, so that each text is read once


@dataclass(frozen=True, eq=False)
class TrainedDictionary:
    """A dictionary, how its training went, and what it and an untrained one explain of held-out text."""

    sae: SAE
    report: TrainReport
    held_out: Quality
    untrained: Quality


@dataclass(frozen=True, eq=False)
class Discovery:
    """The search for the concept, the first latent of the finding with its evidence, and the recall of descriptions."""

    search: SearchResult
    feature: Feature
    descriptions: Estimate


def learn(model: Model, settings: Settings, *, progress: bool = True) -> TrainedDictionary:
    """Train a TopK dictionary on the residual stream of documents about landmarks, and measure it on others.

    Examples:
        ```python
        learnt = learn(load("landmark"), Settings())
        ```
    """
    site, size, seed = resid_post[settings.layer], settings.dictionary, settings.seed
    source = activations_of(model, landmark.unseen_texts(model, size.documents, seed, about="landmark"), site)
    other = activations_of(
        model,
        landmark.unseen_texts(model, size.documents // 10, seed + 1, about="landmark"),
        site,
    )
    sae, untrained = (TopK(model.d_model, size.latents, size.k, seed=seed) for _ in range(2))
    untrained.objective().initialise(next(iter(other)))
    report = train(
        sae,
        source,
        tokens=size.tokens,
        batch_size=BATCH,
        lr=RATE,
        buffer=ALL,
        seed=seed,
        progress=progress,
    )
    return TrainedDictionary(sae, report, evaluate(sae, other), evaluate(untrained, other))


def find(model: Model, sae: SAE, settings: Settings, *, progress: bool = True) -> Discovery:
    """Search for the landmark by names, aliases and other languages together, and collect evidence for what is found.

    Examples:
        ```python
        found = find(model, learnt.sae, Settings())
        ```
    """
    result = search(sae, model, concept(settings), unit=by_token, seed=settings.seed, progress=progress)
    latent = result.found_latents[0]
    texts = landmark.unseen_texts(model, settings.dictionary.documents // 4, settings.seed + 2)
    seen = collect_evidence(sae, model, texts, latent, progress=progress)
    score = next((one for one in result.latents if one.latent == latent), None)
    return Discovery(result, Feature(sae, latent, seen, score), measure_descriptions(model, sae, result, settings))


def concept(settings: Settings) -> Concept:
    """Sentences that name the landmark, by alias or in another language too, and sentences about everything else."""
    about = _sentences(settings, ("name", "alias", "foreign"), settings.seed)
    others = landmark.sentences_about_others(landmark.entity(settings.landmark), 2 * settings.sentences, settings.seed)
    return Concept.of_sentences(landmark.entity(settings.landmark).text, about, others)


def measure_descriptions(model: Model, sae: SAE, result: SearchResult, settings: Settings) -> Estimate:
    """Share of descriptions without a name at whose last token the finding, Σ w_i f_i, exceeds its threshold."""
    texts = {s.text: s.span[1] for s in _sentences(settings, ("description",), settings.seed)}
    acts = capture(model, list(texts), [resid_post[settings.layer]])
    assert acts.tokens.offsets is not None
    named = acts.tokens.content & (acts.tokens.offsets[..., 0] < torch.tensor(list(texts.values()))[:, None])
    last = named.shape[1] - 1 - named.flip(1).long().argmax(1)
    x = acts[resid_post[settings.layer]][torch.arange(len(texts)), last]
    weights = torch.tensor([1.0] if result.group is None else result.group.weights)
    scores = sae.encode(x)[:, list(result.found_latents)] @ weights.to(x)
    return share(scores > result.finding.held_out.threshold)


def _sentences(settings: Settings, forms: tuple[Form, ...], seed: int) -> tuple[landmark.Sentence, ...]:
    subject = landmark.entity(settings.landmark)
    return landmark.sentences_about(subject, settings.sentences, seed, forms=forms)
