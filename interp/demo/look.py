"""Look for the same landmark in pictures: one latent of a dictionary over a CLIP's pictures and captions."""

from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Images, Towers
from interp import landmark
from interp.clip import SharedLatent, centre_rows, find_shared_latent, score_rows
from interp.demo.settings import Settings
from interp.postcard import captions, draw, load_net, scenes
from interp.sae import TopK, tensor_source, train
from probes import Detection

EXTRA = 1_000_000  # scenes of the landmark itself are drawn from this number of the split on
AT_ONCE = 100
SHOWN = 8


@dataclass(frozen=True, eq=False)
class PictureDiscovery:
    """The latent of the landmark in pictures and captions, and the baselines, all scored on the half not chosen on.

    Attributes:
        shared: the latent.
        pixels: the difference of means of the pictures' pixels.
        words: likewise of the words that captions have.
        n: pictures, half of which choose.
        best: pictures of the other half on which the latent is greatest.
        labels: what they show.
        values: the latent's.
    """

    shared: SharedLatent
    pixels: Detection
    words: Detection
    n: int
    best: Images
    labels: tuple[str, ...]
    values: tuple[float, ...]


def look(settings: Settings, *, progress: bool = True) -> PictureDiscovery:
    """Learn a dictionary over the bundled CLIP's vectors of pictures and captions, and find the landmark in it.

    The pictures are of the test split, which the CLIP never saw; one half trains the dictionary and chooses, and the
    other is scored.

    Cost: a pass of both towers over the pictures and captions, and some hundred small steps.

    Examples:
        ```python
        look(Settings()).shared
        ```
    """
    clip = load_net("clip")
    assert isinstance(clip, Towers)
    subject = landmark.entity(settings.landmark).name
    shown = list(scenes("test", settings.pictures))
    own = scenes("test", max(1, settings.pictures // 10), EXTRA)
    shown += [scene.but(landmark=subject, sign=None) for scene in own]
    Random(settings.seed).shuffle(shown)
    said, pictures = captions(shown, settings.seed), draw(shown).images()
    is_shown = torch.tensor([scene.landmark == subject for scene in shown])
    is_named = is_shown & torch.tensor(["landmark" in caption.factors for caption in said])
    half, texts = len(shown) // 2, [caption.text for caption in said]
    with torch.no_grad():
        seen = torch.cat([clip.image_vectors(Images(x)) for x in pictures.pixels.split(AT_ONCE)])
        read = torch.cat([clip.text_vectors(texts[i : i + AT_ONCE]) for i in range(0, len(texts), AT_ONCE)])
    x, t = centre_rows(seen, seen[:half]), centre_rows(read, read[:half])
    sae = TopK(x.shape[1], 4 * x.shape[1], k=8, seed=settings.seed)
    rows = torch.cat([x[:half], t[:half]])
    train(sae, tensor_source(rows), tokens=150_000, batch_size=512, lr=2e-3, dead_after=20_000, progress=progress)
    with torch.no_grad():
        latents = sae.encode(x)
        groups = (list(range(len(shown))), texts)  # a caption of many pictures is not scored where it chose
        shared = find_shared_latent(latents, is_shown, sae.encode(t), is_named, groups=groups, seed=settings.seed)
    order = latents[half:, shared.latent].argsort(descending=True)[:SHOWN] + half
    return PictureDiscovery(
        shared,
        pixels=_baseline(pictures.pixels.flatten(1), is_shown),
        words=_baseline(_bags(texts), is_named, texts),
        n=len(shown),
        best=Images(pictures.pixels[order]),
        labels=tuple(shown[i].landmark for i in order.tolist()),
        values=tuple(latents[order, shared.latent].tolist()),
    )


def _baseline(rows: Float[Tensor, "n _"], y: Bool[Tensor, "n"], groups: list[str] | None = None) -> Detection:
    """Projections on the difference of the means of the first half, scored on the other."""
    half = len(y) // 2
    means = [rows[:half][mask].mean(0) for mask in (y[:half], ~y[:half])]
    return score_rows(rows @ F.normalize(means[0] - means[1], dim=0), y, groups=groups)


def _bags(texts: list[str]) -> Float[Tensor, "n _"]:
    """Which words each text has."""
    split = [text.lower().split() for text in texts]
    number = {word: i for i, word in enumerate(sorted({word for words in split for word in words}))}
    bags = torch.zeros(len(texts), len(number))
    for row, words in zip(bags, split, strict=True):
        row[[number[word] for word in words]] = 1.0
    return bags
