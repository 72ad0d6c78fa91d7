"""What a job costs before it runs: bytes, operations, network and hours, by formulas that are printed with them.

1. `devices`: what one device does in a second and holds.
2. `plan`: the costs of harvesting and training of a given size on given machines, and which limits it passes.
"""

from hooks.border import guard
from interp.scale.devices import DEVICES, DeviceKind
from interp.scale.plan import Cost, Job, Machines, Plan, plan_job

__all__ = ["DEVICES", "Cost", "DeviceKind", "Job", "Machines", "Plan", "plan_job"]

guard(globals(), __all__)
