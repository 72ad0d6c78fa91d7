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

from benchmarks.pictures_clip import clip, signs  # noqa: E402
from benchmarks.timing import write  # noqa: E402
from hooks import Images, Model, Network, Processor, Site, capture, intervene, load, stream  # noqa: E402
from hooks.errors import InvalidArgument  # noqa: E402
from hooks.interventions import replace  # noqa: E402
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
from interp.common.statistics import bootstrap, share  # noqa: E402
from interp.landmark.entities import entity, find  # noqa: E402
from interp.postcard import LANDMARKS, Scene, draw, load_net, new_net, scenes  # noqa: E402
from interp.sae import TopK, activations_of, train  # noqa: E402
from interp.visualisation import (  # noqa: E402
    Canvas,
    Dissection,
    Moves,
    Objective,
    dissect,
    measure_colours,
    unit,
    visualise,
)
from interp.visualisation.compare import ranks  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "pictures.json"


def nets() -> dict[str, Network]:
    """The trained convnet, one trained from another seed on other pictures, and the untrained twin of the first."""
    found: dict[str, Any] = {"trained": load_net("convnet"), "second seed": load_net("convnet-1")}
    found["untrained"] = load_net(new_net("convnet"))
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
        "same kind, shuffled labels": kinds.chance,
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


