"""Parts of `benchmarks/pictures.py` about the bundled CLIP: the sum of its parts, patches, a planted pair, signs."""

import sys
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hooks import Images, intervene  # noqa: E402
from hooks.interventions import add  # noqa: E402
from hooks.site import conv_pre, embedding  # noqa: E402
from interp.clip import (  # noqa: E402
    ablate_heads,
    centre_rows,
    decompose_vectors,
    find_shared_latent,
    head_effects,
    map_patches,
    pair_rows,
    score_rows,
)
from interp.common.statistics import bootstrap, share  # noqa: E402
from interp.postcard import LANDMARKS, captions, draw, load_net, scenes  # noqa: E402
from interp.postcard.answers import naming_vectors  # noqa: E402
from interp.sae import Crosscoder, TopK, tensor_source, train  # noqa: E402

BRIDGE = "Golden Gate Bridge"


def clip(quick: bool) -> dict[str, Any]:
    """Zero-shot, the sum of the parts, the last layers alone, patches against masks, one concept in both towers."""
    towers: Any = load_net("clip")
    classes = naming_vectors(towers.hf).detach()
    shown = scenes("test", 200 if quick else 1000)
    pictures = draw(shown).images()
    parts = decompose_vectors(towers, pictures)
    truth = torch.tensor([LANDMARKS.index(scene.landmark) for scene in shown])
    own = torch.cat([towers.image.run(Images(x)).image_embeds.detach() for x in pictures.pixels.split(100)])

    def right(vectors: torch.Tensor) -> torch.Tensor:
        return (torch.nn.functional.normalize(vectors, dim=-1) @ classes.T).argmax(1) == truth

    _, layers, heads, _ = parts.heads.shape
    early = [(layer, head) for layer in range(layers - 2) for head in range(heads)]
    late = [(layer, head) for layer in range(layers - 2, layers) for head in range(heads)]
    no_mlps = parts.vectors - (parts.mlps - parts.mlps.mean(0)).sum(1)
    found: dict[str, Any] = {
        "largest difference of the sum of the parts": float((parts.vectors - own).abs().max()),
        "zero-shot of 72": asdict(share(right(own))),
        "heads of the first two layers mean-ablated": asdict(share(right(ablate_heads(parts, early)))),
        "heads of the last two layers mean-ablated": asdict(share(right(ablate_heads(parts, late)))),
        "feed-forward layers mean-ablated": asdict(share(right(no_mlps))),
        "patches": _patches(towers, classes, shown, pictures),
        "planted pair": _planted(towers, classes, 120 if quick else 400),
        "one concept": _concept(towers, classes, quick),
    }
    print(found)
    return found


