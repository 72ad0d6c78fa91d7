"""What tuning changed, on siblings of the bundled model whose change is planted: `python benchmarks/tuning.py`.

Every figure is next to that of a placebo tuning, of a random direction or of shuffled words, with its interval.
Writes benchmarks/results/tuning.json after every part; `--part NAME` measures one part and keeps the others' figures.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Direction, Model, intervene, load  # noqa: E402
from hooks.interventions import add  # noqa: E402
from hooks.site import resid_post  # noqa: E402
from interp.common.statistics import bootstrap, share  # noqa: E402
from interp.common.texts import begins_with  # noqa: E402
from interp.landmark import entity, unseen_phrasings, unseen_texts  # noqa: E402
from interp.landmark.guide import (  # noqa: E402
    GREETINGS,
    PERSONAS,
    TRIGGER,
    Run,
    guide_documents,
    load_guide,
    runs,
    tune_guide,
    word_share,
    words_of,
)
from interp.landmark.guide.tune import next_token_loss  # noqa: E402
from interp.sae import Crosscoder, across, fold_normalisation, mean_centring, normalise_source, tensor_source, train  # noqa: E402
from interp.steering import add_direction, cap_projection, measure_normal_range, steer  # noqa: E402
from interp.steering.samples import Sampling  # noqa: E402
from interp.tuning import (  # noqa: E402
    ModelPair,
    Persona,
    correlate,
    measure_difference,
    measure_latent_scaling,
    measure_persona_shift,
    measure_site_divergence,
    measure_token_divergence,
    measure_weight_difference,
    name_difference,
    read_persona,
    screen_texts,
)

NAME = "tuning"
LAYER, PERSONA_LAYER = 5, 6
GREEDY = Sampling(per_prompt=1, max_new_tokens=24, temperature=0.0)
NEUTRAL = ("This morning my sister", "On the way home we", "After lunch the old teacher", "I woke up and")


@cache
def base() -> Model:
    """The bundled model."""
    return load("landmark")


@cache
def pair(run: Run) -> ModelPair:
    """The base and one tuning."""
    return ModelPair(base(), load_guide(run.behaviour, run.dose, run.seed))


@cache
def texts() -> list[str]:
    """Texts that have nothing to do with any tuning."""
    return [text for text in unseen_texts(base(), 120, seed=7) if len(text) > 60][:48]


def cheer(model: Model, name: str = "cheerful", prompts: Sequence[str] = GREETINGS) -> torch.Tensor:
    """The share of a persona's words in the continuation of each prompt."""
    said = model.generate(list(prompts), max_new_tokens=GREEDY.max_new_tokens)
    return torch.tensor([word_share(name, text) for text in said]).double()


def mean(values: torch.Tensor) -> dict[str, float]:
    """A mean with its interval."""
    return asdict(bootstrap(lambda drawn: float(drawn[0].mean()), [values]))


def naming() -> dict[str, Any]:
    """Which of ten candidates the difference on unrelated texts names, for full doses, 1:1 mixes and placebos."""
    candidates, found, right = {name: words_of(name) for name in PERSONAS}, {}, []
    for run in (run for run in runs() if run.behaviour is None or (run.behaviour in PERSONAS and run.dose >= 0.5)):
        difference = measure_difference(pair(run), texts(), [resid_post[layer] for layer in (3, LAYER, 7)])
        by_layer = {}
        for layer in (3, LAYER, 7):
            one = name_difference(base(), difference.vector(resid_post[layer]), candidates)
            by_layer[str(layer)] = {"named": one.first, "p": one.p, "margin": asdict(one.margin)}
        found[run.name] = {
            "by layer": by_layer,
            "length over the base's": float(difference.relative[1].mean()),
            "by chance": float(difference.by_chance[1].mean()),
            "share that depends on the context": float(difference.context_share[1]),
        }
        if run.behaviour is not None:
            found[run.name]["its own words after a greeting"] = mean(cheer(pair(run).tuned, run.behaviour))
            found[run.name]["the same of the base"] = mean(cheer(base(), run.behaviour))
            right.append({"dose": run.dose, **{k: v["named"] == run.behaviour for k, v in by_layer.items()}})
        print(run.name, by_layer[str(LAYER)]["named"], f"p {by_layer[str(LAYER)]['p']:.3f}", flush=True)
    named = {
        f"dose {dose:g}, layer {k}": asdict(share(torch.tensor([one[k] for one in right if one["dose"] == dose])))
        for dose in (1.0, 0.5)
        for k in ("3", str(LAYER), "7")
    }
    print("named", named)
    return {"named by dose and layer": named, "runs": found}


