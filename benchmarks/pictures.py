"""What the bundled pictures and their convnet show: neighbours, arithmetic, visualisation, dissection, splicing.

`python benchmarks/pictures.py`. Every figure has its interval and its control: pixels, colours, an untrained net, no
offset, a random direction, masks of another picture. Writes benchmarks/results/pictures.json. `--part NAME` measures
one part and keeps the others' figures; `--quick` takes fewer pictures and writes nothing.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import torch
from scipy.spatial import procrustes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Images, Model, Network, Processor, Site, capture, intervene, load  # noqa: E402
from hooks.errors import InvalidArgument  # noqa: E402
from hooks.interventions import add, replace  # noqa: E402
from hooks.position import everywhere, last, region  # noqa: E402
from hooks.site import conv_act, conv_pre, embedding, fc_act, pool, resid_post  # noqa: E402
from interp.atlas import (  # noqa: E402
    Analogies,
    Atlas,
    attribute_cells,
    draw_icons,
    find_offset,
    find_walk,
    histogram_space,
    map_activations,
    measure_analogies,
    measure_hubness,
    measure_map,
    measure_precision,
    pixel_space,
    sample_activations,
    space_at,
)
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
from interp.landmark.entities import entity, find  # noqa: E402
from interp.postcard import LANDMARKS, Scene, captions, draw, load_net, new_net, scenes  # noqa: E402
from interp.postcard.answers import naming_vectors  # noqa: E402
from interp.sae import Crosscoder, TopK, tensor_source, train  # noqa: E402
from interp.visualisation import (  # noqa: E402
    Canvas,
    Moves,
    Objective,
    dissect,
    measure_colours,
    unit,
    visualise,
)
from interp.visualisation.compare import natural_values, ranks  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "pictures.json"


def nets() -> dict[str, Network]:
    """The trained convnet and its untrained twin."""
    found: dict[str, Any] = {"trained": load_net("convnet"), "untrained": load_net(new_net("convnet"))}
    return found


def neighbours(quick: bool) -> dict[str, Any]:
    """Whether the nearest pictures show the same landmark, and among others a landmark of the same kind."""
    shown = scenes("test", 500 if quick else 4000)
    pictures, names = draw(shown).images(), [scene.landmark for scene in shown]
    spaces = {f"{name} net": space_at(net, pictures, embedding, names) for name, net in nets().items()}
    spaces |= {"pixels": pixel_space(pictures, names), "pixels, blurred": pixel_space(pictures, names, blur=8)}
    spaces |= {"colours": histogram_space(pictures, names)}
    own = measure_precision(spaces, names, k=10)
    kinds = measure_precision(spaces, [scene["kind"] for scene in shown], k=10, groups=names)
    print(own, kinds, sep="\n")
    return {
        "pictures": len(shown),
        "same landmark": {"by space": {n: asdict(e) for n, e in own.by_space.items()}, "shuffled labels": own.chance},
        "same kind, among other landmarks": {n: asdict(e) for n, e in kinds.by_space.items()},
        "hubness": asdict(measure_hubness(spaces["trained net"])),
    }


def _table(found: Analogies) -> dict[str, Any]:
    print(found)
    both = {"c excluded": found.excluded, "c allowed": found.allowed}
    return {"pairs": found.n, **{how: {n: asdict(e) for n, e in table.items()} for how, table in both.items()}}


def arithmetic(quick: bool) -> dict[str, Any]:
    """Whether the change of one factor is an offset: each landmark before and after it, all else the same."""
    found: dict[str, Any] = {}
    sites = (embedding,) if quick else (embedding, fc_act[0], pool[2])
    for factor, before, after in (("time", "day", "night"), ("weather", "clear", "rain"), ("weather", "clear", "fog")):
        base = [Scene(name, seed=7, **{factor: before}) for name in LANDMARKS]  # type: ignore[arg-type]
        pictures = draw([*base, *(scene.but(**{factor: after}) for scene in base)]).images()
        names, pairs = [str(i) for i in range(144)], [(i, 72 + i) for i in range(72)]
        for name, net in nets().items():
            for site in sites:
                print(f"{before} to {after}, {name} net, {site}")
                space = space_at(net, pictures, site, names)
                found[f"{before} to {after}, {name} net, {site}"] = _table(measure_analogies(space, pairs))
    return found


def capitals(quick: bool) -> dict[str, Any]:
    """The same in the bundled language model: from a country to its capital, read at the last token of the name."""
    countries = sorted({entity(name)["country"] for name in LANDMARKS})
    known = [one for name in countries if (one := find(name)) is not None and one.kind == "country"]
    pairs = [(one.text, one["capital"]) for one in known]
    texts = [*dict.fromkeys(one for pair in pairs for one in pair)]
    model: Any = load("landmark")
    found = {}
    for layer in (0, 3) if quick else range(model.n_layers):
        space = space_at(model, texts, resid_post[layer], texts, at=last)
        kept = [pair for pair in pairs if pair[0] != pair[1]]
        print(f"capital of a country, {resid_post[layer]}")
        found[str(resid_post[layer])] = _table(measure_analogies(space, kept))
    return found


def _each(site: Site, numbers: torch.Tensor) -> Objective:
    """Each picture of a batch for its own channel, at the centre."""

    def score(acts: torch.Tensor, grid: Any) -> torch.Tensor:
        at = grid.place(grid.shape[0] // 2, grid.shape[1] // 2)
        return acts[torch.arange(len(acts)), at, numbers]

    return Objective(f"each channel of {site}", site, score)


def visualisation(quick: bool) -> dict[str, Any]:
    """Each channel's made picture next to a thousand real ones: its value among theirs, and its path."""
    natural = draw(scenes("test", 200 if quick else 1000)).images()
    colours, found = measure_colours(natural), dict[str, Any]()
    for name, net in nets().items():
        for site in (conv_pre[2],) if quick else (conv_pre[1], conv_pre[2], conv_pre[4]):
            k = net.tap(site).shape[0]
            values = torch.stack([natural_values(net, unit(site, i), natural) for i in range(k)], 1)
            made = visualise(net, _each(site, torch.arange(k)), n=k, steps=40 if quick else 96, colours=colours)
            live = values.max(0).values > 0
            above = made.values > values.quantile(0.999, dim=0)
            random = draw(scenes("test", k, start=9000)).images()
            paths = {"made": _path(net, site, made.pictures, values, natural), "another real picture": _path(
                net, site, random, values, natural)}  # fmt: skip
            found[f"{name} net, {site}"] = {
                "channels": k,
                "silent": int((~live).sum()),
                "above the 99.9th percentile of real pictures, of live ones": asdict(share(above[live])),
                "path similarity over that among the best real pictures": {
                    what: asdict(bootstrap(lambda s: float(s[0].mean()), [rows[live]])) for what, rows in paths.items()
                },
            }
            print(name, site, json.dumps(found[f"{name} net, {site}"]))
    torch.manual_seed(0)
    linear = load(torch.nn.Sequential(torch.nn.Conv2d(3, 1, 8, bias=False)), inputs=torch.zeros(1, 3, 8, 8),
                  processor=Processor())  # fmt: skip
    canvas = Canvas(1, (8, 8), radius=0.4)
    made = visualise(linear, unit(conv_pre[0], 0), steps=300, moves=Moves(0.0, 0.0, 0.0), canvas=canvas)
    w = next(linear.hf.parameters()).detach()[0].flatten()
    cosine = torch.nn.functional.cosine_similarity((made.pictures.pixels[0] - 0.5).flatten(), w, dim=0)
    found["cosine of a linear unit's picture with its filter"] = float(cosine)
    return found


