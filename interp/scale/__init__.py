"""What a job costs before it runs: bytes, operations, network and hours, by formulas that are printed with them.

1. `devices`: what one device does in a second and holds.
2. `plan`: the costs of harvesting and training of a given size on given machines, and what gives out first.
3. `traffic`: what processes do exchange, counted, and the formula it is compared with.
"""

from hooks.border import guard
from interp.scale.devices import DEVICES, DeviceKind
from interp.scale.plan import Cost, Job, Machines, Plan, plan_job
from interp.scale.traffic import Traffic, count_traffic, cross_layer_step_bytes, sharded_step_bytes

__all__ = [
    "DEVICES",
    "Cost",
    "DeviceKind",
    "Job",
    "Machines",
    "Plan",
    "Traffic",
    "count_traffic",
    "cross_layer_step_bytes",
    "plan_job",
    "sharded_step_bytes",
]

guard(globals(), __all__)
