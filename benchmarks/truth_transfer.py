"""Does a direction of truth, learnt from claims of one relation, tell true from false claims of another?"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from hooks import Model, capture
from hooks.position import last
from hooks.site import Site, resid_post
from hooks.statistics import percentile_ends
from interp import landmark
from interp.landmark.grammar import training_phrasings
from probes import Logistic, auroc, does_it_matter, logit_difference, make_untrained_model

LEAST = 40  # facts of a relation
ABOVE = "97.5 % of shuffled labels"
Make = Callable[[], Any]


@dataclass(frozen=True)
class Claims:
    """Claims of one relation, a true and a false one of each subject: their streams, and which subjects are unseen."""

    kind: str
    texts: list[str]
    true: Tensor
    subject: Tensor
    unseen: Tensor
    x: dict[Site, Tensor]


def claims(model: Model, seed: int = 0) -> dict[str, Claims]:
    """The claims of every relation with enough facts, read at their last token at every layer."""
    rng = Random(seed)
    sites = [resid_post[layer] for layer in range(model.n_layers)]
    found = {}
    for name in dict.fromkeys(t.relation.name for t in landmark.triples()):
        facts = [t for t in landmark.triples() if t.relation.name == name]
        if len(facts) < LEAST:
            continue
        rows = []
        for i, fact in enumerate(facts):
            template = rng.choice(training_phrasings(name)).template
            wrong = rng.choice([t.object for t in facts if t.object != fact.object])
            for said in (fact.object, wrong):
                text = f"Claim: {template.format(fact.subject.text)} {said}. Verdict:"
                rows.append((text, said == fact.object, i, sum(fact.subject.name.encode()) % 2 == 1))
        texts, true, subject, unseen = (list(column) for column in zip(*rows, strict=True))
        acts = capture(model, texts, sites, batch_size=64)
        x = {site: acts.flat(site, last) for site in sites}
        kind = facts[0].subject.kind
        found[name] = Claims(kind, texts, torch.tensor(true), torch.tensor(subject), torch.tensor(unseen), x)
    return found


def transfer(data: dict[str, Claims], make: Make, shuffle: int | None = None) -> tuple[Tensor, list[str]]:
    """AUROC on unseen subjects of each relation (columns) by a probe of the others' or its own seen subjects (rows).

    The layer is chosen for each row on the seen subjects of its own relation. Labels are exchanged within subjects
    where `shuffle` is a seed.
    """
    rows, layers = [], []
    for i, source in enumerate(data.values()):
        y = source.true if shuffle is None else source.true ^ _flips(source, 1000 * shuffle + i)
        seen = ~source.unseen
        site = max(source.x, key=lambda site: _held_out(make, source.x[site][seen], y[seen], source.subject[seen]))
        probe = make().fit(source.x[site][seen], y[seen])
        rows.append([_auroc(probe, target, site) for target in data.values()])
        layers.append(str(site))
    return torch.tensor(rows), layers


def from_all_others(data: dict[str, Claims], make: Make, site: Site) -> Tensor:
    """AUROC on unseen subjects of each relation by one probe of the seen subjects of all other relations."""
    found = []
    for name, target in data.items():
        rest = [c for other, c in data.items() if other != name]
        found.append(_auroc(make().fit(*_seen(rest, site)), target, site))
    return torch.tensor(found)


def summary(matrix: Tensor, kinds: list[str], seed: int = 0) -> dict[str, Any]:
    """Means on the diagonal, off it, and off it by whether the subjects are of one kind; relations drawn again."""
    n = len(matrix)
    off = ~torch.eye(n, dtype=torch.bool)
    alike = torch.tensor([[a == b for b in kinds] for a in kinds])
    masks = {"own": ~off, "others": off, "others, same kind of subject": off & alike, "others, another kind": ~alike}
    g = torch.Generator().manual_seed(seed)
    draws = [torch.randint(n, (n,), generator=g) for _ in range(1000)]
    message = {}
    for name, mask in masks.items():
        means = [matrix[d][:, d][mask[d][:, d] & (off[d][:, d] | (name == "own"))] for d in draws]
        ends = percentile_ends(torch.tensor([float(m.mean()) for m in means if len(m)]))
        message[name] = [round(v, 3) for v in (float(matrix[mask].mean()), *ends.tolist())]
    return message


def truth(model: Model, probes: dict[str, Make], seed: int = 0) -> dict[str, Any]:
    """The transfer of every probe next to shuffled labels, an untrained model, and the model's own verdict."""
    data, random = claims(model, seed), claims(make_untrained_model(model, seed), seed)
    kinds = [c.kind for c in data.values()]
    verdict = logit_difference(" true", " false")
    own = [auroc(verdict(model, c.texts), c.true) for c in data.values()]
    found: dict[str, Any] = {
        "relations": {name: len(c.texts) for name, c in data.items()},
        "verdict": {name: round(float(a), 3) for name, a in zip(data, own, strict=True)},
    }
    for name, make in probes.items():
        matrix, layers = transfer(data, make)
        null, _ = transfer(data, make, shuffle=seed)
        compared, _ = transfer(random, make)
        high = float(null.flatten().quantile(0.975))
        reached, off = matrix > high, ~torch.eye(len(matrix), dtype=torch.bool)
        found[name] = {
            **summary(matrix, kinds, seed),
            "shuffled": summary(null, kinds, seed),
            "untrained": summary(compared, kinds, seed),
            f"pairs above {ABOVE}": [int((reached & off).sum()), int(off.sum())],
            "layers": layers,
            "matrix": [[round(v, 3) for v in row] for row in matrix.tolist()],
        }
    site = resid_post[model.n_layers - 2]
    others = from_all_others(data, lambda: Logistic(C=0.01), site)
    found["from all other relations"] = {name: round(v, 3) for name, v in zip(data, others.tolist(), strict=True)}
    found["used"] = used(model, data, site)
    return found


