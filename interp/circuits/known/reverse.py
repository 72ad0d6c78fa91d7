"""Reversal, made by hand: after a separator, say the tokens before it from the last to the first."""

import torch
from torch import Tensor

from hooks.border import Finite
from interp.circuits.edges.task import Task
from interp.circuits.known.known_circuit import KnownCircuit, token_difference
from interp.circuits.known.toy_model import ToyModel

VOCAB, N_POS, SEPARATOR = 10, 8, 0


def reverse_circuit(attention: Finite = 20.0, *, dtype: torch.dtype = torch.float64) -> KnownCircuit:
    """Return a causal model of two layers with two heads each that reverses.

    Head 0.0 finds where the separator is; the feed-forward layer 0 has a neuron for each pair of that place n and the
    present one p, and says 2n - p, the place opposite; head 1.0 attends there and copies the token. In the corrupt text
    the separator is elsewhere, and the token there is the same in both texts.

    Args:
        attention: the attention logit of what is attended to, over 0 elsewhere.
        dtype: of the weights.

    Examples:
        ```python
        reverse_circuit().edges  # ("embed->k0.0", "h0.0->mlp0", "mlp0->q1.0", "h1.0->logits")
        ```
    """
    variables = {"token": VOCAB, "place": N_POS, "separator": N_POS, "opposite": N_POS, "answer": VOCAB, "noise": 2}
    hand = ToyModel(variables, vocab=VOCAB, n_pos=N_POS, layers=2, heads=2, d_mlp=N_POS * N_POS)
    one, spot = torch.eye(VOCAB), torch.eye(N_POS)
    hand.embed("token", one)
    hand.place("place")
    hand.unembed("answer", 10 * one)
    hand.unembed("noise", 1e-4 * one[[2, 4]])
    hand.head(
        0,
        0,
        bias=attention * torch.ones(1),
        key=("token", one[:, [SEPARATOR]]),
        value=("place", spot),
        write=("separator", spot),
    )
    n, p = torch.cartesian_prod(torch.arange(N_POS), torch.arange(N_POS)).unbind(1)
    hand.neurons(
        0,
        0,
        read={"separator": spot[:, n], "place": spot[:, p]},
        bias=-torch.ones(len(n)),
        write=("opposite", _opposite(n, p)),
    )
    hand.head(
        1,
        0,
        query=("opposite", attention * spot),
        key=("place", spot),
        value=("token", one),
        write=("answer", one),
    )
    hand.distract(0, 1, "noise", seed=1)
    hand.distract(1, 1, "noise", seed=2)
    clean, corrupt = [[3, 5, 4, 6, SEPARATOR, 7, 8]], [[3, 5, 4, SEPARATOR, 6, 7, 8]]
    task = Task(torch.tensor(clean), torch.tensor(corrupt), token_difference(4, 3))
    edges = ("embed->k0.0", "h0.0->mlp0", "mlp0->q1.0", "h1.0->logits")
    return KnownCircuit(f"reverse, attention {attention:g}", hand.load("reverse", dtype), task, edges)


def _opposite(n: Tensor, p: Tensor) -> Tensor:
    """For each neuron the place 2n - p, one-hot; nothing where there is none."""
    table = torch.zeros(len(n), N_POS)
    place = 2 * n - p
    there = (place >= 0) & (place < N_POS)
    table[there, place[there]] = 1.0
    return table