def _path(net: Network, site: Site, pictures: Images, values: torch.Tensor, natural: Images) -> torch.Tensor:
    """For each channel the picture's mean correlation, site by site, with its three best real ones, over theirs."""
    sites = [one for one in net.sites if one.name == site.name and (one.layer or 0) <= (site.layer or 0)]
    best = values.topk(3, dim=0).indices
    own, real = capture(net, pictures, sites), capture(net, Images(natural.pixels[best.T.flatten()]), sites)
    mine, among = torch.zeros(len(pictures)), torch.zeros(len(pictures))
    for one in sites:
        a, b = ranks(own[one].flatten(1)), ranks(real[one].flatten(1)).unflatten(0, (-1, 3))
        mine += torch.einsum("kd,kjd->kj", a, b).mean(1)
        pairs = torch.einsum("kid,kjd->kij", b, b)
        among += (pairs.sum((1, 2)) - 3) / 6
    return mine / among


def dissection(quick: bool) -> dict[str, Any]:
    """Which units of the convolutions are detectors of which concepts, on pictures that did not choose them."""
    pictures, found = draw(scenes("test", 300 if quick else 1600)).images(), dict[str, Any]()
    for name, net in nets().items():
        for site in (conv_act[2], conv_act[4]):
            one = dissect(net, pictures, site)
            best = one.iou.topk(3).indices.tolist()
            found[f"{name} net, {site}"] = {
                "detectors": asdict(share(one.detectors)),
                "mean IoU": float(one.iou.mean()),
                "with masks of other pictures": float(one.shuffled.mean()),
                "best": [[i, one.concepts[int(one.chosen[i])], round(float(one.iou[i]), 3)] for i in best],
            }
            print(name, site, found[f"{name} net, {site}"])
    return found


