"""A convnet of AlexNet's plan, in plain torch: five convolutions, three pools, three layers that see everything.

The names of the weights are those of torchvision's AlexNet, whose file it reads: `features.0, 3, 6, 8, 10` and
`classifier.1, 4, 6`. That is the 2014 variant (Krizhevsky 2014, arXiv:1404.5997), not the two-tower net of 2012, which
has other widths and a response normalisation. All widths and kernels are read from the tensors' shapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from hooks.errors import DamagedFile, WrongModel
from hooks.summary import summarise

CONVOLUTIONS = (0, 3, 6, 8, 10)
POOLED = (0, 3, 10)
LINEAR = (1, 4, 6)
FIRST = {11: (4, 2, 0), 7: (2, 3, 1)}  # kernel of the first convolution: its stride and padding, and that of all pools


@dataclass(frozen=True)
class Plan:
    """The sizes of a convnet.

    Attributes:
        channels: of the five convolutions.
        kernels: of the five convolutions, in pixels of their input.
        hidden: of the two hidden layers.
        classes: how many it separates.
        side: rows and columns of the last map, to which it is averaged.
    """

    channels: tuple[int, ...] = (32, 64, 96, 96, 64)
    kernels: tuple[int, ...] = (7, 5, 3, 3, 3)
    hidden: tuple[int, int] = (256, 256)
    classes: int = 72
    side: int = 4

    __repr__ = summarise


class ConvNet(nn.Module):
    """AlexNet's plan; no ReLU is in place, so that what is captured before one stays as it was.

    Examples:
        >>> import torch
        >>> ConvNet(Plan()).eval()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 72])
    """

    def __init__(self, plan: Plan, dropout: float = 0.0) -> None:
        super().__init__()
        self.plan = plan
        layers: list[nn.Module] = []
        stride, edge, pool_edge = FIRST.get(plan.kernels[0], (1, plan.kernels[0] // 2, 0))
        for i, (before, after, kernel) in enumerate(
            zip((3, *plan.channels), plan.channels, plan.kernels, strict=False)
        ):
            step, padding = (stride, edge) if i == 0 else (1, kernel // 2)
            layers += [nn.Conv2d(before, after, kernel, step, padding), nn.ReLU()]
            if CONVOLUTIONS[i] in POOLED:
                layers.append(nn.MaxPool2d(3, 2, pool_edge))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(plan.side)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(plan.channels[-1] * plan.side**2, plan.hidden[0]), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(plan.hidden[0], plan.hidden[1]), nn.ReLU(),
            nn.Linear(plan.hidden[1], plan.classes),
        )  # fmt: skip

    def forward(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch class"]:
        """The logits of normalised pictures."""
        return self.classifier(self.avgpool(self.features(pixels)).flatten(1))


def plan_of(weights: Mapping[str, Float[Tensor, "..."]]) -> Plan:
    """The sizes that the tensors of a state dict have.

    Raises:
        DamagedFile: tensors are missing, or have shapes that do not follow one another.

    Examples:
        >>> plan_of(ConvNet(Plan()).state_dict()) == Plan()
        True
    """
    names = [f"features.{i}.weight" for i in CONVOLUTIONS] + [f"classifier.{i}.weight" for i in LINEAR]
    if missing := [name for name in names if name not in weights]:
        raise DamagedFile(
            f"these are not the weights of AlexNet's plan, {missing} are missing: give its whole state dict"
        )
    convolutions, linear = ([weights[n] for n in part] for part in (names[:5], names[5:]))
    channels = tuple(len(w) for w in convolutions)
    side = round((linear[0].shape[1] / channels[-1]) ** 0.5)
    if side**2 * channels[-1] != linear[0].shape[1]:
        raise DamagedFile(
            f"classifier.1 reads {linear[0].shape[1]} numbers, which is no square of places for the {channels[-1]} "
            "channels of features.10: give the state dict of one net"
        )
    kernels = tuple(w.shape[-1] for w in convolutions)
    return Plan(channels, kernels, (len(linear[0]), len(linear[1])), len(linear[2]), side)


def convnet_from(weights: Mapping[str, Float[Tensor, "..."]]) -> ConvNet:
    """A convnet with these weights, in single precision and for reading: torchvision's AlexNet, or one of ours.

    Raises:
        DamagedFile: tensors are missing, or have shapes that do not follow one another.
        WrongModel: there are weights that the plan has no place for.

    Examples:
        >>> net = convnet_from(ConvNet(Plan(classes=3)).state_dict())
        >>> net.training, net.plan.classes
        (False, 3)
    """
    net = ConvNet(plan_of(weights))
    if odd := sorted(set(weights) - set(net.state_dict())):
        raise WrongModel(f"AlexNet's plan has no place for {odd[:3]}: give the state dict of such a net alone")
    try:
        net.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise DamagedFile(
            f"the tensors' shapes do not follow one another ({str(error).splitlines()[-1].strip()})"
        ) from error
    return net.eval()
