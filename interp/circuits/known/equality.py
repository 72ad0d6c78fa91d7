"""Two pairs, equal or not, made by hand: the program (a = b) = (c = d), for methods that look for its variables."""

import torch
from jaxtyping import Int
from torch import Tensor

from hooks.position import last
from interp.circuits.interchange import CausalModel, Implementation
from interp.circuits.interchange.causal_model import Values
from interp.circuits.known.toy_model import ToyModel

VALUES, VOCAB, END, NO, YES = 3, 6, 3, 4, 5


def equality_program() -> CausalModel:
    """Return the program: `first` is a = b, `second` is c = d, `same` is whether these agree.

    Examples:
        >>> equality_program().variables
        ('first', 'second', 'same')
    """
    return CausalModel(
        {name: VALUES for name in "abcd"},
        {"first": ("a", "b"), "second": ("c", "d"), "same": ("first", "second")},
        dict.fromkeys(("first", "second", "same"), lambda x, y: (x == y).long()),
    )


def equality(*, dtype: torch.dtype = torch.float64) -> Implementation:
    """Return a model that computes the program.

    Four heads bring a, b, c and d to the last token; the feed-forward layer 0 has a neuron for each value that a pair
    can share, and writes `first` and `second` to a feature each, features 12 and 13 of the stream; the feed-forward
    layer 1 compares those, and says YES or NO, less surely where a feature is anything but 0 or 1.

    Args:
        dtype: of the weights.

    Examples:
        ```python
        interchange_table(equality(), {"first": Place(resid_post[0], last)})
        ```
    """
    variables = {name: VALUES for name in "abcd"} | {"first": 1, "second": 1, "same": 1, "token": VOCAB, "place": 5}
    hand = ToyModel(variables, vocab=VOCAB, n_pos=5, layers=2, heads=4, d_mlp=2 * VALUES)
    one, spot, value = torch.eye(VOCAB), torch.eye(5), torch.eye(VALUES)
    hand.embed("token", one)
    hand.place("place")
    hand.unembed("same", (one[[YES]] - one[[NO]]))
    for head, name in enumerate("abcd"):
        key = ("place", spot[:, [head]])
        bias = torch.tensor([100.0])
        hand.head(0, head, bias=bias, key=key, value=("token", one[:, :VALUES]), write=(name, value))
    for i, (x, y, write) in enumerate((("a", "b", "first"), ("c", "d", "second"))):
        both = {x: value, y: value}
        hand.neurons(0, i * VALUES, read=both, bias=-torch.ones(VALUES), write=(write, torch.ones(VALUES, 1)))
    # of s = first + second: |s - 1| - 1/2, whose sign is the answer, and falling beyond 0 and 2
    s = torch.tensor([[1.0, -1.0, 1.0, -1.0, 0.0]])
    hand.neurons(
        1,
        0,
        read={"first": s, "second": s},
        bias=torch.tensor([-1.0, 1.0, -2.0, 0.0, 0.5]),
        write=("same", torch.tensor([[1.0], [1.0], [-2.0], [-2.0], [-1.0]])),
    )

    def ids(inputs: Values) -> Int[Tensor, "batch pos"]:
        texts = torch.stack([inputs[name] for name in "abcd"], 1)
        return torch.cat([texts, torch.full((len(texts), 1), END)], 1)

    return Implementation(hand.load("equality", dtype), equality_program(), ids, torch.tensor([NO, YES]), last)