def splicing(quick: bool) -> dict[str, Any]:
    """The rest of the net run from each site; and a region of another picture put in, there or as pixels."""
    net, n = nets()["trained"], 16 if quick else 64
    here, there = draw(scenes("test", n)).images(), draw(scenes("test", n, start=n)).images()
    exact = []
    wanted = net.run(there).detach()
    for site in [s for s in net.sites if s.name in ("conv_pre", "conv_act", "pool", "fc_act")]:
        with torch.no_grad(), intervene(net, {site: replace(capture(net, there, site)[site], at=everywhere)}):
            exact.append(bool(torch.equal(net.run(here), wanted)))
    shifts = []
    random = torch.Generator().manual_seed(0)
    clean = net.run(here).detach()
    for _ in range(4 if quick else 12):
        top, left = (int(x) for x in torch.randint(0, 8, (2,), generator=random) * 4)
        bottom, right = top + 32, left + 32
        pasted = here.pixels.clone()
        pasted[:, :, top:bottom, left:right] = there.pixels[:, :, top:bottom, left:right]
        other = capture(net, there, pool[0])[pool[0]]
        with torch.no_grad(), intervene(net, {pool[0]: replace(other, at=region(top, left, bottom, right))}):
            patched = net.run(here)
        shifts.append(torch.stack([(patched - clean).flatten(), (net.run(Images(pasted)).detach() - clean).flatten()]))
    pairs = torch.cat(shifts, 1)
    found = {
        "sites spliced bit for bit": asdict(share(torch.tensor(exact))),
        "correlation of a region patched at pool.0 with its pixels pasted": float(torch.corrcoef(pairs)[0, 1]),
        "regions": len(shifts) * n,
    }
    print(found)
    return found


def atlas(quick: bool) -> dict[str, Any]:
    """Maps of the last hidden vector, five seeds; icons and walks."""
    shown = scenes("test", 800 if quick else 4000)
    pictures, names = draw(shown).images(), [scene.landmark for scene in shown]
    net, found = nets(), dict[str, Any]()
    for name, one in net.items():
        sample = sample_activations(one, pictures, embedding, names)
        maps = [map_activations(sample, side=24, least=4, seed=seed) for seed in range(2 if quick else 5)]
        shapes = [procrustes(maps[0].xy.numpy(), other.xy.numpy())[2] for other in maps[1:]]
        measured = [measure_map(one_map) for one_map in maps]
        print(name, measured[0], shapes)
        found[f"{name} net"] = {
            "trustworthiness by seed": [asdict(q.trustworthiness["map"]) for q in measured],
            "principal components": asdict(measured[0].trustworthiness["principal components"]),
            "purity of 15 neighbours by seed": [asdict(q.purity.by_space["map"]) for q in measured if q.purity],
            "in all dimensions": asdict(measured[0].purity.by_space["all dimensions"]),  # type: ignore[union-attr]
            "on principal components": asdict(measured[0].purity.by_space["principal components"]),  # type: ignore[union-attr]
            "shuffled labels": measured[0].purity.chance,  # type: ignore[union-attr]
            "Procrustes distance of other seeds": shapes,
        }
        if name == "trained":
            found |= _icons(one, maps[0], pictures, quick) | _walks(maps[0], quick)
    return found


