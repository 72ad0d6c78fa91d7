"""Write docs/commands.schema.json: a JSON schema of what each verb prints with `--json`.

python docs/write_schema.py

Which keys a verb's document has, and what they are in words, is in docs/commands.md; what type each has is here.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, SCHEMA = ROOT / "docs" / "commands.md", ROOT / "docs" / "commands.schema.json"
_ROW = re.compile(r"^\| ((?:`[^`]+`(?:, )?)+) \| (.*) \|$", re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")
_INSIDE = re.compile(r"\([^)]*\)")
Type = dict[str, Any]

text: Type = {"type": "string"}
file: Type = {"type": "string", "description": "an absolute path"}
count: Type = {"type": "integer"}
flag: Type = {"type": "boolean"}
number: Type = {"type": ["number", "null"], "description": "null where it is not finite"}
estimate: Type = {"$ref": "#/$defs/estimate"}


def many(of: Type) -> Type:
    """A list."""
    return {"type": "array", "items": of}


def pair(first: Type, second: Type) -> Type:
    """A list of two."""
    return {"type": "array", "prefixItems": [first, second], "minItems": 2, "maxItems": 2}


def by(of: Type) -> Type:
    """An object whose keys are names of what was measured."""
    return {"type": "object", "additionalProperties": of}


def record(optional: tuple[str, ...] = (), **fields: Type) -> Type:
    """An object with these keys and no others."""
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def maybe(of: Type) -> Type:
    """The same, or null."""
    return {"anyOf": [of, {"type": "null"}]}


scored_words = many(pair(text, number))
fact = record(subject=text, prompt=text, old=text, new=text)
measures = by(by(estimate))
trained: dict[str, Type] = {
    "tokens": count, "explained_variance": number, "l0": number, "measured_on": count, "silent_share": number,
    "silent_over": count,
}  # fmt: skip
found_score = record(
    name=text, latent=maybe(count), f1=number, f1_interval=pair(number, number), precision=number, recall=number,
    auroc=number, threshold=number,
)  # fmt: skip
best_break = record(index=count, step=count, size=number, p=number)
evolved = record(
    value=number, cross_entropy=number, text=text, greatest=number, natural_text=text, natural_value=number,
    natural_cross_entropy=number, quantile=number, within=number,
)  # fmt: skip
export: dict[str, Type] = {
    "files": many(file), "checked_with": text, "difference": number, "effect": number, "lost": many(text),
}  # fmt: skip
checked = {
    "edges": maybe(record(edges=count, correlation=number, relative_error=number)),
    "nodes": record(nodes=count, correlation=number, relative_error=number),
}

TYPES: dict[str, dict[str, Type]] = {
    "demo": {
        "report": file, "found": text, "turned_up": text, "f1": number, "f1_interval": pair(number, number),
        "p_value": number, "dose": number, "naming": estimate, "naming_unsteered": estimate,
        "naming_control": estimate, "perplexity_ratio": number, "edited": text,
    },
    "sites": {"model": text, "fingerprint": text, "sites": by(many(count))},
    "capture": {"texts": count, "sites": by(many(count)), "activations": maybe(file)},
    "harvest": {"store": text, "sites": many(text), "rows": count, "shards": count, "data_fingerprint": text},
    "train-sae": {"autoencoders": many(record(name=maybe(text), folder=file, **trained))},
    "discover": {
        "model": text, "site": text, "autoencoder": file, "index": file, "training": maybe(record(**trained)),
        "tokens": count, "latents": count,
        "firing": count, "page": maybe(file), "map": maybe(file),
    },
    "feature": {
        "latent": count, "model": text, "site": text, "label": text, "firing_rate": number, "largest": number,
        "tokens": scored_words, "promoted": scored_words, "suppressed": scored_words,
        "examples": many(record(text=text, activation=number)), "page": maybe(file),
    },
    "search": {
        "concept": text, "site": text, "unit": text, "p_value": number, "latents": many(found_score),
        "baselines": many(found_score), "against": by(estimate), "direction": file, "effect": file, "page": file,
    },
    "steer": {
        "model": text, "fingerprint": text, "steering": text, "site": text, "dose": number, "prompt": text,
        "unsteered": text, "steered": text, "control": text, "control_is": text, "receipt": text, "transcript": file,
    },
    "probe": {
        "examples": count, "probe": text, "direction": maybe(file),
        "cells": many(record(site=text, position=text, accuracy=number, low=number, high=number)),
        "best": record(site=text, position=text), "accuracy": estimate, "balanced_accuracy": estimate,
        "auroc": maybe(estimate), "p_value": number, "least_p_value": number,
        "chosen": many(record(site=text, position=text)), "shuffled": record(mean=number, largest=number, n=count),
        "control_task": maybe(estimate), "selectivity": maybe(number), "majority": number,
        "embedding": maybe(estimate), "embedding_same": flag,
        "untrained": maybe(estimate), "elsewhere": maybe(by(estimate)),
    },
    "lens": {
        "text": text, "lens": text, "word": maybe(text), "page": maybe(file),
        "layers": many(record(("rank",), layer=count, kl=number, entropy=number, top=scored_words, rank=count)),
    },
    "patch": {
        "kind": text, "unpatched": number, "patched": number, "largest_control": number, "warning": maybe(text),
        "page": maybe(file),
        "places": many(record(
            ("head", "position", "token"), share=number, control=number, site=text, position=count, token=text,
            head=count,
        )),
    },
    "circuit": {
        "method": text, "clean": number, "corrupt": number, "trusted": maybe(flag), "warning": maybe(text),
        "page": maybe(file),
        "edges": many({"oneOf": [record(edge=text, effect=number), record(source=text, target=text, weight=number)]}),
        "check": {"anyOf": [checked["edges"], checked["nodes"]]}, "nodes": many(record(node=text, effect=number)),
        "curves": many(record(
            name=text, cpr=number, cmd=number, log_area=number, shares=many(number), edges=many(count),
            faithfulness=many(number),
        )),
        "faithfulness": record(
            circuit=by(estimate), complement=by(estimate), random=by(estimate), under_nodes=number,
        ),
    },
    "graph": {
        "text": text, "transcoders": text, "logits": many(record(token=text, p=number)), "replacement": number,
        "completeness": number, "bias": number, "closure": number, "warning": maybe(text),
        "control": record(replacement=number, completeness=number), "page": maybe(file), "viewer": maybe(file),
        "features": many(record(
            feature=text, influence=number, activation=number, layer=count, token=count, label=maybe(text),
        )),
    },
    "memory": {
        "layer": count, "tokens": count, "page": maybe(file),
        "agreement": by(record(rate=estimate, chance=number, p_value=number)),
        "memories": many(record(
            neuron=count, agrees=flag, examples=many(record(text=text, coefficient=number)), promoted=by(scored_words),
        )),
        "on_prompt": maybe(record(
            prompt=text, largest=many(record(neuron=count, coefficient=number, share=number, promoted=scored_words)),
            answer=maybe(record(
                answer=text, probability=number, memories=many(record(layer=count, neuron=count)), without=number,
                without_others=number,
            )),
        )),
    },
    "edit": {
        "edit": file, "method": text, "facts": many(fact), "measures": measures, "page": file,
        "replies": many(record(kind=text, prompt=text, wanted=maybe(text), before=text, after=by(text))),
    },
    "apply": {"edits": many(file), "conflicts": many(text), "model": maybe(file)},
    "audit": {"cases": count, "measures": measures, "refused": by(by(text)), "page": maybe(file)},
    "teach": {
        "facts": many(fact), "measures": measures, "costs": measures, "undone": by(estimate), "refused": by(by(text)),
        "page": maybe(file),
    },
    **{f"export {what}": export for what in ("edit", "steering", "features", "autoencoder")},
    "workbench": {"url": text, "session": maybe(file)},
    "plan": {
        "costs": many(record(item=text, value=number, unit=text, formula=text)), "warnings": many(text),
    },
    "neighbours": {
        "query": text, "neighbours": scored_words, "numbers": many(count), "excluded": many(text),
        "control": scored_words, "control_is": text,
        "hubs": maybe(record(most=many(pair(text, count)), skew=number)),
    },
    "atlas": {
        "page": file, "cells": count, "activations": count, "trustworthiness": by(estimate),
        "purity": maybe(by(estimate)), "walk": many(text),
    },
    "experts": {
        "layers": many(record(
            layer=count,
            usage=record(
                load=many(number), entropy=number, balance=number, router_entropy=number, repetition=by(number),
                repetition_chance=number, together=many(many(number)),
            ),
            specialisation=maybe(record(
                bits=number, shuffled=pair(number, number), p=number, given_word=number,
                given_word_shuffled=maybe(pair(number, number)), given_word_p=number, label_bits=number,
            )),
        )),
        "texts": count, "page": maybe(file),
    },
    "track": {
        "steps": many(count), "metrics": by(many(estimate)), "changes": by(best_break), "page": maybe(file),
        "verdict": record(
            said=text, steepest=number, discontinuous=best_break, continuous=best_break, resolution=number,
        ),
    },
    "context": {
        "task": text, "accuracy": by(estimate), "cost": by(estimate), "transfer": by(estimate), "warning": maybe(text),
        "page": maybe(file),
        "heads": many({"type": "array", "prefixItems": [count, count, number], "minItems": 3, "maxItems": 3}),
    },
    "visualise": {
        "objective": text, "value": number, "greatest_natural": number, "quantile": number, "path_similarity": number,
        "random_path_similarity": number, "sheet": file,
    },
    "evolve": {
        "objective": text, "texts": many(record(text=text, value=number, cross_entropy=number)), "comparison": evolved,
        "control": evolved,
    },
    "diff": {
        "base": text, "tuned": text, "texts": count, "divergence": estimate, "placebo_divergence": maybe(estimate),
        "sites": many(record(
            ("state_placebo", "held_placebo"), site=text, state=number, by_chance=number, state_placebo=number,
            held=estimate, held_placebo=number,
        )),
        "words": scored_words,
        "weights": many(record(matrix=text, relative=number, rank=number)), "direction": maybe(file),
        "page": maybe(file),
    },
    "landmark corpus": {"documents": many(record(genre=text, text=text))},
    "landmark train": {"model": file, "seed": count, "architecture": text},
    "landmark card": {"card": file, "known": estimate, "known_held_out": estimate},
    "worlds train": {"model": file, "world": text, "seed": count},
    "worlds guide": {"files": many(file)},
    "worlds rows": {"rows": many(text)},
    "postcard draw": {"sheet": maybe(file), "captions": many(text)},
    "postcard train": {"model": file, "which": text, "seed": count},
    "postcard card": {"card": file, "accuracy": estimate},
}  # fmt: skip
OPTIONAL: dict[str, set[str]] = {
    "discover": {"page", "map"},
    "search": {"direction", "effect", "page"},
    "steer": {
        "model",
        "fingerprint",
        "steering",
        "site",
        "dose",
        "prompt",
        "unsteered",
        "steered",
        "control",
        "control_is",
        "receipt",
    },
    "circuit": {"nodes", "curves", "faithfulness"},
    "edit": {"replies", "measures", "page"},
}
"""Keys that are there in some calls only: an option asks for them."""
ESTIMATE = record(value=number, low=number, high=number, n=count) | {
    "description": "a measured value with its 95 % interval"
}


def schema() -> dict[str, Any]:
    """The schema: under `$defs` one for each verb, with the keys that its document may have, and no others.

    Raises:
        SystemExit: the page and the types here name different keys.
    """
    verbs: dict[str, Any] = {}
    for names, said in _ROW.findall(PAGE.read_text("utf-8")):
        keys = {key for key in _NAME.findall(_INSIDE.sub("", said)) if not key.startswith("--")}
        described = {key: inside for key, inside in re.findall(r"`([^`]+)` \(([^)]*)\)", said)}
        for name in _NAME.findall(names):
            types = TYPES.get(name, {})
            if keys != types.keys():
                raise SystemExit(f"{name}: {PAGE.name} and TYPES differ in {sorted(keys ^ types.keys())}")
            properties = {
                key: of | ({"description": described[key]} if key in described else {}) for key, of in types.items()
            }
            one = record(tuple(OPTIONAL.get(name, ())), **properties)
            verbs[name] = one | {"additionalProperties": "what was sampled with" in said}
    if missing := TYPES.keys() - verbs.keys():
        raise SystemExit(f"{PAGE.name} has no row of {sorted(missing)}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What each verb of interp prints with --json",
        "$defs": {"estimate": ESTIMATE, **verbs},
    }


def written() -> str:
    """The file as it is written."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(written(), encoding="utf-8")
