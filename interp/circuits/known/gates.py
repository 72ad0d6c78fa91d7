"""Gates, made by hand: two heads that bring a bit each, and a feed-forward layer that joins them by OR or by AND."""

import torch

from interp.circuits.edges.task import Task
from interp.circuits.known.known_circuit import KnownCircuit, token_difference
from interp.circuits.known.toy_model import ToyModel

VOCAB, N_POS, YES, NO = 6, 4, 1, 2
EDGES = ("embed->v0.0", "embed->v0.1", "h0.0->mlp0", "h0.1->mlp0", "mlp0->logits")


def or_gate(*, dtype: torch.dtype = torch.float64) -> KnownCircuit:
    """Return a model that says whether either of two tokens is YES: in the clean text both are, in the other neither.

    Corrupting one of the edges into the gate does nothing, both together everything, so no method that looks at one
    edge at a time can see them: only the edge out of the gate has an effect of its own.

    Args:
        dtype: of the weights.

    Examples:
        ```python
        or_gate().single  # False
        ```
    """
    # max(a, b) of bits is relu(a + b) - relu(a + b - 1)
    return _gate("OR gate", torch.tensor([0.0, -1.0]), torch.tensor([[1.0], [-1.0]]), False, dtype)


def and_gate(*, dtype: torch.dtype = torch.float64) -> KnownCircuit:
    """Return a model that says whether both of two tokens are YES: each edge into the gate has the whole effect.

    Args:
        dtype: of the weights.

    Examples:
        ```python
        and_gate().single  # True
        ```
    """
    return _gate("AND gate", torch.tensor([-1.0]), torch.tensor([[1.0]]), True, dtype)


def _gate(name: str, bias: torch.Tensor, out: torch.Tensor, single: bool, dtype: torch.dtype) -> KnownCircuit:
    variables = {"token": VOCAB, "place": N_POS, "first": 1, "second": 1, "joined": 1, "noise": 2}
    hand = ToyModel(variables, vocab=VOCAB, n_pos=N_POS, layers=1, heads=3)
    one, spot = torch.eye(VOCAB), torch.eye(N_POS)
    hand.embed("token", one)
    hand.place("place")
    hand.unembed("joined", one[[YES]])
    hand.unembed("noise", 1e-4 * one[[YES, NO]])
    for head, variable in enumerate(("first", "second")):
        hand.head(
            0,
            head,
            bias=torch.tensor([100.0]),
            key=("place", spot[:, [head]]),
            value=("token", one[:, [YES]]),
            write=(variable, torch.ones(1, 1)),
        )
    both = torch.ones(1, len(bias))
    hand.neurons(0, 0, read={"first": both, "second": both}, bias=bias, write=("joined", out))
    hand.distract(0, 2, "noise", seed=1)
    task = Task(torch.tensor([[YES, YES, 4]]), torch.tensor([[NO, NO, 4]]), token_difference(YES, NO))
    return KnownCircuit(name, hand.load(name, dtype), task, EDGES, single)
