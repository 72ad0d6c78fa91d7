"""Selecting one difference of means among all layers and positions by what removing and adding it does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Direction, Intervention, Model, Position, Site, Tokens, capture, intervene
from hooks.errors import InvalidArgument
from hooks.interventions import add, project_out
from hooks.position import everywhere, index, last, special
from hooks.progress import progress_bar
from hooks.rows import fit_ends
from hooks.site import resid_post
from hooks.summary import summarise
from interp.common.texts import list_texts, unique_texts
from interp.directions.rows import make_direction

if TYPE_CHECKING:
    from pandas import DataFrame

KL_MOST = 0.1  # nats on texts that do not show the behaviour
BATCH = 32
DEPTH = 0.8  # of the layers; later ones can only name the token


@final
@dataclass(frozen=True)
class Candidate:
    """One layer and position: what ablating its direction does to the behaviour, what adding it does, and the damage.

    `bypass` is the mean log-odds of the marked tokens on positive texts with the direction ablated (lower is better),
    `induce` that on negative texts with it added (above 0 is wanted), `kl` the mean KL on negative texts when ablated,
    in nats. `admitted` where `induce` > 0, `kl` <= 0.1 and the layer is in the first 80 %.
    """

    direction: Direction
    position: int
    bypass: float
    induce: float
    kl: float
    admitted: bool


@final
@dataclass(frozen=True)
class Selection:
    """All candidates, best first, and the log-odds of untouched positive and negative texts."""

    candidates: tuple[Candidate, ...]
    positive: float
    negative: float

    __repr__ = summarise

    @property
    def best(self) -> Candidate:
        """The admitted candidate that removes the behaviour most.

        Raises:
            InvalidArgument: none is admitted.
        """
        if not self.candidates[0].admitted:
            raise InvalidArgument(
                f"none of {len(self.candidates)} candidates induces the behaviour at a KL of at most {KL_MOST} in the "
                f"first {DEPTH:.0%} of the layers: look at `candidates`, or give other texts or marked tokens"
            )
        return self.candidates[0]

    @property
    def direction(self) -> Direction:
        """The direction of `best`; errors as there."""
        return self.best.direction

    def to_pandas(self) -> "DataFrame":
        """A row for each candidate, best first: its site and position, and what was measured of it."""
        from pandas import DataFrame

        rows = [(str(c.direction.site), c.position, c.bypass, c.induce, c.kl, c.admitted) for c in self.candidates]
        return DataFrame(rows, columns=["site", "position", "bypass", "induce", "kl", "admitted"])


def refusal(
    model: Model,
    positive: Sequence[str],
    negative: Sequence[str],
    marks: Sequence[int],
    *,
    positions: Sequence[int] = (-1, -2, -3, -4, -5),
    progress: bool = True,
) -> Selection:
    """r_{l,i} = mean of a_{l,i}(positive) - mean of a_{l,i}(negative), the best of all l and i (Arditi et al. 2024).

    The behaviour (refusing, in the paper) is read from the log-odds of the `marks`, ids of tokens that begin a text
    which shows it, after the last token: log p / (1 - p). Candidates come from every second text, and are judged on
    the others: r is projected out of every residual stream at every token, or added at its own layer. Of texts that
    read alike the first counts. Of a text longer than the context the end is read, with a note.

    Raises:
        InvalidArgument: fewer than two different texts of a kind, a string for them, no marks or strange ones, or a
            text shorter than a position.

    Cost:
        One forward pass per text, and three for half of them per candidate (layers times positions).

    Examples:
        ```python
        refusal(model, harmful, harmless, marks=[model.tokens(" I").ids[0, -1].item()]).direction
        ```
    """
    positive = unique_texts(list_texts(positive, "positive texts"))
    negative = unique_texts(list_texts(negative, "negative texts"))
    if len(positive) < 2 or len(negative) < 2 or not marks:
        raise InvalidArgument(
            f"{len(positive)} different positive, {len(negative)} negative texts and {len(marks)} marks were given: "
            "give two texts of each kind, one to find candidates and one to judge them, and at least one mark"
        )
    strange = [mark for mark in marks if not 0 <= mark < model.d_vocab]
    if strange:
        raise InvalidArgument(
            f"the marks {strange} are no tokens of {model.name}: give ids from 0 to {model.d_vocab - 1}"
        )
    ids = torch.tensor(sorted(set(marks)))
    every = fit_ends(model, model.tokens([*positive, *negative]))
    shown, absent = every[: len(positive)], every[len(positive) :]
    proven = _Proving(model, shown[1::2], absent[1::2], ids)
    on, off = (_rows(model, tokens[::2], positions) for tokens in (shown, absent))
    made = []
    for site, at in progress_bar(list(on), desc="candidates", progress=progress):
        x, y = on[site, at], off[site, at]
        source = f"refusal-style difference at token {at}"
        made.append(proven.judge(make_direction(model, site, x.mean(0) - y.mean(0), source, y.mean(0), x), at))
    made.sort(key=lambda c: (not c.admitted, c.bypass))
    return Selection(tuple(made), proven.odds(proven.positive), proven.odds(proven.negative))


def _rows(model: Model, tokens: Tokens, positions: Sequence[int]) -> dict[tuple[Site, int], Tensor]:
    """The stream after every layer at every position, a row per text."""
    sites = [resid_post[layer] for layer in range(model.n_layers)]
    parts: dict[tuple[Site, int], list[Tensor]] = {(site, at): [] for site in sites for at in positions}
    for start in range(0, len(tokens), BATCH):
        acts = capture(model, tokens[start : start + BATCH], sites)
        for (site, at), rows in parts.items():
            rows.append(acts.flat(site, at=index(at)).double().cpu())
    return {place: torch.cat(rows) for place, rows in parts.items()}


@dataclass(frozen=True)
class _Proving:
    """The texts on which candidates are judged, and how."""

    model: Model
    positive: Tokens
    negative: Tokens
    marks: Int[Tensor, "n"]

    def judge(self, r: Direction, position: int) -> Candidate:
        streams = [site for site in self.model.sites if _in_stream(site)]
        gone: dict[Site | str, Intervention | Sequence[Intervention]] = {
            site: project_out(r, at=_all_tokens()) for site in streams
        }
        with intervene(self.model, gone) as receipt:
            bypass, kl = self.odds(self.positive), float(receipt.kl(self.negative, at=last).mean())
        with intervene(self.model, {r.site: add(r)}):
            induce = self.odds(self.negative)
        early = (r.site.layer or 0) < int(DEPTH * self.model.n_layers)
        return Candidate(r, position, bypass, induce, kl, induce > 0 and kl <= KL_MOST and early)

    @torch.no_grad()
    def odds(self, tokens: Tokens) -> float:
        """Mean log-odds of the marks after the last token."""
        log_p = self.model.run(tokens)[last.mask(tokens)].double().log_softmax(-1)
        return float(_log_odds(log_p, self.marks.to(log_p.device)).mean())


def _log_odds(log_p: Float[Tensor, "n vocab"], marks: Int[Tensor, "..."]) -> Float[Tensor, "n"]:
    others = torch.ones(log_p.shape[1], dtype=torch.bool, device=log_p.device)
    others[marks] = False
    if not bool(others.any()):
        raise InvalidArgument("every token is a mark, so the behaviour has no opposite")
    return log_p[:, marks].logsumexp(1) - log_p[:, others].logsumexp(1)


def _in_stream(site: Site) -> bool:
    return site.name in ("resid_mid", "resid_post") or (site.name == "resid_pre" and site.layer == 0)


def _all_tokens() -> Position:
    return everywhere | special
