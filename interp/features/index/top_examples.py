"""For every latent the few texts of highest priority, with the tokens around each peak on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

Around = Callable[[Tensor], tuple[Tensor, Tensor]]


class TopExamples:
    """`slots` texts per latent: memory for their numbers only, the windows of `width` tokens are in two files.

    A slot's window is its token ids and the latent's activations on them, the peak in the middle; -1 marks places
    beyond the text. Of equal priorities the text read first stays.
    """

    def __init__(self, folder: Path, name: str, d_sae: int, slots: int, width: int) -> None:
        shape = (d_sae, slots, width)
        mode = "r+" if (folder / f"{name}.ids").exists() else "w+"
        self.ids = np.memmap(folder / f"{name}.ids", np.int32, mode, shape=shape)
        self.acts = np.memmap(folder / f"{name}.acts", np.float32, mode, shape=shape)
        self.priority = torch.full((d_sae, slots), -torch.inf, dtype=torch.float64)
        self.value = torch.zeros(d_sae, slots)
        self.text = torch.full((d_sae, slots), -1, dtype=torch.long)

    def offer(
        self,
        latent: Int[Tensor, "n"],
        priority: Float[Tensor, "n"],
        value: Float[Tensor, "n"],
        text: Int[Tensor, "n"],
        around: Around,
    ) -> None:
        """Take in those of some peaks that beat what is kept; `around` gives their windows.

        What is kept and what is offered is sorted together, latent by latent, by falling priority and then by text.
        Of each latent the first `slots` stay, and those that are new take the slots of those that are not.
        """
        better = (priority > self.priority.min(1).values[latent]).nonzero().flatten()
        if not len(better):
            return
        slots = self.priority.shape[1]
        touched = latent[better].unique()
        owner = torch.cat([touched.repeat_interleave(slots), latent[better]])
        strength = torch.cat([self.priority[touched].flatten(), priority[better]])
        home = torch.cat([self.text[touched].flatten(), text[better]])
        falling = home.argsort(stable=True)
        falling = falling[strength[falling].argsort(descending=True, stable=True)]
        falling = falling[owner[falling].argsort(stable=True)]
        ordered = owner[falling]
        rank = torch.arange(len(ordered)) - torch.searchsorted(ordered, ordered)
        old = falling < len(touched) * slots
        out, came = falling[old & (rank >= slots)], falling[~old & (rank < slots)]
        winner = better[came - len(touched) * slots]
        at, slot = owner[out], out % slots  # as many go as come, latent by latent
        self.priority[at, slot], self.value[at, slot] = priority[winner], value[winner].to(self.value)
        self.text[at, slot] = text[winner]
        ids, acts = around(winner)
        self.ids[at.numpy(), slot.numpy()] = ids.numpy()
        self.acts[at.numpy(), slot.numpy()] = acts.numpy()

    def state(self) -> dict[str, Shaped[Tensor, "..."]]:
        """What is kept in memory; the windows are on disk already."""
        self.ids.flush()
        self.acts.flush()
        return {"priority": self.priority, "value": self.value, "text": self.text}

    def restore(self, state: dict[str, Shaped[Tensor, "..."]]) -> None:
        """Go on from an earlier `state`."""
        self.priority, self.value, self.text = state["priority"], state["value"], state["text"]
