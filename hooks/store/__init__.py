"""Activations of a data set on disk: harvested in one pass, read in any order.

1. `job`: what is asked for is checked, `documents` are numbered in blocks, and `plan` says what it will take.
2. `manifest`: how the store is made is written to its `folder`, or compared with what is there.
3. `processes`: each process takes its share of the blocks that are missing.
4. `packing`: documents are laid out in rows; `harvest` runs the model over them.
5. `shard`: what comes out is written, checksummed, and counts once its record is there.
6. `store`: the store opened; `columns` read it, `shuffle` mixes its rows, `arrow` makes a data set of it.
"""

from hooks.border import guard
from hooks.store.arrow import to_dataset as to_dataset
from hooks.store.documents import count as count
from hooks.store.documents import open_dataset as open_dataset
from hooks.store.harvest import harvest as harvest
from hooks.store.harvest import plan as plan
from hooks.store.packing import Packing as Packing
from hooks.store.packing import packed as packed
from hooks.store.packing import separate as separate
from hooks.store.plan import Plan as Plan
from hooks.store.shuffle import ShuffledRows as ShuffledRows
from hooks.store.store import ActivationStore as ActivationStore
from hooks.store.store import StoredRows as StoredRows

__all__ = [
    "ActivationStore",
    "Packing",
    "Plan",
    "ShuffledRows",
    "StoredRows",
    "count",
    "harvest",
    "open_dataset",
    "packed",
    "plan",
    "separate",
    "to_dataset",
]

guard(globals(), __all__)