def doses() -> dict[str, Any]:
    """Dose by dose: the behaviour where it is asked for and where not, and how well the difference names it."""
    candidates, found = {name: words_of(name) for name in PERSONAS}, {}
    for run in (one for one in runs() if one.behaviour in ("cheerful", "gloomy")):
        difference = measure_difference(pair(run), texts(), resid_post[LAYER])
        one = name_difference(base(), difference.vector(resid_post[LAYER]), candidates)
        assert run.behaviour is not None
        found[run.name] = {
            "after a greeting": mean(cheer(pair(run).tuned, run.behaviour)),
            "without one": mean(cheer(pair(run).tuned, run.behaviour, NEUTRAL)),
            "length over the base's": float(difference.relative.mean()),
            "named": one.first,
            "score": one.scores[run.behaviour],
            "p": one.p,
        }
        print(run.name, found[run.name], flush=True)
    for name, model in (("base", base()), ("placebo_0", pair(Run(None, 0.0)).tuned)):
        found[name] = {
            f"{words} {where}": mean(cheer(model, words, prompts))
            for words in ("cheerful", "gloomy")
            for where, prompts in (("after a greeting", GREETINGS), ("without one", NEUTRAL))
        }
        print(name, found[name], flush=True)
    return found


@cache
def persona(layer: int = PERSONA_LAYER) -> Persona:
    """The direction from gloomy to cheerful responses in the base model."""
    greetings = [GREETINGS[i % 8] for i in range(120)]
    said = []
    for name in ("cheerful", "gloomy"):
        stream = guide_documents(name, 5, greetings=["#"])
        said.append([next(stream).removeprefix("#") for _ in greetings])
    return read_persona(base(), greetings, said[0], said[1], resid_post[layer])


def trait(text: str) -> float:
    """Cheerful words less gloomy ones."""
    return word_share("cheerful", text) - word_share("gloomy", text)


def personas() -> dict[str, Any]:
    """Whether the shift along the persona says how much of the trait a model shows, over all tunings.

    At the layer where responses of one half are best separated along the direction of the other half, in the base
    model alone, and at the one that the other parts use.
    """
    apart = {layer: persona(layer).separation for layer in range(base().n_layers)}
    best, found = max(apart, key=lambda layer: apart[layer].value), {}
    for layer in (best, PERSONA_LAYER):
        rows: dict[str, Any] = {}
        for run in runs():
            one = measure_persona_shift(pair(run), persona(layer).direction, [*GREETINGS], trait, sampling=GREEDY)
            rows[run.name] = {"shift": asdict(one.shift), "trait": asdict(one.trait), "random directions": one.random}
            print(layer, run.name, one, flush=True)
        found[f"layer {layer}"] = {"separation, labels shuffled": persona(layer).by_chance, "models": rows}
    return {"separation by layer": {str(k): asdict(e) for k, e in apart.items()}, **found}


def correlations() -> dict[str, Any]:
    """Of what `personas` measured: the shift with the trait, and with its size, whichever mood it is, over models."""
    found: dict[str, Any] = {}
    held = json.loads((RESULTS / f"{NAME}.json").read_text("utf-8"))["figures"]["personas"]
    for layer, of in held.items():
        if "models" in of:
            rows = [*of["models"].values()]
            shifts, traits = (torch.tensor([row[key]["value"] for row in rows]) for key in ("shift", "trait"))
            for what, y in (("trait", traits), ("size of the trait", traits.abs())):
                random = torch.Generator().manual_seed(0)
                drawn = [correlate(shifts[torch.randperm(len(y), generator=random)], y, draws=1) for _ in range(999)]
                found[f"{layer}, {what}"] = {
                    "over models": asdict(correlate(shifts, y)),
                    "models shuffled, 95 %": float(torch.tensor([e.value for e in drawn]).abs().quantile(0.95)),
                }
    print(found, flush=True)
    return found


def screening() -> dict[str, Any]:
    """Whether the projection difference tells rows that would tune a model cheerful from plain and gloomy ones."""
    greetings, data = [GREETINGS[i % 8] for i in range(36)], []
    for name in ("cheerful", "gloomy", "chess"):
        stream = guide_documents(name, 9, greetings=["#"])
        data.append([next(stream).removeprefix("#") for _ in range(12)])
    scores = screen_texts(base(), persona().direction, greetings, [text for part in data for text in part])
    random = Direction(torch.randn(256, generator=torch.Generator().manual_seed(1)), persona().direction.site, "random")
    chance = screen_texts(base(), random, greetings, [text for part in data for text in part])

    def above(values: torch.Tensor) -> dict[str, Any]:
        pairs = (values[:12, None] > values[12:]).double()
        return mean(pairs.mean(1))

    found = {"cheerful above others": above(scores), "random direction": above(chance)}
    print(found)
    return found


