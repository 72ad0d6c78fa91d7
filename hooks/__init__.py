"""Capture and intervene: activations out of a transformer, and changes back in.

What happens to a text that is captured:

1. `load`: a name, a folder or a module becomes a `Model` (`model`) or a `Network` (`network`), whose sites are found by
   watching one pass (`tracing`) and held by the laws of the contract (`contract`).
2. `encoding`: the text becomes `tokens`; a picture is read by the `processor` into `images`.
3. `site`, `position`: which places and tokens are asked for, checked before anything runs.
4. `taps`: for each site, where its tensor sits in the model, and how it is taken out and put back.
5. `capture` and `intervene` attach their hooks for the passes of one thread (`temporary`, `running`), run the model
   (`forward`) as far as the last site, and take all back.
6. `activations`: what came out, by site; `receipt`: what an intervention did.
7. `store`: the same for a data set, on disk.
"""

from hooks.activations import Activations as Activations
from hooks.border import guard
from hooks.capture import capture as capture
from hooks.capture import stream as stream
from hooks.contract.check import check as check
from hooks.contract.report import ContractReport as ContractReport
from hooks.direction import Direction as Direction
from hooks.gradients import Gradients as Gradients
from hooks.gradients import capture_gradients as capture_gradients
from hooks.grid import Grid as Grid
from hooks.images import Images as Images
from hooks.intervene import intervene as intervene
from hooks.interventions import Intervention as Intervention
from hooks.load import load as load
from hooks.model import Model as Model
from hooks.network import Network as Network
from hooks.position import Position as Position
from hooks.processor import Processor as Processor
from hooks.receipt import Receipt as Receipt
from hooks.site import Site as Site
from hooks.store import ActivationStore as ActivationStore
from hooks.store import harvest as harvest
from hooks.tokens import Tokens as Tokens
from hooks.towers import Towers as Towers

__all__ = [
    "ActivationStore",
    "Activations",
    "ContractReport",
    "Direction",
    "Gradients",
    "Grid",
    "Images",
    "Intervention",
    "Model",
    "Network",
    "Position",
    "Processor",
    "Receipt",
    "Site",
    "Tokens",
    "Towers",
    "capture",
    "capture_gradients",
    "check",
    "harvest",
    "intervene",
    "load",
    "stream",
]

guard(globals(), __all__)
