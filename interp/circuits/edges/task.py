"""A task: clean texts, corrupt ones, and the metric in which the two differ."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooks import Model, Position, Tokens
from hooks.border import Count
from hooks.direction import wide
from hooks.errors import InvalidArgument
from hooks.model import Text
from hooks.position import last
from hooks.summary import summarise
from interp.circuits.metric import Metric
from interp.circuits.patching import noising, select_one_token


@dataclass(frozen=True, eq=False)
class Task:
    """What a circuit has to do: give the clean texts the metric that the whole model gives them.

    Attributes:
        clean: texts that show the behaviour.
        corrupt: their counterfactuals, of as many tokens each, which do not.
        metric: from the logits of one token per text to one number per text, row by row.
        at: the token whose logits the metric reads.

    Examples:
        ```python
        Task(clean, corrupt, logit_difference(model, right, wrong))
        ```
    """

    clean: Text
    corrupt: Text
    metric: Metric
    at: Position = last

    def tokens(self, model: Model) -> tuple[Tokens, Tokens]:
        """Return the tokens of the clean and the corrupt texts, which have the same places.

        Raises:
            InvalidArgument: different numbers of texts or of tokens, or a position that is not one token per text.

        Examples:
            ```python
            clean, corrupt = task.tokens(model)
            ```
        """
        clean, corrupt = noising(self.clean, self.corrupt).tokens(model)
        for tokens in (clean, corrupt):
            select_one_token(tokens, self.at)  # raises where a metric could not read one token
        return clean, corrupt

    def measure(self, said: Float[Tensor, "n vocab"], texts: Int[Tensor, "n"], count: Count) -> Float[Tensor, "n"]:
        """Return the metric of some of the texts, from the logits of the token that is read.

        The metric is computed for all texts at once, since it may hold an answer for each: the rows of texts that are
        not here are filled with those that are, and their numbers are dropped.

        Args:
            said: a row of logits for each text that is here.
            texts: which texts these are, each once.
            count: how many texts the task has.

        Raises:
            InvalidArgument: a metric that does not give one finite number per text.

        Examples:
            ```python
            task.measure(logits, torch.arange(4), 4)
            ```
        """
        place = torch.arange(count, device=said.device) % len(said)
        place[texts] = torch.arange(len(said), device=said.device)
        m = self.metric(wide(said)[place])
        if m.shape != (count,):
            raise InvalidArgument(
                f"the metric gave shape {tuple(m.shape)} for {count} texts: it must give one number each"
            )
        m = wide(m[texts])
        odd = (~torch.isfinite(m.detach())).nonzero().flatten()
        if len(odd):
            raise InvalidArgument(
                f"the metric gave {float(m[odd[0]]):g} for text {int(texts[odd[0]])}: it must give one finite number "
                "for each text"
            )
        return m


def ends_of(task: Task, tokens: Tokens) -> Bool[Tensor, "batch pos"]:
    """Return where the metric of a task reads: one token per text.

    Examples:
        ```python
        ends_of(task, model.tokens("The bridge is in"))
        ```
    """
    return select_one_token(tokens, task.at)


@dataclass(frozen=True, eq=False)
class KLFromClean:
    """The metric KL(p_clean || p), in nats, summed over the vocabulary. Made by `kl_from_clean`.

    Published code that takes a mean over the vocabulary gives a V-th of it, and thresholds a V-th as large.
    """

    log_p: Float[Tensor, "example vocab"]

    __repr__ = summarise

    def __call__(self, logits: Float[Tensor, "example vocab"]) -> Float[Tensor, "example"]:
        """Return KL(p_clean || softmax(logits)) of each text."""
        log_q = logits.log_softmax(-1)
        log_p = self.log_p.to(log_q)
        return (log_p.exp() * (log_p - log_q)).sum(-1)


@torch.no_grad()
def kl_from_clean(model: Model, clean: Text, at: Position = last) -> KLFromClean:
    """Return the metric KL(p_clean || p): how far the next-token distribution is from that of the clean run.

    It is 0 in the clean run, and so is its gradient there.

    Cost: one forward pass.

    Examples:
        ```python
        Task(clean, corrupt, kl_from_clean(model, clean))
        ```
    """
    tokens = model.tokens(clean)
    return KLFromClean(wide(model.run(tokens)[select_one_token(tokens, at)]).log_softmax(-1))
