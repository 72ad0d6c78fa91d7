"""A model of two towers, one for pictures and one for texts, that lead into one space, such as CLIP."""

from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hooks.forward import forward
from hooks.huggingface import HFModel
from hooks.images import Pictures
from hooks.model import Model, Text
from hooks.network import Network


@final
@dataclass(frozen=True, eq=False)
class Towers:
    """Two towers and the space that they share. Made by `load`.

    Each tower is a model by itself, whose sites have their usual names, and has the weights of the whole: what is
    changed in one by `intervene` changes the vectors that are given here.

    Attributes:
        hf: the whole model.
        image: the tower that reads pictures; `embedding` is its vector before it is made a unit.
        text: the tower that reads texts.

    Examples:
        ```python
        clip = load("openai/clip-vit-base-patch32")
        capture(clip.image, "bridge.png", resid_post[6])
        clip.image_vectors("bridge.png") @ clip.text_vectors(["a bridge", "a tower"]).T
        ```
    """

    hf: HFModel
    image: Network
    text: Model

    def image_vectors(self, pictures: Pictures) -> Float[Tensor, "batch d_model"]:
        """Return where pictures are in the shared space: unit vectors.

        Cost: one forward pass of the tower.

        Examples:
            ```python
            clip.image_vectors(["bridge.png", "tower.png"])
            ```
        """
        return F.normalize(self.image.run(pictures).image_embeds, dim=-1)

    def text_vectors(self, texts: Text) -> Float[Tensor, "batch d_model"]:
        """Return where texts are in the shared space: unit vectors.

        Cost: one forward pass of the tower.

        Examples:
            ```python
            clip.text_vectors(["a bridge", "a tower"])
            ```
        """
        tokens = self.text.tokens(texts)
        with self.text.running.reading(tokens):
            return F.normalize(forward(self.text.hf, tokens).text_embeds, dim=-1)


def has_two_towers(hf: HFModel) -> bool:
    """Return whether a model is CLIP or one built like it.

    Examples:
        ```python
        has_two_towers(CLIPModel(config))
        ```
    """
    parts = ("vision_model", "text_model", "visual_projection", "text_projection")
    return all(isinstance(getattr(hf, part, None), nn.Module) for part in parts)


def towers_of(hf: HFModel) -> tuple[HFModel, HFModel]:
    """Return the towers for pictures and for texts as models of their own, which share the weights of the whole.

    Examples:
        ```python
        image, text = towers_of(CLIPModel(config))
        ```
    """
    import transformers

    kinds: Any = (transformers.CLIPVisionModelWithProjection, transformers.CLIPTextModelWithProjection)
    with torch.device("meta"):
        image, text = kinds[0](hf.config.vision_config), kinds[1](hf.config.text_config)
    image.vision_model, image.visual_projection = hf.vision_model, hf.visual_projection
    text.text_model, text.text_projection = hf.text_model, hf.text_projection
    return image, text