def _at_centre(net: Network, site: Site, pictures: Images) -> torch.Tensor:
    """Every channel of every picture at the centre of the map, where `unit` reads it."""
    grid = net.grids[site]
    at = grid.place(grid.shape[0] // 2, grid.shape[1] // 2)
    return torch.cat([acts[site][:, at] for acts in stream(net, pictures, site)])


def visualisation(quick: bool) -> dict[str, Any]:
    """Each channel's made picture next to a thousand real ones: its value among theirs, and its path."""
    natural = draw(scenes("test", 200 if quick else 1000)).images()
    colours, found = measure_colours(natural), dict[str, Any]()
    for name, net in nets().items():
        for site in (conv_pre[2],) if quick else (conv_pre[1], conv_pre[2], conv_pre[4]):
            k = net.tap(site).shape[0]
            values = _at_centre(net, site, natural)
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
    bare: dict[str, Any] = {f"untrained, seed {seed}": load_net(new_net("convnet", seed)) for seed in (1,)}
    for name, net in (nets() | bare).items():
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


def dictionaries(quick: bool) -> dict[str, Any]:
    """Latents of a dictionary at a convolution against the masks, next to the units it is learnt from.

    For each concept the unit, or latent, with the greatest IoU on one half of the pictures has its IoU measured on the
    other. Controls: an untrained net, a dictionary that was not trained, masks of other pictures, and as many random
    directions as there are latents.
    """
    learnt = draw(scenes("train", 300 if quick else 4000)).images()
    pictures, found = draw(scenes("test", 200 if quick else 1600)).images(), dict[str, Any]()
    for name, net in nets().items():
        for site in (conv_act[2], conv_act[4]):
            d = net.tap(site).shape[0]
            sae, bare = TopK(d, 4 * d, k=8), TopK(d, 4 * d, k=8)
            tokens = 20_000 if quick else 600_000
            report = train(sae, activations_of(net, learnt, site), tokens=tokens, progress=False)
            drawn = torch.randn(d, 4 * d, generator=torch.Generator().manual_seed(0))
            ways: dict[str, Any] = {"units": None, "latents": sae.encode, "latents, untrained": bare.encode,
                                    "random directions": lambda x, drawn=drawn: x @ drawn}  # fmt: skip
            seen = {way: dissect(net, pictures, site, encode=encode) for way, encode in ways.items()}
            table = {way: _of_concepts(one) for way, one in seen.items()}
            ahead = seen["latents"].best_iou - seen["units"].best_iou
            found[f"{name} net, {site}"] = {
                "explained variance": report.quality.explained_variance,
                **table,
                "latents less units, over concepts": asdict(bootstrap(lambda s: float(s[0].mean()), [ahead])),
                "by concept, units and latents": {
                    concept: [round(float(seen[way].best_iou[i]), 3) for way in ("units", "latents")]
                    for i, concept in enumerate(seen["units"].concepts)
                },
            }
            print(name, site, json.dumps(found[f"{name} net, {site}"]), flush=True)
    return found


def _of_concepts(one: Dissection) -> dict[str, Any]:
    ious = {"best IoU, mean over concepts": one.best_iou, "with masks of other pictures": one.best_shuffled}
    means = {name: asdict(bootstrap(lambda s: float(s[0].mean()), [iou])) for name, iou in ious.items()}
    return {"detectors": asdict(share(one.detectors)), **means, "greatest IoU": float(one.best_iou.max())}


def splicing(quick: bool) -> dict[str, Any]:
    """The rest of the net run from each site; and a region of another picture put in, there or as pixels."""
    seeds = {name: _spliced(net, 16 if quick else 64, 4 if quick else 12) for name, net in nets().items()}
    print(seeds)
    return seeds


def _spliced(net: Network, n: int, regions: int) -> dict[str, Any]:
    """What one net shows."""
    here, there = draw(scenes("test", n)).images(), draw(scenes("test", n, start=n)).images()
    exact = []
    wanted = net.run(there).detach()
    for site in [s for s in net.sites if s.name in ("conv_pre", "conv_act", "pool", "fc_act")]:
        with torch.no_grad(), intervene(net, {site: replace(capture(net, there, site)[site], at=everywhere)}):
            exact.append(bool(torch.equal(net.run(here), wanted)))
    shifts = []
    random = torch.Generator().manual_seed(0)
    clean = net.run(here).detach()
    for _ in range(regions):
        top, left = (int(x) for x in torch.randint(0, 8, (2,), generator=random) * 4)
        bottom, right = top + 32, left + 32
        pasted = here.pixels.clone()
        pasted[:, :, top:bottom, left:right] = there.pixels[:, :, top:bottom, left:right]
        other = capture(net, there, pool[0])[pool[0]]
        with torch.no_grad(), intervene(net, {pool[0]: replace(other, at=region(top, left, bottom, right))}):
            patched = net.run(here)
        shifts.append(torch.stack([(patched - clean).flatten(), (net.run(Images(pasted)).detach() - clean).flatten()]))
    pairs = torch.cat(shifts, 1)
    each = torch.stack([torch.corrcoef(one)[0, 1] for one in shifts])  # resampled are regions, which share pictures
    return {
        "sites spliced bit for bit": asdict(share(torch.tensor(exact))),
        "correlation of a region patched at pool.0 with its pixels pasted": float(torch.corrcoef(pairs)[0, 1]),
        "the same by region": asdict(bootstrap(lambda s: float(s[0].mean()), [each])),
        "regions": len(shifts) * n,
    }


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
            smooth = _walks_of(maps[0], 20 if quick else 200, 1.0)
            found |= _icons(one, maps[0], pictures, quick)
            found |= {"walks without a step above the 95th percentile of edges": smooth}
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


def walks(quick: bool) -> dict[str, Any]:
    """Walks between landmarks drawn at random, the shortest and where large steps cost more, in nets of two seeds."""
    shown = scenes("test", 800 if quick else 4000)
    pictures, names = draw(shown).images(), [scene.landmark for scene in shown]
    found: dict[str, Any] = {}
    for name, net in nets().items():
        if name != "untrained":
            sample = sample_activations(net, pictures, embedding, names)
            made = map_activations(sample, side=24, least=4)
            for power in (1.0, 2.0, 4.0):
                found[f"{name} net, power {power:g}"] = _walks_of(made, 20 if quick else 200, power)
    print(json.dumps(found))
    return found


def _walks_of(atlas: Atlas, n: int, power: float) -> dict[str, Any]:
    """How many walks between landmarks drawn at random have no step above the 95th percentile of edges."""
    drawn, smooth, straight, random, detours, lost = Random(0), [], [], [], [], 0
    for _ in range(n):
        a, b = drawn.sample(LANDMARKS, 2)
        try:
            walk = find_walk(atlas, a, b, power=power)
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
    return found | {"no way": lost, "mean detour": sum(detours) / len(detours)}


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
    "dictionaries": dictionaries,
    "splicing": splicing,
    "atlas": atlas,
    "walks": walks,
    "large atlas": large_atlas,
    "clip": clip,
    "signs": signs,
    "causes": causes,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, nothing written")
    parser.add_argument("--part", choices=PARTS, nargs="+", help="measure these, and keep the others' figures")
    asked = parser.parse_args()
    for name in asked.part or PARTS:
        found = {name: PARTS[name](asked.quick)}
        kept = json.loads(RESULTS.read_text(encoding="utf-8"))["figures"] if RESULTS.is_file() else {}
        both = {one: figures for one in PARTS if (figures := (kept | found).get(one)) is not None}
        if not asked.quick:  # after each part, so that a run that is stopped keeps what it has
            print(write("pictures", "python benchmarks/pictures.py", both))


if __name__ == "__main__":
    main()
