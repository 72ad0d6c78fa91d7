"""Previous-token and induction heads, made by hand: the token after an earlier occurrence of the present one."""

import torch

from hooks.border import Finite
from hooks.errors import InvalidArgument
from interp.circuits.edges.task import Task
from interp.circuits.known.known_circuit import KnownCircuit, token_difference
from interp.circuits.known.toy_model import ToyModel

VOCAB, N_POS = 12, 10
NOISE = 1e-4
"""How much of what the distracting heads write the logits read: too little to be a part of the circuit."""


def induction_circuit(
    attention: Finite = 20.0, *, change: str = "key", dtype: torch.dtype = torch.float64
) -> KnownCircuit:
    """Return a model of two layers with three heads each, of which one in each is used.

    Head 0.0 attends to the token before and notes it; head 1.0 attends to where the noted token is the present one, and
    copies what is there. The others, with random weights, write to features of which the logits read a
    ten-thousandth: enough to outrank a slope of 0. With a high
    attention scale its softmaxes are saturated, and a slope in the clean run sees nothing after them.

    Args:
        attention: the attention logit of what is attended to, over 0 elsewhere.
        change: what differs in the corrupt text: "key", where the present token was before, so that another token
            follows it; or "answer", the token that follows it.
        dtype: of the weights.

    Raises:
        InvalidArgument: another change.

    Examples:
        ```python
        induction_circuit(attention=3.0).edges  # ("embed->v0.0", "h0.0->k1.0", "h1.0->logits")
        ```
    """
    width = {"token": VOCAB, "place": N_POS, "before": VOCAB, "answer": VOCAB, "noise": 2}
    hand = ToyModel(width, vocab=VOCAB, n_pos=N_POS, layers=2, heads=3)
    one, spot = torch.eye(VOCAB), torch.eye(N_POS)
    hand.embed("token", one)
    hand.place("place")
    hand.unembed("answer", one)
    hand.unembed("noise", NOISE * torch.tensor([[1.0, -1.0], [0.5, 1.0]]) @ one[[2, 4]])
    present = (torch.arange(N_POS) > 0)[:, None]  # the first token has none before it
    hand.head(
        0,
        0,
        query=("place", attention * torch.roll(spot, -1, 1) * present),
        key=("place", spot),
        value=("token", one),
        write=("before", one),
    )
    hand.head(
        1, 0, query=("token", attention * one), key=("before", one), value=("token", one), write=("answer", 10 * one)
    )
    for layer in range(2):
        for head in (1, 2):
            hand.distract(layer, head, "noise", seed=10 * layer + head)
    return KnownCircuit(
        f"induction, attention {attention:g}, other {change}", hand.load("induction", dtype), *_task(change)
    )


def _task(change: str) -> tuple[Task, tuple[str, ...]]:
    clean = [1, 6, 2, 3, 5, 4, 7, 8, 9, 5]  # 5 was followed by 4, and 6 by 2
    if change == "answer":
        corrupt, edges = [1, 6, 4, 3, 5, 2, 7, 8, 9, 5], ("embed->v1.0", "h1.0->logits")
    elif change == "key":
        corrupt, edges = [1, 5, 2, 3, 6, 4, 7, 8, 9, 5], ("embed->v0.0", "h0.0->k1.0", "h1.0->logits")
    else:
        raise InvalidArgument(f"nothing called '{change}' can differ: give 'key' or 'answer'")
    return Task(torch.tensor([clean]), torch.tensor([corrupt]), token_difference(4, 2)), edges