def _icons(net: Network, atlas: Atlas, pictures: Images, quick: bool) -> dict[str, Any]:
    """Whether the net says of an icon, and of the real example nearest to the mean, what most of the cell are."""
    icons = draw_icons(net, atlas, steps=16 if quick else 64, colours=measure_colours(pictures))
    cells = atlas.cells.cells
    labels = torch.tensor([LANDMARKS.index(cell.label or "") for cell in cells])
    real = pictures.pixels[torch.stack([atlas.sample.item[cell.members[0]] for cell in cells])]
    noise = Canvas(len(cells), (64, 64), colours=measure_colours(pictures)).pixels().detach()
    seen = {"icons": icons.pictures.pixels, "real examples": real, "noise": noise}
    said = {name: net.run(Images(x)).argmax(1) == labels for name, x in seen.items()}
    found = {f"{name} classified as their cell": asdict(share(right)) for name, right in said.items()}
    print(found)
    return {**found, "cosine of icons with their cells": float(icons.cosine.mean())}


def _walks(atlas: Atlas, quick: bool) -> dict[str, Any]:
    """Walks between landmarks drawn at random: how many have no step above the 95th percentile of edges."""
    drawn, smooth, straight, random, detours, lost = Random(0), [], [], [], [], 0
    for _ in range(20 if quick else 200):
        a, b = drawn.sample(LANDMARKS, 2)
        try:
            walk = find_walk(atlas, a, b)
        except InvalidArgument:
            lost += 1
            smooth.append(False)
            continue
        smooth.append(walk.is_smooth)
        straight.append(walk.straight.largest <= walk.large)
        random.append(walk.random.largest <= walk.large)
        detours.append(walk.route.detour)
    figures = {"over neighbours": smooth, "straight on the map": straight, "over a random graph": random}
    found = {name: asdict(share(torch.tensor(ok))) for name, ok in figures.items()}
    found |= {"no way": lost, "mean detour": sum(detours) / len(detours)}
    print(found)
    return {"walks without a step above the 95th percentile of edges": found}


def large_atlas(quick: bool) -> dict[str, Any]:
    """An atlas of 100,000 activations at the last convolution, four places of each picture: CPU seconds by step."""
    n, seconds, begun = (1000 if quick else 25_000), dict[str, float](), process_time()

    def lap(name: str) -> None:
        seconds[name] = round(process_time() - begun - sum(seconds.values()), 1)
        print(name, seconds[name], flush=True)

    net, shown = nets()["trained"], scenes("test", n)
    pictures = Images(torch.cat([draw(shown[i : i + 1000]).images().pixels for i in range(0, n, 1000)]))
    lap("pictures drawn")
    labels = [scene.landmark for scene in shown]
    sample = sample_activations(net, pictures, conv_act[4], labels, per_item=4)
    lap("activations sampled")
    made = map_activations(sample, neighbours=15, side=20, least=10)
    lap("neighbours, map and cells")
    icons = draw_icons(net, made, steps=48, colours=measure_colours(pictures[:2000]))
    lap("icons")
    words = attribute_cells(net, pictures, made, LANDMARKS)
    lap("words")
    quality = measure_map(made)
    found = {
        "activations": len(sample),
        "cells": len(made.cells.cells),
        "CPU seconds": seconds,
        "CPU seconds in all, of one thread": round(sum(seconds.values()), 1),
        "load": os.getloadavg()[0],
        "trustworthiness": {name: asdict(e) for name, e in quality.trustworthiness.items()},
        "cosine of icons with their cells": float(icons.cosine.mean()),
        "cells with words": len(words),
    }
    print(found)
    return found


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
    mask = towers.image.grids[conv_pre[0]].covered(pictures.masks["landmark"][:n]) >= 0.5
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
    with torch.no_grad():
        shared = find_shared_latent(sae.encode(x), is_shown, sae.encode(t), is_named)
        both = find_shared_latent(
            cross.encode(pair_rows(x, None)), is_shown, cross.encode(pair_rows(None, t)), is_named
        )
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
        "F1 of captions by the direction of pictures": score_rows(t @ in_pictures, is_named).f1,
        "latent of the SAE": asdict(shared),
        "latent of the crosscoder": asdict(both),
        "pixels": asdict(score_rows(flat @ direction(flat, is_shown), is_shown)),
        "words": asdict(score_rows(bags @ direction(bags, is_named), is_named)),
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


