"""What it costs to harvest a model's activations and to train a TopK dictionary on them, and what gives out first."""

from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING, Final, final

from hooks.border import Count, Positive, Share
from hooks.errors import InvalidArgument, nearest
from hooks.summary import summarise
from interp.scale.devices import DEVICES, DeviceKind

if TYPE_CHECKING:
    from pandas import DataFrame

BF16: Final = 2
TRAINED: Final = 14
"""Bytes for each parameter that is trained: weights and two of Adam's moments in float32, the gradient in bf16."""
ROOM: Final = 1.25
"""A model's weights are to leave a fifth of the memory for activations."""
HALF: Final = 2
"""The dictionary's state is to fill at most half of the memory; rows, codes and buffers take the rest."""
HOURS_TO_FAILURE: Final = 50_000.0
"""Device-hours between failures: published runs of 16,384 devices were interrupted every three hours or so."""
DISK: Final = 10e9
"""Bytes per second that one machine writes to shared storage."""
STORE_LIMIT: Final = 1e15
"""Bytes of a store; as below, what a job is warned of beyond: hours, the network's share."""
MONTH: Final = 28 * 24.0
NETWORK_SHARE: Final = 0.2


@final
@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        parameters: of the model.
        d_model: its width.
        tokens: how many are harvested and trained on.
        latents: of the dictionary.
        k: latents on per token.
        batch: tokens per step.
        depth: the share of the layers that run: a pass ends after the site.
    """

    parameters: Positive
    d_model: Count
    tokens: Positive
    latents: Count
    k: Count = 64
    batch: Count = 131_072
    depth: Share = 1.0


@final
@dataclass(frozen=True)
class Machines:
    """What it is to run on.

    Attributes:
        kind: the device.
        nodes: machines.
        per_node: devices of each.
        utilisation: the share of a device's operations that a program reaches.
        price: of a device for an hour, in any currency; None where it does not matter.
    """

    kind: DeviceKind
    nodes: Count = 1
    per_node: Count = 8
    utilisation: Share = 0.4
    price: Positive | None = None

    @staticmethod
    def of(
        name: str,
        nodes: Count = 1,
        *,
        per_node: Count = 8,
        utilisation: Share = 0.4,
        price: Positive | None = None,
    ) -> "Machines":
        """Machines of a known device.

        Raises:
            InvalidArgument: a device that is not known.

        Examples:
            >>> Machines.of("h100", 64).devices
            512
        """
        if name not in DEVICES:
            raise InvalidArgument(f"no device is called {name!r}; did you mean {nearest(name, DEVICES)}?")
        return Machines(DEVICES[name], nodes, per_node, utilisation, price)

    @property
    def devices(self) -> int:
        """How many there are in all."""
        return self.nodes * self.per_node

    @property
    def rate(self) -> float:
        """Operations that one device does in a second."""
        return self.kind.flops * self.utilisation


@final
@dataclass(frozen=True)
class Cost:
    """One number of a plan: what it is of, in which unit, and the formula it comes from."""

    item: str
    value: float | int
    unit: str
    formula: str

    def __str__(self) -> str:
        return f"{self.item:<44} {_readable(self.value, self.unit):>16}   {self.formula}"


@final
@dataclass(frozen=True)
class Plan:
    """The costs of a job, and what gives out first. Made by `plan_job`."""

    job: Job
    machines: Machines
    costs: tuple[Cost, ...]
    warnings: tuple[str, ...]

    __repr__ = summarise

    def __getitem__(self, item: str) -> float | int:
        found = {one.item: one.value for one in self.costs}
        if item not in found:
            raise InvalidArgument(f"the plan has no {item!r}; did you mean {nearest(item, found)}?")
        return found[item]

    def __str__(self) -> str:
        return "\n".join([*map(str, self.costs), *(f"gives out: {one}" for one in self.warnings)])

    def to_pandas(self) -> "DataFrame":
        """A row for each cost."""
        from pandas import DataFrame

        return DataFrame([vars(one) for one in self.costs])


def plan_job(job: Job, machines: Machines) -> Plan:
    """Return what a job costs: arithmetic alone, with P parameters, width d, N tokens, F latents, k on, n a step.

    A pass costs 2 P operations a token. A step of a TopK dictionary costs 2 F d + 8 k d a token: its decoder and both
    backward passes are sparse. Its latents are shared out among W devices, which send each other the k largest of n
    tokens (6 bytes each, within a machine first) and the sums of n rows of d. Nothing here was measured on such
    machines.

    Examples:
        >>> found = plan_job(Job(70e9, 8192, 1e12, 10_000_000), Machines.of("h100", 64))
        >>> round(found["forward, device-hours"] / 1e3)
        98
    """
    costs = [*_harvest(job, machines), *_training(job, machines)]
    value = {one.item: one.value for one in costs}
    if machines.price is not None:
        both = value["forward, device-hours"] + value["training, device-hours"]
        costs.append(Cost("price of both", both * machines.price, "", "device-hours × price of one"))
    return Plan(job, machines, tuple(costs), tuple(_warnings(machines, value)))


def _harvest(job: Job, machines: Machines) -> list[Cost]:
    operations = 2 * job.parameters * job.depth * job.tokens
    hours = operations / machines.rate / 3600
    weights = BF16 * job.parameters
    return [
        Cost("forward, operations", operations, "FLOP", "2 P · depth · N"),
        Cost("forward, device-hours", hours, "h", "operations / (FLOP/s · utilisation)"),
        Cost("forward, days", hours / machines.devices / 24, "days", f"device-hours / {machines.devices} devices"),
        Cost("one site, kept", BF16 * job.d_model * job.tokens, "B", "2 d N, in bf16"),
        Cost("weights of the model", weights, "B", "2 P, in bf16"),
        Cost("devices for one copy of the model", _power(ROOM * weights / machines.kind.memory), "", "tensor parallel"),
    ]


def _training(job: Job, machines: Machines) -> list[Cost]:
    kind, parameters = machines.kind, 2 * job.latents * job.d_model
    state = TRAINED * parameters
    W = min(_power(HALF * ceil(state / kind.memory)), machines.devices)
    per_token = 2 * job.latents * job.d_model + 8 * job.k * job.d_model
    steps = job.tokens / job.batch
    compute = job.batch * per_token / (W * machines.rate)
    adam = 2 * state / (W * kind.bandwidth)
    groups = ceil(W / machines.per_node)
    sent = 6 * job.batch * job.k * groups + BF16 * job.batch * job.d_model if groups > 1 else 0.0
    network = sent / kind.network
    step = compute + adam
    return [
        Cost("dictionary, parameters", parameters, "", "2 F d"),
        Cost("dictionary, in bf16", BF16 * parameters, "B", "4 F d"),
        Cost("dictionary in training", state, "B", "28 F d: float32, Adam's moments, bf16 gradient"),
        Cost("devices that hold it", ceil(state / kind.memory), "", "at least"),
        Cost("devices that train it", W, "", "twice as many, a power of two, of those there are"),
        Cost("training, operations", per_token * job.tokens, "FLOP", "(2 F d + 8 k d) N"),
        Cost("training, device-hours", per_token * job.tokens / machines.rate / 3600, "h", "operations / rate"),
        Cost("a step, computing", compute, "s", "n (2 F d + 8 k d) / (W · rate)"),
        Cost("a step, Adam", adam, "s", "2 · state / (W · memory's bandwidth)"),
        Cost("a step, sent by each device", sent, "B", "6 n k · machines + 2 n d, between machines"),
        Cost("a step, network", network, "s", "sent / network, next to the computing"),
        Cost("steps", steps, "", "N / n"),
        Cost("training, days", steps * max(step, network) / 86400, "days", "steps · the longer of the two"),
        Cost("checkpoint, seconds", state / (DISK * max(W // machines.per_node, 1)), "s", "state / 10 GB/s a machine"),
        Cost("hours between failures", HOURS_TO_FAILURE / machines.devices, "h", "50,000 device-hours each"),
    ]


def _warnings(machines: Machines, value: dict[str, float | int]) -> list[str]:
    """What gives out, the tightest first."""
    holders, copy, kept = (
        value["devices that hold it"],
        value["devices for one copy of the model"],
        value["one site, kept"],
    )
    busy = value["a step, network"] / value["a step, computing"]
    said = {
        f"memory: the dictionary needs {holders:.0f} devices in training, and there are {machines.devices}: take fewer "
        f"latents, or {ceil(holders / machines.per_node)} machines": holders > machines.devices,
        f"memory: the model needs {copy:.0f} devices, more than a machine's {machines.per_node}": copy
        > machines.per_node,
        f"storage: {_readable(kept, 'B')} for one site: train on activations as they are computed, and keep a "
        "thousandth": kept > STORE_LIMIT,
        f"network: {busy:.0%} of the computing of a step: send while computing, or in larger steps": busy
        > NETWORK_SHARE,
        f"time: {value['training, days']:.0f} days of training, nearly all of it the encoder's product": 24
        * value["training, days"]
        > MONTH,
    }
    return [text for text, holds in said.items() if holds]


def _power(n: float | int) -> int:
    """The least power of two that is at least n."""
    return 2 ** max(0, ceil(log2(max(n, 1))))


def _readable(value: float | int, unit: str) -> str:
    if unit in ("B", "FLOP"):
        for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
            if value >= size and not (unit == "FLOP" and value >= 1e21):
                return f"{value / size:.3g} {prefix}{unit}"
        return f"{value:.2e} {unit}" if value >= 1e21 else f"{value:.0f} {unit}"
    if unit == "s":
        return f"{value:.3g} s"
    return f"{value:,.1f} {unit}".strip() if value < 100 and value != int(value) else f"{value:,.0f} {unit}".strip()
