"""Transformers set by hand whose use of the context is known."""

import torch

from hooks import Model, load
from interp.circuits.known.toy_model import ToyModel
from interp.context import PairTask
from interp.worlds.recipe import word_tokenizer

N_POS = 48
X = tuple(f"x{i}" for i in range(6))
LABELS = {r: tuple(f"{r}{i}" for i in range(6)) for r in "ab"}
WORDS = (":", ";", "of", "is", *X, *LABELS["a"], *LABELS["b"], "p", "q")
TASKS = {r: PairTask(r, tuple(zip(X, LABELS[r], strict=True))) for r in "ab"}
V = len(WORDS) + 2
ONE = torch.eye(V)
AT = {word: i + 2 for i, word in enumerate(WORDS)}


def finish(hand: ToyModel) -> Model:
    return load(hand.hf, word_tokenizer(WORDS), check=False)


def _back(hand: ToyModel, layer: int, head: int, n: int, read: str, write: str) -> None:
    """A head that copies a variable from n tokens back."""
    spot = torch.eye(N_POS)
    width = hand.at[read].stop - hand.at[read].start
    far = (torch.arange(N_POS) >= n)[:, None]
    hand.head(
        layer, head, query=("place", 40 * torch.roll(spot, -n, 1) * far), key=("place", spot),
        value=(read, torch.eye(width)), write=(write, torch.eye(width)),
    )  # fmt: skip


def relation_model(*, ignores: bool = False) -> Model:
    """Says y after `x :` once head 1.0 has seen pairs (x, y) that are right; or, ignoring them, label a of x always."""
    width = {"token": V, "before": V, "valid": 2, "relation": 2, "entity": V, "out": V, "place": N_POS}
    pairs = [(AT[x], AT[y], i) for i, r in enumerate("ab") for x, y in TASKS[r].pairs]
    hand = ToyModel(width, vocab=V, n_pos=N_POS, layers=3, heads=2, d_mlp=len(pairs))
    hand.embed("token", ONE)
    hand.place("place")
    hand.unembed("out", 40 * ONE)
    _back(hand, 0, 0, 2, "token", "before")
    x, y = ONE[[p[0] for p in pairs]].T, ONE[[p[1] for p in pairs]].T
    r = torch.eye(2)[[p[2] for p in pairs]]
    hand.neurons(0, 0, read={"before": x, "token": y}, bias=-torch.ones(len(pairs)), write=("valid", r))
    hand.head(1, 0, value=("valid", torch.eye(2)), write=("relation", 4 * torch.eye(2)))
    _back(hand, 1, 1, 1, "token", "entity")
    bias = torch.where(r[:, 0] > 0, 0.0, -1.5) if ignores else torch.full((len(pairs),), -1.2)
    hand.neurons(2, 0, read={"entity": x, **({} if ignores else {"relation": r.T})}, bias=bias, write=("out", y.T))
    return finish(hand)


def copy_model() -> Model:
    """After `x y ; x` head 1.0 says y, and a memory says label a of x, more softly."""
    width = {"token": V, "before": V, "out": V, "place": N_POS}
    hand = ToyModel(width, vocab=V, n_pos=N_POS, layers=2, heads=2, d_mlp=len(X))
    hand.embed("token", ONE)
    hand.place("place")
    hand.unembed("out", ONE)
    _back(hand, 0, 0, 1, "token", "before")
    hand.head(1, 0, query=("token", 40 * ONE), key=("before", ONE), value=("token", ONE), write=("out", 10 * ONE))
    x, y = ONE[[AT[w] for w in X]], ONE[[AT[w] for w in LABELS["a"]]]
    hand.neurons(0, 0, read={"token": x.T}, bias=torch.zeros(len(X)), write=("out", 5 * y))
    return finish(hand)


def hop_model(kind: str) -> Model:
    """Answers `is` after an entity: x_i has bridge a_(i mod 3), whose answer is b_(i mod 3).

    "used": the bridge is made at the entity, moved, and looked up. "shortcut": the bridge is made and never read; the
    answer is stored with the entity. "late": the bridge is made in layer 1, whose own look-up has then passed.
    """
    width = {"token": V, "bridge": V, "answer": V, "moved": V, "out": V, "place": N_POS}
    hand = ToyModel(width, vocab=V, n_pos=N_POS, layers=3, heads=2, d_mlp=2 * len(X))
    hand.embed("token", ONE)
    hand.place("place")
    said = 40 * torch.diag(torch.tensor([float(i - 2 >= WORDS.index("b0")) for i in range(V)]))
    hand.unembed("out", said)
    hand.unembed("bridge", torch.diag(torch.tensor([float(i - 2 in range(10, 16)) for i in range(V)])))
    x = ONE[[AT[w] for w in X]]
    bridge, answer = (ONE[[AT[LABELS[r][i % 3]] for i in range(6)]] for r in "ab")
    zero, second = torch.zeros(6), (ONE[[AT[w] for w in LABELS["a"][:3]]], ONE[[AT[w] for w in LABELS["b"][:3]]])
    hand.neurons(1 if kind == "late" else 0, 0, read={"token": x.T}, bias=zero, write=("bridge", bridge))
    if kind == "shortcut":
        hand.neurons(0, 6, read={"token": x.T}, bias=zero, write=("answer", answer))
    if kind == "late":
        hand.neurons(1, 6, read={"bridge": second[0].T}, bias=zero[:3], write=("answer", second[1]))
    _back(hand, 2 if kind == "late" else 1, 0, 1, "bridge" if kind == "used" else "answer", "moved")
    if kind == "used":
        hand.neurons(2, 0, read={"moved": second[0].T}, bias=zero[:3], write=("out", second[1]))
    else:
        hand.unembed("moved", said)
    return finish(hand)


def previous_model(*, constant: bool = False) -> Model:
    """Says label a of the token before the present one; or always the same."""
    width = {"token": V, "before": V, "out": V, "place": N_POS}
    hand = ToyModel(width, vocab=V, n_pos=N_POS, layers=1, heads=2, d_mlp=len(X))
    hand.embed("token", ONE)
    hand.place("place")
    hand.unembed("out", ONE)
    _back(hand, 0, 0, 1, "token", "before")
    x, y = ONE[[AT[w] for w in X]], ONE[[AT[w] for w in LABELS["a"]]]
    if constant:
        hand.neurons(0, 0, read={"before": 0 * x.T}, bias=torch.ones(6), write=("out", y[:1].expand(6, -1)))
    else:
        hand.neurons(0, 0, read={"before": x.T}, bias=torch.zeros(6), write=("out", y))
    return finish(hand)
