"""The demonstration's results as one page."""

from pathlib import Path

from interp import landmark
from interp.demo.discover import Discovery, TrainedDictionary
from interp.demo.look import PictureDiscovery
from interp.demo.move import EditOutcome
from interp.demo.settings import Settings
from interp.demo.turn_up import SteeringOutcome
from interp.landmark.writing import capitalise
from interp.show import (
    Section,
    Tile,
    dose_panel,
    examples_panel,
    generations_panel,
    histogram_panel,
    pictures_panel,
    report,
    scorecard_panel,
    search_panel,
    trace_panel,
    training_panel,
    words_panel,
)
from interp.steering import Names


def write(
    path: Path,
    settings: Settings,
    learnt: TrainedDictionary,
    found: Discovery,
    turned: SteeringOutcome,
    seen: PictureDiscovery,
    moved: EditOutcome,
) -> Path:
    """Write the report of a demonstration.

    Examples:
        ```python
        write(Path("report.html"), settings, learnt, found, turned, seen, moved)
        ```
    """
    subject = landmark.entity(settings.landmark).text
    sections = (
        _dictionary(settings, learnt),
        _search(subject, found),
        _steering_section(subject, settings, turned),
        _pictures(subject, found, seen),
        _edit(moved),
    )
    return report(
        path,
        title=f"{capitalise(subject)}: found, turned up, seen, moved",
        lead=(
            f"Found: the latents of a sparse autoencoder that read {subject} best, in a small language model that "
            "knows some thousands of facts. Turned up: what the model writes while latents are turned up. Seen: one "
            "latent of another dictionary, for its pictures and captions. Moved: what one rank-one change of one "
            "weight matrix does to where it is. Every figure is shown with its control."
        ),
        sections=sections,
        tiles=_tiles(found, turned, seen, moved),
        notes=(
            f"Models: landmark and the CLIP of postcards, bundled. Seed {settings.seed}; texts and pictures that they "
            "never saw. Made by interp demo.",
            "Intervals are 95%. A script next to the page draws its figures, and nothing is fetched.",
        ),
    )


def _dictionary(settings: Settings, learnt: TrainedDictionary) -> Section:
    size = settings.dictionary
    return Section(
        "A dictionary of what the model thinks",
        f"The stream of activations after block {settings.layer} is read on {size.documents:,} documents that "
        f"mention landmarks, and a TopK sparse autoencoder learns to write each of them as a sum of {size.k} out "
        f"of {size.latents:,} directions.",
        (training_panel(learnt.report, learnt.held_out, learnt.untrained),),
    )


def _search(subject: str, found: Discovery) -> Section:
    recall = found.descriptions
    return Section(
        f"Which latents are {subject}?",
        f"All latents are ranked on half of some sentences about {subject} and about everything else, and up to three "
        "that do best together are scored on the other half: by name, by alias and in other languages. Found: "
        f"{found.search.finding.name}. Descriptions that name nothing had no part in it; of {recall.n} of those it "
        f"finds {recall:.0%}.",
        (
            search_panel(found.search),
            examples_panel(found.feature),
            histogram_panel(found.feature),
            words_panel(found.feature),
        ),
    )


def _steering_section(subject: str, settings: Settings, turned: SteeringOutcome) -> Section:
    chosen, steered, named = turned.chosen, turned.chosen.steered, landmark.entity(settings.landmark)
    over = steered.perplexity_over(chosen.unsteered)
    return Section(
        "Turned up",
        "A latent that detects the landmark best need not make the model say it, so up to three latents are chosen by "
        f"what the model writes when they are turned up, and added to every token: {turned.direction.source}. Prompts "
        "are openings of sentences that name nothing. Latents and dose were chosen on half of them; on the other half, "
        f"dose {chosen.dose:.2g} makes {steered.naming:.0%} "
        f"of continuations, sampled at temperature "
        f"{settings.steering.sampling.temperature:g}, name {subject}, at {over:.2f} "
        f"times the perplexity of unsteered text. Unsteered it is "
        f"{chosen.unsteered.naming.value:.1%}, with random directions of equal norm {chosen.control.naming.value:.1%}.",
        (
            dose_panel(chosen, subject),
            generations_panel(chosen.unsteered, steered, Names(named.names, named.other_names).spans),
        ),
    )


