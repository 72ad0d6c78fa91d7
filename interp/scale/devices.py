"""Devices by name: how much each computes and reads in a second, and how much it holds, by its maker's data sheet."""

from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True)
class DeviceKind:
    """One kind of device, dense bf16, as its maker states it; what is reached of it is `Machines.utilisation`.

    Attributes:
        name: of the device.
        flops: operations per second.
        memory: bytes it holds.
        bandwidth: bytes per second between it and its memory.
        network: bytes per second between it and devices of other machines.
    """

    name: str
    flops: float
    memory: float
    bandwidth: float
    network: float


DEVICES: Final = {
    one.name: one
    for one in (
        DeviceKind("a100", 312e12, 80e9, 2.039e12, 25e9),
        DeviceKind("h100", 989e12, 80e9, 3.35e12, 50e9),
        DeviceKind("h200", 989e12, 141e9, 4.8e12, 50e9),
    )
}
"""SXM cards, eight to a machine, with a network card of 200 or 400 Gb/s for each."""
