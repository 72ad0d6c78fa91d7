"""What a net answers: the landmark of each picture, of a CLIP without ever having been trained to name it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from hooks.errors import InvalidArgument
from interp.landmark.entities import entity
from interp.postcard.convnet import ConvNet
from interp.postcard.nets import Net, as_input, clip_of
from interp.postcard.scene import LANDMARKS
from interp.postcard.words import LONGEST, caption_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPModel

NAMING = ("{}", "a picture of {}", "a postcard of {}", "here is {}")
BATCH = 250


def device_of(net: Net) -> torch.device:
    """Where a net computes.

    Examples:
        >>> from interp.postcard import new_net
        >>> device_of(new_net("convnet", small=True))
        device(type='cpu')
    """
    return next(iter(net.parameters())).device


def image_vectors(
    clip: "CLIPModel", pixels: Float[Tensor, "batch channel height width"]
) -> Float[Tensor, "batch d_model"]:
    """Where a CLIP puts pictures in its shared space: unit vectors."""
    pooled = clip.vision_model(pixel_values=pixels).pooler_output
    return F.normalize(clip.visual_projection(pooled), dim=-1)


def text_vectors(clip: "CLIPModel", texts: Sequence[str]) -> Float[Tensor, "batch d_model"]:
    """Where a CLIP puts texts in its shared space: unit vectors.

    Raises:
        InvalidArgument: no texts, or a text of more words than the net has places.

    Examples:
        >>> from interp.postcard import new_net
        >>> text_vectors(new_net("clip"), ["a red bridge", "un puente"]).shape
        torch.Size([2, 128])
    """
    if not texts:
        raise InvalidArgument("got no texts: pass a non-empty list of texts")
    read = caption_tokenizer()(list(texts), padding=True, return_tensors="pt").to(clip.device)
    if (longest := read["input_ids"].shape[1]) > LONGEST:
        raise InvalidArgument(f"a text has {longest - 2} words and marks, and this net reads {LONGEST - 2}: shorten it")
    pooled = clip.text_model(input_ids=read["input_ids"], attention_mask=read["attention_mask"]).pooler_output
    return F.normalize(clip.text_projection(pooled), dim=-1)


def naming_vectors(clip: "CLIPModel") -> Float[Tensor, "class d_model"]:
    """For each landmark the unit mean of the unit vectors of four sentences that name it."""
    names = [entity(name).text for name in LANDMARKS]
    of_each = torch.stack([text_vectors(clip, [template.format(name) for name in names]) for template in NAMING])
    return F.normalize(of_each.mean(0), dim=-1)


def scale_of(clip: "CLIPModel") -> Float[Tensor, ""]:
    """The logarithm of what a CLIP multiplies cosines by."""
    log_scale = clip.logit_scale
    assert isinstance(log_scale, Tensor)
    return log_scale


@torch.no_grad()
def landmark_logits(net: Net, pixels: UInt8[np.ndarray, "batch channel height width"]) -> Float[Tensor, "batch class"]:
    """The score of each landmark for each picture, in batches.

    Examples:
        >>> from interp.postcard import Scene, draw, new_net
        >>> landmark_logits(new_net("convnet"), draw([Scene("Big Ben")]).pixels).shape
        torch.Size([1, 72])
    """
    clip = clip_of(net)
    named = None if clip is None else naming_vectors(clip)
    found = []
    for part in (as_input(pixels[i : i + BATCH]).to(device_of(net)) for i in range(0, len(pixels), BATCH)):
        if clip is not None and named is not None:
            found.append(scale_of(clip).exp() * image_vectors(clip, part) @ named.T)
        else:
            answer = net(part)
            found.append(answer if isinstance(net, ConvNet) else answer.logits)
    return torch.cat(found).cpu()


def is_right(
    net: Net, pixels: UInt8[np.ndarray, "batch channel height width"], names: Sequence[str]
) -> Bool[Tensor, "batch"]:
    """Whether a net's first answer is the landmark of the picture."""
    truth = torch.tensor([LANDMARKS.index(name) for name in names])
    return landmark_logits(net, pixels).argmax(-1) == truth
