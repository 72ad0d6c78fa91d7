"""The proportion of a token among those before, made by hand: a number, not a choice, is read out."""

import torch

from interp.circuits.edges.task import Task
from interp.circuits.known.known_circuit import KnownCircuit, token_difference
from interp.circuits.known.toy_model import ToyModel

VOCAB, N_POS, COUNTED = 8, 8, 3


def proportion_circuit(*, dtype: torch.dtype = torch.float64) -> KnownCircuit:
    """Return a model of two layers with two heads each whose logit 1 is the share of the token 3 so far.

    A neuron of the feed-forward layer 0 says whether a token is token 3; head 1.0 attends to all tokens alike, and so
    takes the mean.

    Args:
        dtype: of the weights.

    Examples:
        ```python
        proportion_circuit().edges  # ("embed->mlp0", "mlp0->v1.0", "h1.0->logits")
        ```
    """
    hand = ToyModel(
        {"token": VOCAB, "is": 1, "share": 1, "noise": 2}, vocab=VOCAB, n_pos=N_POS, layers=2, heads=2, d_mlp=4
    )
    one = torch.eye(VOCAB)
    hand.embed("token", one)
    hand.unembed("share", one[[1]])
    hand.unembed("noise", 1e-4 * one[[1, 2]])
    hand.neurons(0, 0, read={"token": one[:, [COUNTED]]}, bias=torch.zeros(1), write=("is", torch.ones(1, 1)))
    hand.head(1, 0, value=("is", torch.ones(1, 1)), write=("share", torch.ones(1, 1)))
    hand.distract(0, 0, "noise", seed=1)
    hand.distract(0, 1, "noise", seed=2)
    hand.distract(1, 1, "noise", seed=3)
    clean, corrupt = [[3, 5, 3, 6, 3, 7]], [[3, 5, 4, 6, 2, 7]]
    task = Task(torch.tensor(clean), torch.tensor(corrupt), token_difference(1, 0))
    edges = ("embed->mlp0", "mlp0->v1.0", "h1.0->logits")
    return KnownCircuit("proportion before", hand.load("proportion", dtype), task, edges)
