"""An untrained model of the same shape: what a probe can read from it was not put there by training."""

from copy import deepcopy
from typing import Any, overload

import torch
from torch import nn

from hooks import Model, Network, load
from hooks.border import Natural
from hooks.network import AnyModel


@overload
def make_untrained_model(model: Model, seed: Natural = 0) -> Model: ...
@overload
def make_untrained_model(model: Network, seed: Natural = 0) -> Network: ...
def make_untrained_model(model: AnyModel, seed: Natural = 0) -> AnyModel:
    """A model of the same configuration and tokenizer with the random weights its class starts from.

    Of a module without a configuration each part begins again as its own class does, and weights of no such part are
    put in another order.

    Cost:
        A second model in memory.

    Examples:
        ```python
        gather(make_untrained_model(model), texts, sites, [last])
        ```
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _begun_again(model.hf)
    if isinstance(model, Network):
        fresh = fresh.to(next(model.hf.parameters())).eval()
        return Network(fresh, model.example, model.places, model.processor)
    ready: Any = fresh.to(device=model.device, dtype=model.dtype).eval()
    return load(ready, model.tokenizer)


def _begun_again(module: nn.Module) -> nn.Module:
    """The same module with the weights that its parts begin with."""
    config = getattr(module, "config", None)
    if config is not None:
        return type(module)(deepcopy(config))
    fresh = deepcopy(module)
    begun = set[int]()
    for part in fresh.modules():
        begin: Any = getattr(part, "reset_parameters", None)
        if begin is not None:
            begin()
            begun |= {id(weight) for weight in part.parameters()}
    with torch.no_grad():
        for weight in fresh.parameters():
            if id(weight) not in begun:
                weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
    return fresh