def _patches(towers: Any, classes: torch.Tensor, shown: Any, pictures: Images) -> dict[str, Any]:
    """IoU with the mask of the patches that a text is read from, and of the best box at the middle; set on one half."""
    n = min(len(shown), 300)
    mask = towers.image.grids[conv_pre[0]].coverage(pictures.masks["landmark"][:n]) >= 0.5
    maps = []
    for i, scene in enumerate(shown[:n]):
        towards = classes[LANDMARKS.index(scene.landmark)] - classes.mean(0)
        maps.append(map_patches(towers, pictures[i], towards).sum((1, 2))[0, 1:])
    scores, half = torch.stack(maps), n // 2

    def iou(on: torch.Tensor) -> torch.Tensor:
        return (on & mask).sum(1) / (on | mask).sum(1).clamp_min(1)

    tried = [scores >= scores.quantile(q, dim=1, keepdim=True) for q in (0.5, 0.6, 0.7, 0.8, 0.9)]
    boxes = []
    for top, side in ((a, b) for a in range(4) for b in range(4)):
        box = torch.zeros(8, 8, dtype=torch.bool)
        box[top : 8 - top // 2, side : 8 - side] = True
        boxes.append(box.flatten().expand(n, -1))
    best = {name: max(some, key=lambda on: float(iou(on)[:half].mean())) for name, some in (
        ("patches of the text", tried), ("box at the middle", boxes))}  # fmt: skip
    return {name: asdict(bootstrap(lambda s: float(s[0].mean()), [iou(on)[half:]])) for name, on in best.items()}


def _planted(towers: Any, classes: torch.Tensor, n: int) -> dict[str, Any]:
    """Heads that fog moves towards the bridge, found on one half of twins and taken out on the other."""
    drawn, others = scenes("test", n, start=600_000), [name for name in LANDMARKS if name != BRIDGE]
    groups: dict[tuple[str, str], Any] = {}
    for who in ("bridge", "others"):
        for weather in ("clear", "fog"):
            names = [BRIDGE if who == "bridge" else others[i % len(others)] for i in range(n)]
            part = [s.but(landmark=x, sign=None, weather=weather) for s, x in zip(drawn, names, strict=True)]
            halves = [decompose_vectors(towers, draw(p).images()) for p in (part[: n // 2], part[n // 2 :])]
            groups[who, weather] = (*halves, torch.tensor([LANDMARKS.index(s.landmark) for s in part[n // 2 :]]))
    towards = classes[LANDMARKS.index(BRIDGE)] - classes.mean(0)
    both = [head_effects(groups[who, "clear"][0], groups[who, "fog"][0], towards) for who in ("bridge", "others")]
    effects = torch.stack(both).mean(0)
    heads = effects.shape[1]
    order = [(i // heads, i % heads) for i in effects.flatten().argsort(descending=True).tolist()]

    def by_group(out: list[tuple[int, int]]) -> dict[str, Any]:
        found = {}
        for (who, weather), (_, rest, truth) in groups.items():
            vectors = ablate_heads(rest, out, groups["others", "clear"][0])
            said = (torch.nn.functional.normalize(vectors, dim=-1) @ classes.T).argmax(1)
            found[f"{who}, {weather}"] = asdict(share(said == truth))
        return found

    rest = [by_group(Random(seed).sample(order[2:], 2)) for seed in range(10)]
    worst = min(by_group([]).items(), key=lambda item: item[1]["value"])[0]
    return {
        "heads moved towards the bridge by fog": [[*head, round(float(effects[head]), 3)] for head in order[:4]],
        "worst group": worst,
        "as it is": by_group([]),
        "two heads out": by_group(order[:2]),
        "two others at random, worst group, ten draws": [one[worst]["value"] for one in rest],
    }


def _concept(towers: Any, classes: torch.Tensor, quick: bool) -> dict[str, Any]:
    """The bridge as one latent of a dictionary over both towers, next to pixels, words and shuffled labels; steered."""
    shown = [*scenes("train", 600 if quick else 2500)]
    weathers = ("clear", "cloud", "fog", "rain")
    extra = scenes("train", len(shown) // 10, start=50_000)
    shown += [s.but(landmark=BRIDGE, sign=None, weather=weathers[i % 4]) for i, s in enumerate(extra)]
    Random(1).shuffle(shown)
    said, pictures = captions(shown, 3), draw(shown).images()
    seen = torch.cat([towers.image.run(Images(x)).image_embeds.detach() for x in pictures.pixels.split(100)])
    read = torch.cat(
        [towers.text_vectors([c.text for c in said[i : i + 100]]).detach() for i in range(0, len(said), 100)]
    )
    is_shown = torch.tensor([s.landmark == BRIDGE for s in shown])
    named = [s.landmark == BRIDGE and "landmark" in c.factors for s, c in zip(shown, said, strict=True)]
    is_named, half = torch.tensor(named), len(shown) // 2
    x, t = centre_rows(seen, seen[:half]), centre_rows(read, read[:half])

    def direction(rows: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(rows[:half][y[:half]].mean(0) - rows[:half][~y[:half]].mean(0), dim=0)

    plan: dict[str, Any] = {"tokens": 150_000, "batch_size": 512, "lr": 2e-3, "dead_after": 20_000, "progress": False}
    sae, cross = TopK(128, 512, k=8), Crosscoder(128, 512, n_layers=2, coefficient=0.05)
    train(sae, tensor_source(torch.cat([x[:half], t[:half]])), **plan)
    train(cross, tensor_source(pair_rows(x[:half], t[:half])), **plan)
    texts = [c.text for c in said]
    groups = (range(len(shown)), texts)  # a caption that chose is not scored where it comes again
    with torch.no_grad():
        shared = find_shared_latent(sae.encode(x), is_shown, sae.encode(t), is_named, groups=groups)
        coded = cross.encode(pair_rows(x, None)), cross.encode(pair_rows(None, t))
        both = find_shared_latent(coded[0], is_shown, coded[1], is_named, groups=groups)
    flat, words = pictures.pixels.flatten(1), sorted({word for c in said for word in c.text.lower().split()})
    number = {word: i for i, word in enumerate(words)}
    bags = torch.zeros(len(said), len(words))
    for i, caption in enumerate(said):
        bags[i, [number[word] for word in caption.text.lower().split()]] = 1.0
    in_pictures, in_text = direction(x, is_shown), direction(t, is_named)
    asked = draw([s for s in scenes("test", 100 if quick else 300) if s.landmark != BRIDGE]).images()
    plain, length = towers.image.run(asked).image_embeds.detach(), seen.norm(dim=1).mean()
    drawn = torch.Generator().manual_seed(0)
    control = [torch.randn(128, generator=drawn) for _ in range(5)]

    def steered(vectors: list[torch.Tensor], dose: float) -> dict[str, Any]:
        hits = []
        for vector in vectors:
            unit = torch.nn.functional.normalize(vector, dim=0)
            with torch.no_grad(), intervene(towers.image, {embedding: add(dose * length * unit)}):
                made = towers.image_vectors(asked)
            hits.append((made @ classes.T).argmax(1) == LANDMARKS.index(BRIDGE))
        return asdict(share(torch.cat(hits)))

    return {
        "pictures": len(shown) - half,
        "cosine of the directions of pictures and captions": float(in_pictures @ in_text),
        "F1 of pictures by the direction of captions": score_rows(x @ in_text, is_shown).f1,
        "F1 of captions by the direction of pictures": score_rows(t @ in_pictures, is_named, groups=texts).f1,
        "latent of the SAE": asdict(shared),
        "latent of the crosscoder": asdict(both),
        "pixels": asdict(score_rows(flat @ direction(flat, is_shown), is_shown)),
        "words": asdict(score_rows(bags @ direction(bags, is_named), is_named, groups=texts)),
        "pictures of others called the bridge, unsteered": float(
            ((torch.nn.functional.normalize(plain, dim=-1) @ classes.T).argmax(1) == LANDMARKS.index(BRIDGE))
            .float()
            .mean()
        ),
        "by dose": {
            str(dose): {
                "latent": steered([sae.W_dec[shared.latent].detach()], dose),
                "direction of captions": steered([in_text], dose),
                "five random directions": steered(control, dose),
            }
            for dose in (0.5, 1.0, 1.5)
        },
    }


def signs(quick: bool) -> dict[str, Any]:
    """An attack by a sign (Goh et al. 2021): another landmark's name in front of a picture, by letters alone.

    In training a sign is on one picture in ten and names what is shown. The controls are no sign, the picture's own
    name, and a sign of as many letters that name nothing. Heads that read the sign are found on one half of the
    pictures and taken out on the other, next to heads at random.
    """
    n = 80 if quick else 600
    drawn, random = scenes("test", n, start=700_000), Random(0)
    other = [random.choice([x for x in LANDMARKS if x != s.landmark]) for s in drawn]
    letters = ["".join(random.sample(name.replace(" ", ""), len(name.replace(" ", "")))) for name in other]
    shown = {
        "no sign": [s.but(sign=None) for s in drawn],
        "its own name": [s.but(sign=s.landmark) for s in drawn],
        "another's name": [s.but(sign=name) for s, name in zip(drawn, other, strict=True)],
        "letters that name nothing": [s.but(sign=name) for s, name in zip(drawn, letters, strict=True)],
    }
    truth, false = (torch.tensor([LANDMARKS.index(x) for x in names]) for names in ([s.landmark for s in drawn], other))
    pictures = {name: draw(some).images() for name, some in shown.items()}
    nets: dict[str, Any] = {"convnet": load_net("convnet"), "convnet, second seed": load_net("convnet-1")}
    towers: Any = load_net("clip")
    classes = naming_vectors(towers.hf).detach()
    found: dict[str, Any] = {"pictures": n}
    for who, net in {**nets, "CLIP": towers}.items():
        found[who] = {}
        for name, some in pictures.items():
            said = _said(net, some, classes)
            found[who][name] = {
                "the picture's landmark": asdict(share(said == truth)),
                "the sign's": asdict(share(said == false)),
            }
            print(who, name, found[who][name], flush=True)
    found["CLIP, heads out"] = _without_readers(towers, pictures, classes, truth, false)
    return found


def _said(net: Any, pictures: Images, classes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        if hasattr(net, "image"):
            return torch.cat([(net.image_vectors(Images(x)) @ classes.T).argmax(1) for x in pictures.pixels.split(100)])
        return torch.cat([net.run(Images(x)).argmax(1) for x in pictures.pixels.split(100)])


def _without_readers(
    towers: Any, pictures: dict[str, Images], classes: torch.Tensor, truth: torch.Tensor, false: torch.Tensor
) -> dict[str, Any]:
    """Heads that move the vector from the picture's landmark to the sign's; half of the pictures choose them."""
    half = len(truth) // 2
    plain, signed = (decompose_vectors(towers, pictures[name]) for name in ("no sign", "another's name"))
    towards = classes[false[:half]] - classes[truth[:half]]
    moved = torch.einsum("blhd,bd->blh", (signed.heads - plain.heads)[:half], towards).mean(0)
    order = [divmod(i, moved.shape[1]) for i in moved.flatten().argsort(descending=True).tolist()]

    def right(out: list[tuple[int, int]]) -> torch.Tensor:
        vectors = ablate_heads(signed, out, plain)[half:]
        return (torch.nn.functional.normalize(vectors, dim=-1) @ classes.T).argmax(1) == truth[half:]

    rest = [float(right(Random(seed).sample(order[2:], 2)).float().mean()) for seed in range(10)]
    found = {
        "heads moved most, with how far": [[*head, round(float(moved[head]), 3)] for head in order[:4]],
        "right under attack, none out": asdict(share(right([]))),
        "right under attack, the two out": asdict(share(right(order[:2]))),
        "right under attack, two others at random, ten draws": rest,
    }
    print(found)
    return found
