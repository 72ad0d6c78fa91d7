"""A chain A to B to C, made by hand, which a description with fewer parts would shorten to A to C."""

import torch

from interp.circuits.edges.task import Task
from interp.circuits.known.known_circuit import KnownCircuit, token_difference
from interp.circuits.known.toy_model import ToyModel

VOCAB, N_POS, YES = 6, 4, 1


def skip_trio(*, dtype: torch.dtype = torch.float64) -> KnownCircuit:
    """Return a model of three feed-forward layers, each of which reads what the one before wrote, and nothing else.

    C is a function of A, so a cross-layer transcoder can save a latent by writing C from A directly: then its graph
    has an edge that the model does not.

    Args:
        dtype: of the weights.

    Examples:
        ```python
        skip_trio().edges  # ("embed->mlp0", "mlp0->mlp1", "mlp1->mlp2", "mlp2->logits")
        ```
    """
    hand = ToyModel({"token": VOCAB, "a": 1, "b": 1, "c": 1, "noise": 1}, vocab=VOCAB, n_pos=N_POS, layers=3, heads=2)
    one, bit = torch.eye(VOCAB), torch.ones(1, 1)
    hand.embed("token", one)
    hand.unembed("c", one[[YES]])
    hand.unembed("noise", 1e-4 * one[[YES]])
    chain = [("token", one[:, [YES]]), ("a", bit), ("b", bit)]
    for layer, ((read, weights), write) in enumerate(zip(chain, "abc", strict=True)):
        hand.neurons(layer, 0, read={read: weights}, bias=torch.zeros(1), write=(write, bit))
        for head in range(2):
            hand.distract(layer, head, "noise", seed=10 * layer + head)
    task = Task(torch.tensor([[4, 3, YES]]), torch.tensor([[4, 3, 2]]), token_difference(YES, 0))
    edges = ("embed->mlp0", "mlp0->mlp1", "mlp1->mlp2", "mlp2->logits")
    return KnownCircuit("skip-trio", hand.load("skip-trio", dtype), task, edges)