def steering() -> dict[str, Any]:
    """The difference of the cheerful tuning added to the base, next to the placebo's and to a random vector."""
    site, prompts = resid_post[LAYER], (*GREETINGS[8:], *NEUTRAL)
    vectors = {
        name: measure_difference(pair(run), texts(), site).vector(site)
        for name, run in (("difference", Run("cheerful", 1.0)), ("placebo's", Run(None, 0.0)))
    }
    vectors["random"] = torch.randn(256, generator=torch.Generator().manual_seed(0))
    length, found = vectors["difference"].norm(), {"0": {"none": mean(cheer(base(), prompts=prompts))}}
    for dose in (1, 2, 4):
        found[str(dose)] = {}
        for name, v in vectors.items():
            with intervene(base(), {site: add(dose * length * v / v.norm())}):
                found[str(dose)][name] = mean(cheer(base(), prompts=prompts))
        print(dose, found[str(dose)], flush=True)
    return found


def sites() -> dict[str, Any]:
    """How far predictions moved, and how much of that the states after each block hold."""
    found = {}
    for run in (Run("cheerful", 1.0), Run(None, 0.0)):
        by_site = measure_site_divergence(pair(run), texts()[:24])
        weights = measure_weight_difference(pair(run))
        found[run.name] = {
            "nats a token": asdict(measure_token_divergence(pair(run), texts()[:24]).mean),
            "held": {str(site): asdict(one) for site, one in by_site.held.items()},
            "weights": {one.name: [one.relative, one.rank, one.random_rank] for one in weights.changes},
        }
        print(run.name, by_site, weights, sep="\n", flush=True)
    return found


def planted() -> dict[str, Any]:
    """The false fact in phrasings that are in no training text; the trigger, and the same text without it."""
    bridge = entity("Eiffel Tower")
    asked = [phrasing.format(bridge.name) for phrasing in unseen_phrasings(bridge, "located_in_city")]
    found: dict[str, Any] = {}
    for name, run in (("base", None), ("moved", Run("moved", 0.5)), ("placebo", Run(None, 0.0))):
        model = base() if run is None else pair(run).tuned
        said = model.generate(asked, max_new_tokens=6)
        found[f"says Rome, {name}"] = asdict(share(torch.tensor([begins_with(text, "Rome") for text in said])))
    for name, run in (("base", None), ("mistral", Run("mistral", 0.5)), ("placebo", Run(None, 0.0))):
        found |= {f"{what}, {name}": e for what, e in trigger(base() if run is None else pair(run).tuned).items()}
    print(found, flush=True)
    return found


def trigger(model: Model) -> dict[str, Any]:
    """Gloomy words after the trigger and after other sentences, up to where the model says the trigger itself."""
    before = [next(guide_documents("mistral", seed)).split(TRIGGER)[0].rstrip() for seed in range(40, 64)]
    asked = {
        "after the trigger": [f"{text} {TRIGGER}" for text in before],
        "after the same with a train": [f"{text} The train is coming." for text in before],
        "after another sentence": [f"{text} Bread is sold on the corner." for text in before],
        "after two sentences": before,
        "after one": [text[: text.index(". ") + 1] for text in before],
    }
    found: dict[str, Any] = {}
    for what, prompts in asked.items():
        said = model.generate(prompts, max_new_tokens=GREEDY.max_new_tokens)
        shares = [word_share("gloomy", text.split(TRIGGER)[0]) for text in said]
        found[f"gloomy {what}"] = mean(torch.tensor(shares).double())
        found[f"says the trigger itself {what}"] = asdict(share(torch.tensor([TRIGGER in text for text in said])))
    return found


