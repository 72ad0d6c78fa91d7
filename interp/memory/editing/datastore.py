"""A datastore of states and the tokens that followed them, which votes with the model for the next token."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Site
from hooks.site import logits


@dataclass(frozen=True, eq=False)
class Datastore:
    """Where a stored key is within the radius: p = λ p_kNN + (1 − λ) p_LM, with p_kNN ∝ Σⱼ 1[tⱼ] exp(−‖q − kⱼ‖²/T).

    Khandelwal et al. 2020, arXiv:1911.00172, equations 2 and 3, with a radius and a temperature T = radius². A token
    whose state is near no key is left alone, bit for bit.
    """

    site: str
    keys: Float[Tensor, "n d_model"]
    tokens: Int[Tensor, "n"]
    radius: float
    weight: float

    def attach(self, model: Model) -> Callable[[], None]:
        """Let the datastore vote on every forward pass; what is returned ends that."""
        state: list[Tensor] = []

        def read(q: Tensor) -> None:
            state[:] = [q]

        def vote(before: Tensor) -> Tensor | None:
            return self.vote(state.pop()[:, -before.shape[1] :], before)

        handles = model.tap(Site.parse(self.site)).attach(read), model.tap(logits).attach(vote)

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach

    def vote(
        self, q: Float[Tensor, "batch pos d_model"], before: Float[Tensor, "batch pos vocab"]
    ) -> Float[Tensor, "batch pos vocab"] | None:
        """The logits after the vote, log p; None where nobody votes."""
        keys = self.keys.to(q.device).float()
        distance = torch.cdist(q.flatten(0, 1).float(), keys, compute_mode="donot_use_mm_for_euclid_dist")
        distance = distance.unflatten(0, q.shape[:2])
        near = distance <= self.radius
        row, column = near.any(-1).nonzero(as_tuple=True)
        if not len(row):
            return None
        votes = -distance[row, column].square() / self.radius**2
        votes = votes.masked_fill(~near[row, column], -torch.inf).softmax(-1)
        counted = torch.zeros(len(row), before.shape[-1], device=q.device)
        counted.index_add_(1, self.tokens.to(q.device), votes)
        p = self.weight * counted + (1 - self.weight) * before[row, column].float().softmax(-1)
        return before.index_put((row, column), p.log().to(before))

    def control(self, random: torch.Generator) -> "Datastore":
        """The same keys with the tokens of other entries, or of their neighbours in the vocabulary."""
        shuffled = self.tokens[torch.randperm(len(self.tokens), generator=random)]
        return Datastore(self.site, self.keys, (shuffled - 1).abs(), self.radius, self.weight)