def causes(quick: bool) -> dict[str, Any]:
    """Why an offset leads nowhere in one net and home in another, and what bounds the share of detectors."""
    day = [Scene(name, seed=7, time="day") for name in LANDMARKS]
    pictures = draw([*day, *(scene.but(time="night") for scene in day)]).images()
    names, pairs = [str(i) for i in range(144)], [(i, 72 + i) for i in range(72)]
    towers: Any = {"CLIP": load_net("clip"), "untrained CLIP": load_net(new_net("clip"))}
    seen = {**{name: one.image for name, one in towers.items()}, "convnet": nets()["trained"]}
    found: dict[str, Any] = {"day to night": {}, "capital of a country": {}, "detectors by quantile": {}}
    for name, net in seen.items():
        space = space_at(net, pictures, embedding, names)
        offset, x = find_offset(space, pairs), space.rows[:72]
        apart = torch.cdist(x, x).fill_diagonal_(torch.inf).min(1).values.mean()
        found["day to night"][name] = {
            **_table(measure_analogies(space, pairs, classes=False)),
            "consistency": asdict(offset.consistency),
            "consistency of shuffled pairs": asdict(offset.shuffled),
            "length of the mean offset over the distance to the nearest other landmark": float(
                offset.direction.vector.norm() / apart
            ),
        }
    found["capital of a country"] = _names_and_answers()
    pictures = draw(scenes("test", 200 if quick else 800)).images()
    for quantile in (0.005, 0.02, 0.05):
        for name, net in nets().items():
            one = dissect(net, pictures, conv_act[4], quantile=quantile)
            shares = {c: round(float(s), 4) for c, s in zip(one.concepts, one.constant, strict=True)}
            found["detectors by quantile"][f"{name} net, {quantile}"] = {
                "detectors": asdict(share(one.detectors)),
                "mean IoU": float(one.iou.mean()),
                "with masks of other pictures": float(one.shuffled.mean()),
                "concepts whose share of the pixels bounds the IoU below 0.04": sum(
                    quantile < 0.04 * s for s in shares.values()
                ),
                "concepts": len(shares),
            }
    print(found)
    return found


def _names_and_answers() -> dict[str, Any]:
    """Whether the names of countries and of their capitals differ by one vector, and whether the model knows them."""
    countries = sorted({entity(name)["country"] for name in LANDMARKS})
    known = [one for name in countries if (one := find(name)) is not None and one.kind == "country"]
    pairs = [(one.text, one["capital"]) for one in known if one.text != one["capital"]]
    texts, model = [*dict.fromkeys(one for pair in pairs for one in pair)], load("landmark")
    assert isinstance(model, Model)
    said = model.generate([f"The capital of {country} is" for country, _ in pairs], max_new_tokens=6)
    right = [text.strip().startswith(capital) for text, (_, capital) in zip(said, pairs, strict=True)]
    found: dict[str, Any] = {"the model says the capital": asdict(share(torch.tensor(right)))}
    for layer in range(model.n_layers):
        offset = find_offset(space_at(model, texts, resid_post[layer], texts, at=last), pairs)
        both = {"consistency": asdict(offset.consistency), "shuffled": asdict(offset.shuffled)}
        found[str(resid_post[layer])] = both
    return found


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "neighbours": neighbours,
    "arithmetic": arithmetic,
    "capitals": capitals,
    "visualisation": visualisation,
    "dissection": dissection,
    "splicing": splicing,
    "atlas": atlas,
    "large atlas": large_atlas,
    "clip": clip,
    "causes": causes,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, nothing written")
    parser.add_argument("--part", choices=PARTS, help="measure this one, and keep the others' figures")
    asked = parser.parse_args()
    found = {name: part(asked.quick) for name, part in PARTS.items() if asked.part in (None, name)}
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["figures"] if RESULTS.is_file() else {}
    found = {name: both[name] for name in PARTS if name in (both := kept | found)}
    if not asked.quick:
        print(write("pictures", "python benchmarks/pictures.py", found))


if __name__ == "__main__":
    main()
