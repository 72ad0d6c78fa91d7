"""An untrained model of the same shape: what a probe can read from it was not put there by training."""

from copy import deepcopy

import torch

from hooks import Model, load
from hooks.border import Natural


def make_untrained_model(model: Model, seed: Natural = 0) -> Model:
    """A model of the same configuration and tokenizer with the random weights its class starts from.

    Cost:
        A second model in memory.

    Examples:
        ```python
        gather(make_untrained_model(model), texts, sites, [last])
        ```
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(model.hf)(deepcopy(model.hf.config))
    return load(fresh.to(device=model.device, dtype=model.dtype).eval(), model.tokenizer)
