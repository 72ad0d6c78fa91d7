"""The nets of the world: a convnet, a ViT and a CLIP, untrained by seed or read from a folder."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from hooks.disk import read_foreign, write_folder
from hooks.errors import InvalidArgument, MissingFile, UnknownName, nearest
from hooks.json_file import parse_object
from hooks.tensor_file import read_weights
from interp.postcard.convnet import ConvNet, Plan, convnet_from
from interp.postcard.draw import SIZE
from interp.postcard.scene import LANDMARKS
from interp.postcard.words import END, LONGEST, PAD, START, caption_tokenizer, vocabulary

if TYPE_CHECKING:
    from transformers import CLIPModel, ViTForImageClassification

Which = Literal["convnet", "vit", "clip"]
Net: TypeAlias = "ConvNet | ViTForImageClassification | CLIPModel"
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
READING = {
    "do_resize": True, "size": {"height": SIZE, "width": SIZE}, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": MEAN, "image_std": STD, "resample": 2,
    "image_processor_type": "ViTImageProcessor",
}  # fmt: skip
MODELS = Path(__file__).parent / "models"


class Tower(TypedDict):
    """The shape of a transformer over patches or words."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int


TOWER: Tower = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
SMALL: Tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def clip_of(net: Net) -> "CLIPModel | None":
    """The net as a CLIP, where it reads captions too.

    Examples:
        >>> print(clip_of(new_net("convnet", small=True)))
        None
    """
    is_clip = not isinstance(net, ConvNet) and net.config.model_type == "clip"
    return cast("CLIPModel", net) if is_clip else None


def new_net(which: Which, seed: int = 0, *, small: bool = False) -> Net:
    """An untrained net: what the trained one of this seed began as, to compare it with.

    Args:
        which: "convnet", "vit" or "clip".
        seed: of the weights.
        small: a smaller one, for tests.

    Raises:
        UnknownName: another net.

    Examples:
        >>> sum(p.numel() for p in new_net("convnet").parameters())
        596488
    """
    if which not in get_args(Which):
        raise UnknownName(f"no net is called {which!r}; did you mean {nearest(which, get_args(Which))}?")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"convnet": _new_convnet, "vit": _new_vit, "clip": _new_clip}[which](small).eval()


def _new_convnet(small: bool) -> ConvNet:
    net = ConvNet(Plan(channels=(16, 32, 32, 32, 32), hidden=(128, 128)) if small else Plan())
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return net


def _new_vit(small: bool) -> "ViTForImageClassification":
    from transformers import ViTConfig, ViTForImageClassification

    tower = SMALL if small else TOWER
    names = dict(enumerate(LANDMARKS))
    labels: dict[str, Any] = {"num_labels": len(names), "id2label": names, "label2id": {n: i for i, n in names.items()}}
    config = ViTConfig(
        **tower, image_size=SIZE, patch_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **labels
    )
    return ViTForImageClassification(config)


def _new_clip(small: bool) -> "CLIPModel":
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    tower, ids = SMALL if small else TOWER, vocabulary()
    text = CLIPTextConfig(
        **{**tower, "num_hidden_layers": tower["num_hidden_layers"] - 1}, vocab_size=len(ids), projection_dim=128,
        max_position_embeddings=LONGEST, bos_token_id=ids.index(START), eos_token_id=ids.index(END),
        pad_token_id=ids.index(PAD),
    )  # fmt: skip
    vision = CLIPVisionConfig(**tower, image_size=SIZE, patch_size=8, projection_dim=128)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


def as_input(pixels: UInt8[np.ndarray, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
    """Pictures as the nets read them: from 0 to 1, less the mean, over the standard deviation."""
    scaled = torch.from_numpy(pixels).float() / 255
    return (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def write_net(net: Net, folder: Path) -> None:
    """Write a net in half precision, with what reads its pictures and, for a CLIP, its words."""
    state = {name: tensor.detach().half().contiguous() for name, tensor in net.state_dict().items()}
    with write_folder(folder) as partial:
        if isinstance(net, ConvNet):
            from safetensors.torch import save_file

            said = {"model_type": "convnet", "classes": LANDMARKS}
            save_file(state, partial / "model.safetensors")
            (partial / "config.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        else:
            net.save_pretrained(partial, state_dict=state)
            if clip_of(net) is not None:
                caption_tokenizer().save_pretrained(partial)
        (partial / "preprocessor_config.json").write_text(json.dumps(READING, indent=1) + "\n", encoding="utf-8")


def bundled_nets() -> tuple[str, ...]:
    """The trained nets that come with the package.

    Examples:
        ```python
        bundled_nets()
        ```
    """
    return tuple(sorted(path.name for path in MODELS.iterdir() if path.is_dir())) if MODELS.is_dir() else ()


def net(source: str | Path) -> Net:
    """Read a trained net, in single precision and for reading: a bundled one by its name, or one from a folder.

    Raises:
        MissingFile: no bundled net is called that, and it is no folder with a net.
        DamagedFile: the folder holds weights of another plan.

    Examples:
        ```python
        logits = net("convnet")(as_input(draw([Scene("Big Ben")]).pixels))
        ```
    """
    folder = MODELS / source if source in bundled_nets() else Path(source)
    if not (folder / "config.json").is_file():
        raise MissingFile(
            f"no net is called {str(source)!r}, and it is no folder with one: bundled are {', '.join(bundled_nets())}; "
            "interp postcard train makes another"
        )
    config, weights, cure = folder / "config.json", folder / "model.safetensors", "put it back from a copy"
    kind = parse_object(config.read_bytes(), config, cure).get("model_type")
    if kind == "convnet":
        stored = read_weights(weights, cure)
        return read_foreign(weights, cure, lambda: convnet_from(stored))
    from transformers import CLIPModel, ViTForImageClassification

    kinds = {"vit": ViTForImageClassification, "clip": CLIPModel}
    if kind not in kinds:
        raise InvalidArgument(
            f"{folder} holds a {kind!r}, and a net of pictures is a convnet, a vit or a clip: a language model is "
            "loaded by hooks.load, and a command that takes --texts reads one with these"
        )
    return kinds[kind].from_pretrained(folder, dtype=torch.float32).eval()


def install(folder: Path, name: str) -> Path:
    """Copy a written net into the package, under a name."""
    with write_folder(MODELS / name) as partial:
        shutil.copytree(folder, partial, dirs_exist_ok=True)
    return MODELS / name