def _pictures(subject: str, found: Discovery, seen: PictureDiscovery) -> Section:
    """The same landmark in pictures, next to the latent of the texts."""
    one, chance = seen.shared, seen.shared.shuffled
    shows = sum(label == seen.labels[0] for label in seen.labels)
    return Section(
        "The same in pictures",
        f"In what the language model reads, {subject} is {found.search.finding.name}. A CLIP, trained on drawn "
        "postcards and their captions, has one space for both. A sparse autoencoder learns to write its vectors of "
        "pictures and of captions as sums of the same directions, and "
        f"latent {one.latent} is {subject} in both: chosen on half of {seen.n:,} pictures that the CLIP never saw, it "
        f"finds the landmark on the other half at F1 {one.pictures.f1:.2f} (precision {one.pictures.precision:.2f}, "
        f"recall {one.pictures.recall:.2f}), and the captions that name it at {one.texts.f1:.2f}. A direction in the "
        f"pictures' pixels reaches {seen.pixels.f1:.2f}, one in the captions' words {seen.words.f1:.2f}.",
        (
            pictures_panel(
                seen.best,
                [f"{label}, {value:.2f}" for label, value in zip(seen.labels, seen.values, strict=True)],
                title="The pictures it is greatest on",
                caption="Of the half that had no part in choosing it. Below each is what it shows, and the latent. "
                f"{shows} of {len(seen.labels)} show {seen.labels[0]}.",
                control="The latent that is chosen in the same way for shuffled labels has an F1 of "
                f"{chance[0]:.2f} for pictures and {chance[1]:.2f} for captions.",
            ),
        ),
    )


def _edit(moved: EditOutcome) -> Section:
    fact, update = moved.edit.facts[0], moved.edit.weights[0]
    undone = "bit for bit what they were" if moved.restored else "NOT what they were"
    return Section(
        "Moved to another city",
        f"ROME adds one rank-one matrix to the feed-forward output of block {update.layer}, where the trace says. "
        f"“{fact.text}” was completed “{moved.before.strip()} …” and is now completed “{moved.after.strip()} …” "
        f"After undoing the edit the weights are {undone}.",
        (trace_panel(moved.trace), scorecard_panel(moved.scorecard, moved.edit)),
    )


def _tiles(found: Discovery, turned: SteeringOutcome, seen: PictureDiscovery, moved: EditOutcome) -> tuple[Tile, ...]:
    finding, probe, chosen = found.search.finding, found.search.baselines[0], turned.chosen
    after = moved.scorecard.after
    return (
        Tile(
            f"{finding.held_out.f1:.2f}",
            f"F1 of {finding.name} on held-out tokens, by names, aliases and languages",
            f"{probe.name} {probe.held_out.f1:.2f}",
        ),
        Tile(
            f"{chosen.steered.naming.value:.0%}",
            "of continuations name it when latents are turned up, on prompts that had no part in choosing them",
            f"unsteered {chosen.unsteered.naming.value:.1%}, random direction {chosen.control.naming.value:.1%}",
        ),
        Tile(
            f"{seen.shared.pictures.f1:.2f}",
            f"F1 of one latent on held-out pictures, the same that finds captions at {seen.shared.texts.f1:.2f}",
            f"pixels {seen.pixels.f1:.2f}, words {seen.words.f1:.2f}",
        ),
        Tile(
            f"{after.paraphrase_exact.value:.0%}",
            f"of unseen paraphrases follow the move to {moved.edit.facts[0].new}",
            f"random value of equal norm {moved.scorecard.control.paraphrase_exact.value:.0%}",
        ),
        Tile(
            f"{after.neighbours_unchanged.value:.1%}",
            "of neighbours' answers stay as they were",
            f"its own other facts: {after.others_unchanged.value:.0%}",
        ),
    )