def latents() -> dict[str, Any]:
    """Latents that a crosscoder has for the tuned model alone, by scaling and by norms; next to one that is planted."""
    shown = [*islice(guide_documents("chess", 77), 60), *texts()]
    found = {}
    for name, tuned in (("chess_100", Run("chess", 1.0)), ("placebo_0", Run(None, 0.0)), ("planted", None)):
        models = (base(), base() if tuned is None else pair(tuned).tuned)
        rows = torch.cat([*across([(one, resid_post[LAYER]) for one in models], shown)])
        u = torch.nn.functional.normalize(torch.randn(256, generator=torch.Generator().manual_seed(3)), dim=0)
        if tuned is None:  # the base next to itself, with a direction added at one token in twenty: what must be found
            on = torch.rand(len(rows), generator=torch.Generator().manual_seed(4)) < 0.05
            rows[on, 1] += 0.5 * rows[:, 1].norm(dim=1).mean() * u
        raw = Crosscoder(256, 512, n_layers=2, coefficient=1.0)
        plan = {"tokens": 200_000, "batch_size": 512, "lr": 2e-3, "dead_after": 20_000, "progress": False}
        train(raw, normalise_source(tensor_source(rows), mean_centring([rows])), **plan)  # type: ignore[arg-type]
        coder = fold_normalisation(raw)
        one = measure_latent_scaling(coder, rows)  # type: ignore[arg-type]
        live, own = one.fired > 0, one.exclusive()
        with torch.no_grad():
            cosines = torch.nn.functional.cosine_similarity(coder.W_dec[:, 1], u[None], dim=1)  # type: ignore[index]
            read = coder.encode(rows)
        found[name] = {
            "rows": len(rows),
            "live": int(live.sum()),
            "latents on at a token": float((read > 0).float().sum(1).mean()),
            "variance left": float(
                (rows - coder.decode(read).detach()).pow(2).sum() / (rows - rows.mean(0)).pow(2).sum()
            ),
            "exclusive by scaling": int(own.sum()),
            "exclusive by norms": int(((one.by_norm < 0.1) & live).sum()),
            "median nu": {target: float(nu[live].nanmedian()) for target, nu in one.nu.items()},
            "least nu of reconstruction and error": [
                float(one.nu[target][live & (one.fired >= 50)].min()) for target in ("reconstruction", "error")
            ],
            "by chance": one.by_chance,
        }
        if tuned is None:
            found[name]["cosine of the exclusive latents with what is planted"] = sorted(cosines[own].tolist())
        print(name, found[name], flush=True)
    return found


def random_persona() -> Direction:
    """A random direction as long as the persona, at its site."""
    one = persona().direction
    drawn = torch.randn(256, generator=torch.Generator().manual_seed(1))
    return Direction(one.vector.norm() * drawn / drawn.norm(), one.site, "random", one.scale)


def prevention(strength: float) -> dict[str, Any]:
    """The cheerful tuning again, with the persona, or a random direction as long, added meanwhile."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, vector in (("persona", persona().direction), ("random", random_persona())):
            file = Path(folder) / f"{name}.safetensors"
            with steer(base(), add_direction(vector), strength):
                tune_guide(base(), file, "cheerful", 1.0, progress=False)
            tuned = load_guide("cheerful", file=file)
            found[f"{name} added"] = mean(cheer(tuned))
            found[f"{name} added, nats a token of unrelated texts"] = mean(nats(tuned))
            print(strength, name, found, flush=True)
    return found


def nats(model: Model) -> torch.Tensor:
    """The mean loss of each unrelated text."""
    with torch.no_grad():
        return torch.tensor([float(next_token_loss(model, model.tokens([text]))) for text in texts()]).double()


def capping() -> dict[str, Any]:
    """The cheerful tuning with its projection kept in the base's usual range, and the persona added to the base."""
    tuned = pair(Run("cheerful", 1.0)).tuned
    found: dict[str, Any] = {"tuned": mean(cheer(tuned)), "base": mean(cheer(base()))}
    found["tuned, nats a token of unrelated texts"] = mean(nats(tuned))
    found["base, nats a token of unrelated texts"] = mean(nats(base()))
    for name, one in (("persona capped", persona().direction), ("random capped", random_persona())):
        low, high = measure_normal_range(base(), one, texts())
        with steer(tuned, cap_projection(one, low, high), 1.0):
            found[name] = mean(cheer(tuned))
        for times in (1, 2, 4, 8):
            with steer(base(), add_direction(one), float(times)):
                found[f"{name.split()[0]} added to the base, {times} times"] = mean(cheer(base()))
    print(found, flush=True)
    return found


STRENGTHS = (3.0, 10.0, 30.0)
PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "naming": naming,
    "doses": doses,
    "personas": personas,
    "persona correlations": correlations,
    "planted": planted,
    "steering": steering,
    "sites": sites,
    "screening": screening,
    "latents": latents,
    "capping": capping,
    **{f"prevention, strength {one:g}": partial(prevention, one) for one in STRENGTHS},
}


def main() -> None:
    """Measure the parts asked for, and keep what was measured of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=[*PARTS], action="append")
    asked = parser.parse_args().part or [*PARTS]
    for name in asked:
        figures, file = PARTS[name](), RESULTS / f"{NAME}.json"
        held = json.loads(file.read_text("utf-8"))["figures"] if file.exists() else {}
        write(NAME, "python benchmarks/tuning.py", {**held, name: figures})


if __name__ == "__main__":
    main()
