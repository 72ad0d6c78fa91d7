"""The nets of the world as models whose sites are captured and changed."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hooks import Network, Processor, Towers, load
from interp.postcard.convnet import ConvNet
from interp.postcard.draw import SIZE
from interp.postcard.nets import MEAN, STD, net
from interp.postcard.words import caption_tokenizer

READS = Processor((SIZE, SIZE), mean=MEAN, std=STD)


def load_net(source: str | Path | nn.Module, device: str | torch.device | None = None) -> Network | Towers:
    """A net of the world, loaded: a bundled one by its name, one from a folder, or one in memory.

    Args:
        source: which.
        device: where to put the weights; by default where they are.

    Raises:
        MissingFile: no bundled net is called that, and it is no folder with a net.

    Examples:
        >>> from interp.postcard import new_net
        >>> load_net(new_net("convnet", small=True)).name
        'ConvNet'
    """
    module = net(source) if isinstance(source, str | Path) else source
    if isinstance(module, ConvNet):
        return load(module, inputs=torch.zeros(1, 3, SIZE, SIZE), processor=READS, device=device)
    seen: Any = module
    return load(seen, caption_tokenizer(), processor=READS, device=device)
