"""Two hops: whether the bridge between them can be read, whether it is used, and whether it comes too late.

Readable is not used: a lens may show a bridge that nothing reads. What is used is seen by swapping it.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Intervention, Model, Position, Site, Tokens, capture, intervene
from hooks.border import Natural
from hooks.errors import InvalidArgument
from hooks.interventions import replace
from hooks.progress import progress_bar
from hooks.site import resid_post
from hooks.summary import summarise
from interp.common.at_once import means_at_once, shares_apart
from interp.common.completion import find_first_ids, tokenise_completions
from interp.common.statistics import Estimate, share
from interp.common.texts import check_unlike
from interp.common.unembedding import output_rows
from interp.lenses import LogitLens

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class Bridges:
    """What a lens reads of the bridge, and what swapping the state does, by layer.

    Attributes:
        read: by layer, how much more likely the lens finds the own bridge than another prompt's, in nats.
        swapped: by layer, the share that says the partner's answer with the partner's state.
        third: the same with the state of a third prompt: the control.
        more: by layer, swapped less third, prompt by prompt.
        kept: the share that says its own answer with nothing swapped.

    The intervals of `read`, and those of `more`, hold all layers at once.
    """

    read: dict[int, Estimate]
    swapped: dict[int, Estimate]
    third: dict[int, Estimate]
    more: dict[int, Estimate]
    kept: Estimate

    __repr__ = summarise

    @property
    def verdict(self) -> str:
        """Say "read and used", "readable, not used", "used, not readable" or "neither", by intervals.

        Read: in some layer the lens's lead is surely above 0. Used: in some layer the partner's answer is surely said
        more often than with the control's state, on the same prompts. "In some layer" is a choice among them, which
        the intervals know.
        """
        read, used = (any(e.low > 0 for e in of.values()) for of in (self.read, self.more))
        return {(True, True): "read and used", (True, False): "readable, not used",
                (False, True): "used, not readable", (False, False): "neither"}[read, used]  # fmt: skip

    def __str__(self) -> str:
        rows = [
            f"  {layer:>5}  {e.value:+.2f}  {self.swapped[layer].value:.2f}  {self.third[layer].value:.2f}"
            for layer, e in self.read.items()
        ]
        return "\n".join([f"{self.verdict}; layer, read (nats), swapped, third", *rows])

    def to_pandas(self) -> "DataFrame":
        """A row for each layer."""
        from pandas import DataFrame

        return DataFrame(
            [{"layer": i, "read": e.value, "swapped": self.swapped[i].value, "third": self.third[i].value}
             for i, e in self.read.items()]
        )  # fmt: skip


@torch.no_grad()
def swap_bridges(
    model: Model,
    prompts: Sequence[str],
    mention: Sequence[str],
    bridges: Sequence[str],
    answers: Sequence[str],
    *,
    component: Literal["whole", "read"] | Mapping[int, Float[Tensor, "n d_model"]] = "whole",
    seed: Natural = 0,
    progress: bool = True,
) -> Bridges:
    """Read the bridge at the end of each mention, and swap the state there with that of a partner.

    A partner is another prompt with another bridge and another answer. The state after a layer at the mention's last
    token is replaced by the partner's; if the bridge is used, the answer becomes the partner's. With the state of a
    third prompt, the partner's answer must not come (Yang et al. 2024, arXiv:2402.16837, for the reading).

    Args:
        model: a causal language model.
        prompts: two-hop questions, all of one second relation.
        mention: the words of each prompt at whose end the bridge is looked for.
        bridges: the bridge of each.
        answers: the answer of each.
        component: of the state that is swapped: "whole", the subject with it; "read", what the lens reads, the span
            of the rows of the two bridges in the unembedding; or by layer rows that span a subspace, as interchange
            training finds one.
        seed: of the partners.
        progress: show a bar.

    Raises:
        InvalidArgument: lists of different length, a prompt twice, or a prompt without two partners.

    Cost: three forward passes over the prompts for each layer.

    Examples:
        ```python
        swap_bridges(model, prompts, landmarks, countries, capitals).verdict
        ```
    """
    if not len(prompts) == len(mention) == len(bridges) == len(answers):
        raise InvalidArgument("prompts, mentions, bridges and answers are of different length: give one of each")
    check_unlike(prompts, "prompts")
    partner, third = _partners(bridges, answers, seed)
    own = _Asked(model, prompts, mention, answers)
    theirs = _Asked(model, prompts, mention, [str(answers[i]) for i in partner.tolist()])
    first = torch.tensor(find_first_ids(model, prompts, bridges))
    U, _ = output_rows(model, first)
    leads, said_by = [], []
    for layer in progress_bar(range(model.n_layers), desc="bridges swapped", progress=progress):
        h = own.states(resid_post[layer])
        said = LogitLens(model).read(h, layer).float().log_softmax(-1)
        lead = said.gather(1, first[:, None]) - said.gather(1, first[partner][:, None])
        leads.append(lead[:, 0])
        for of in (partner, third):
            moved = h[of] - h
            if component == "read":
                moved = _along(moved, torch.stack([U, U[of]], 1))
            elif not isinstance(component, str):
                moved = _along(moved, component[layer].to(h).expand(len(h), -1, -1))
            said_by.append(theirs.says({resid_post[layer]: h + moved}))
    swapped, others = torch.stack(said_by, 1).unflatten(1, (-1, 2)).unbind(2)
    return Bridges(
        read=dict(enumerate(means_at_once(torch.stack(leads, 1)))),
        swapped={layer: share(column) for layer, column in enumerate(swapped.T)},
        third={layer: share(column) for layer, column in enumerate(others.T)},
        more=dict(enumerate(shares_apart(swapped, others))),
        kept=share(own.says({})),
    )


def _along(
    moved: Float[Tensor, "example d_model"], rows: Float[Tensor, "example n d_model"]
) -> Float[Tensor, "example d_model"]:
    """The part of each vector in the span of its rows."""
    Q = torch.linalg.qr(rows.float().transpose(1, 2)).Q
    return torch.einsum("edk,ek->ed", Q, torch.einsum("edk,ed->ek", Q, moved.float())).to(moved)


def _partners(
    bridges: Sequence[str], answers: Sequence[str], seed: int
) -> tuple[Int[Tensor, "example"], Int[Tensor, "example"]]:
    """For each prompt two others, all three with bridges and answers of their own."""
    rng, found = Random(f"partners {seed}"), []
    for i in range(len(answers)):
        fits = [j for j in range(len(answers)) if answers[j] != answers[i] and bridges[j] != bridges[i]]
        one = rng.choice(fits) if fits else -1
        rest = [j for j in fits if answers[j] != answers[one] and bridges[j] != bridges[one]]
        if not rest:
            raise InvalidArgument(f"prompt {i} has no two others with other bridges and answers: give more prompts")
        found.append((one, rng.choice(rest)))
    pairs = torch.tensor(found)
    return pairs[:, 0], pairs[:, 1]


class _Asked:
    """Prompts with answers after them, and a place in each: what is there, and what is said with it replaced."""

    def __init__(self, model: Model, prompts: Sequence[str], mention: Sequence[str], answers: Sequence[str]) -> None:
        self.model, self.asked = model, tokenise_completions(model, prompts, answers)
        offsets = self.asked.tokens.offsets
        assert offsets is not None
        ends = []
        for prompt, words in zip(prompts, mention, strict=True):
            if words not in prompt:
                raise InvalidArgument(f"{words!r} is not in {prompt!r}: mention words of the prompt")
            ends.append(prompt.rindex(words) + len(words))
        start, stop = offsets.unbind(-1)
        end = torch.tensor(ends)[:, None]
        place = self.asked.tokens.content & (start < end) & (stop >= end)
        self.at = Position("the end of the mention", lambda _: place)

    def states(self, site: Site) -> Float[Tensor, "n d_model"]:
        tokens: Tokens = self.asked.tokens
        return capture(self.model, tokens, site, batch_size=len(tokens)).flat(site, self.at)

    @torch.no_grad()
    def says(self, states: dict[Site, Float[Tensor, "n d_model"]]) -> Tensor:
        tokens, target = self.asked.tokens, self.asked.target
        plan: dict[Site | str, Intervention] = {site: replace(h, at=self.at) for site, h in states.items()}
        with intervene(self.model, plan) if plan else nullcontext():
            best = self.model.run(tokens)[:, :-1].argmax(-1)
        return ((best == tokens.ids[:, 1:]) | ~target[:, 1:]).all(1).cpu()


@dataclass(frozen=True, eq=False)
class BackPatching:
    """What putting a late state into an earlier layer, at the same token, rescues.

    Attributes:
        source: the later layer of the pair that did best on the first half of the prompts.
        target: the earlier one.
        rescued: the share of the other half, all of which failed, that it makes right.
        other: the same with the state of another prompt, which has another answer: the control.
        more: rescued less other, prompt by prompt.
        any_pair: the share of that half which some pair rescues: a maximum over all pairs, and no result by itself.
        any_pair_other: the same with the other prompt's state, which shows why not.
        failed: the share of all prompts that fail without it.
    """

    source: int
    target: int
    rescued: Estimate
    other: Estimate
    more: Estimate
    any_pair: Estimate
    any_pair_other: Estimate
    failed: Estimate

    __repr__ = summarise

    def __str__(self) -> str:
        return (
            f"layer {self.source} into {self.target} rescues {self.rescued} of the {self.failed} that fail; another "
            f"prompt's state {self.other}, so {self.more:+.3f} on the same prompts; any pair {self.any_pair}, with "
            f"another prompt's state {self.any_pair_other}"
        )


def back_patch(
    model: Model,
    prompts: Sequence[str],
    mention: Sequence[str],
    answers: Sequence[str],
    *,
    seed: Natural = 0,
    progress: bool = True,
) -> BackPatching:
    """Put the state after a later layer into an earlier one at the end of each mention, and see what that rescues.

    The pair of layers is chosen on one half of the prompts that fail and reported on the other (Biran et al. 2024,
    arXiv:2406.12775, count a prompt as rescued if any pair rescues it, which another prompt's state does as well).

    Args:
        model: a causal language model.
        prompts: questions.
        mention: the words at whose end states are moved.
        answers: the right ones.
        seed: of the halves and of the other prompts.
        progress: show a bar.

    Raises:
        InvalidArgument: a prompt twice, fewer than four prompts that fail, or all of these have one answer.

    Cost: two forward passes over the prompts that fail for each pair of layers.

    Examples:
        ```python
        back_patch(load("landmark"), prompts, landmarks, capitals)
        ```
    """
    check_unlike(prompts, "prompts")
    right = _Asked(model, prompts, mention, answers).says({})
    failed = [i for i, ok in enumerate(right.tolist()) if not ok]
    if len(failed) < 4:
        raise InvalidArgument(f"{len(failed)} of {len(prompts)} prompts fail: there is nothing to rescue")
    kept = [answers[i] for i in failed]
    asked = _Asked(model, [prompts[i] for i in failed], [mention[i] for i in failed], kept)
    other = _others(kept, seed)
    pairs = [(s, d) for s in range(1, model.n_layers) for d in range(s)]
    h = {layer: asked.states(resid_post[layer]) for layer in range(model.n_layers)}
    both = [
        torch.stack([asked.says({resid_post[d]: state}) for state in (h[s], h[s][other])])
        for s, d in progress_bar(pairs, desc="back-patching", progress=progress)
    ]
    own, foreign = torch.stack(both, 1)
    order = torch.randperm(len(failed), generator=torch.Generator().manual_seed(seed))
    first, second = order[: len(failed) // 2], order[len(failed) // 2 :]
    best = int(own[:, first].float().mean(1).argmax())
    return BackPatching(
        *pairs[best],
        share(own[best, second]),
        share(foreign[best, second]),
        shares_apart(own[best, second], foreign[best, second])[0],
        share(own[:, second].any(0)),
        share(foreign[:, second].any(0)),
        share(~right),
    )


def _others(answers: Sequence[str], seed: int) -> Int[Tensor, "example"]:
    rng, found = Random(f"others {seed}"), []
    for one in answers:
        fits = [j for j, other in enumerate(answers) if other != one]
        if not fits:
            raise InvalidArgument(f"all prompts that fail have the answer {one!r}: give some with another")
        found.append(rng.choice(fits))
    return torch.tensor(found)