def used(model: Model, data: dict[str, Claims], site: Site) -> dict[str, Any]:
    """What moving along the direction of all relations together does to the model's verdict on unseen subjects."""
    direction = Logistic(C=0.01).fit(*_seen(list(data.values()), site)).direction(site, model.fingerprint)
    texts = [text for c in data.values() for text in [t for t, new in zip(c.texts, c.unseen, strict=True) if new][:2]]
    found = does_it_matter(direction, model, texts, logit_difference(" true", " false"), at=last)
    message = {
        name: {"size": e.size, "change": e.change, "random": float(e.random.mean()), "p": e.p_value}
        for name, e in (("erased", found.erased), ("added", found.added), ("reflected", found.reflected))
    }
    return {"used": found.used, "texts": len(texts), **message}


def _auroc(probe: Any, target: Claims, site: Site) -> float:
    return float(auroc(probe.decision_function(target.x[site][target.unseen]), target.true[target.unseen]))


def _seen(claims: list[Claims], site: Site) -> tuple[Tensor, Tensor]:
    """The rows and labels of the seen subjects of several relations."""
    return torch.cat([c.x[site][~c.unseen] for c in claims]), torch.cat([c.true[~c.unseen] for c in claims])


def _flips(claims: Claims, seed: int) -> Tensor:
    """Whether each subject's true and false claim trade places."""
    coin = torch.rand(int(claims.subject.max()) + 1, generator=torch.Generator().manual_seed(seed)) < 0.5
    return coin[claims.subject]


def _held_out(make: Make, x: Tensor, y: Tensor, subject: Tensor, k: int = 4) -> float:
    """AUROC by cross-validation over subjects."""
    score = torch.zeros(len(y))
    for fold in range(k):
        test = subject % k == fold
        score[test] = make().fit(x[~test], y[~test]).decision_function(x[test])
    return float(auroc(score, y))
