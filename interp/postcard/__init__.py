"""The second bundled world: postcards of the encyclopaedia's landmarks, drawn from scenes that are data.

1. A scene says what is shown; one factor can be changed and all else kept (`scene.py`).
2. It is drawn, with a mask for each object and part (`shapes.py`, `primitives.py`, `paint.py`, `raster.py`, `draw.py`).
3. It is described in four languages (`captions.py`), and belongs to a split by its seed (`splits.py`).
4. A convnet, a ViT and a CLIP learn it (`nets.py`, `train.py`) and are asked what they see (`answers.py`).
"""

from hooks.border import guard
from interp.postcard.answers import image_vectors, landmark_logits, text_vectors
from interp.postcard.captions import Caption, caption, captions, is_true_of
from interp.postcard.convnet import ConvNet, Plan, convnet_from, plan_of
from interp.postcard.draw import OBJECTS, Pictures, draw
from interp.postcard.load import load_net
from interp.postcard.nets import as_input, bundled_nets, net, new_net
from interp.postcard.scene import FACTORS, LANDMARKS, THINGS, Scene
from interp.postcard.shapes import PARTS
from interp.postcard.splits import digest, held_out, scenes, unseen_combinations

__all__ = [
    "FACTORS",
    "LANDMARKS",
    "OBJECTS",
    "PARTS",
    "THINGS",
    "Caption",
    "ConvNet",
    "Pictures",
    "Plan",
    "Scene",
    "as_input",
    "bundled_nets",
    "caption",
    "captions",
    "convnet_from",
    "digest",
    "draw",
    "held_out",
    "image_vectors",
    "is_true_of",
    "landmark_logits",
    "load_net",
    "net",
    "new_net",
    "plan_of",
    "scenes",
    "text_vectors",
    "unseen_combinations",
]

guard(globals(), __all__)
