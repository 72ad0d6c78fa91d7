"""The value that states a fact: a change δ of one site or two, searched by gradient through the frozen model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Intervention, Model, Position, Site, Tokens, intervene
from hooks.interventions import apply
from interp.memory.completion import log_probs, tokens_after
from interp.memory.fact import Fact, fill, last_token_before, last_token_of

TOKENS = ("last subject", "last prompt")


@dataclass(frozen=True)
class Search:
    """How v* = v̄ + δ is searched, in units of v̄, so that one setting serves layers and models of any scale.

    Attributes:
        steps: Adam's steps at most.
        learning_rate: of Adam, in units of the root mean square of the entries of v̄.
        kl: the weight of KL(p₀‖p_δ).
        decay: the weight of ‖δ‖/‖v̄‖.
        clamp: the longest δ, in units of ‖v̄‖.
        stop: the loss in nats at which the search ends.
    """

    steps: int = 100
    learning_rate: float = 0.05
    kl: float = 0.0625
    decay: float = 0.01
    clamp: float = 4.0
    stop: float = 5e-2


@dataclass(frozen=True, eq=False)
class Found:
    """The change δ of each site that together state the fact, and what they reached."""

    deltas: Mapping[Site, Float[Tensor, "d_model"]]
    probability: float
    kl: float
    steps: int


@dataclass(frozen=True)
class State:
    """Where a search stands: losses in nats, the size ‖δ‖/‖v̄‖, and whether arg max says the new object everywhere."""

    nll: Float[Tensor, ""]
    kl: Float[Tensor, ""]
    size: Float[Tensor, ""]
    said: bool


Objective = Callable[[State, Search], tuple[Float[Tensor, ""], bool]]
"""From where a search stands to its loss, and whether that is good enough to stop."""


@dataclass(frozen=True, eq=False)
class Statements:
    """The new fact stated in every context, and the prompts whose continuations are to stay, in one batch.

    Attributes:
        tokens: the statements, then the preserved prompts.
        target: the tokens that spell the new object; none in the preserved prompts.
        kept: the tokens of the preserved prompts after which the prediction is to stay.
        at: the token to which δ is added.
    """

    tokens: Tokens
    target: Bool[Tensor, "batch pos"]
    kept: Bool[Tensor, "batch pos"]
    at: Position


def place(token: str, subject: str, templates: Sequence[str]) -> Position:
    """The token an edit writes at, in texts that begin with these templates: the subject's last or the prompt's last.

    Raises:
        ValueError: another token; a template without exactly one `{}`.
    """
    if token not in TOKENS:
        raise ValueError(f"token={token!r}: choose {TOKENS[0]!r} or {TOKENS[1]!r}")
    if token == "last subject":
        return last_token_of(subject, templates)
    return last_token_before([len(fill(template, subject)) for template in templates])


def statements(
    model: Model, fact: Fact, contexts: Sequence[str], preserve: Sequence[str], token: str = "last subject"
) -> Statements:
    """Tokenise what `search_value` reads.

    Raises:
        ValueError: no contexts, no preserved templates, a template without exactly one `{}`.
    """
    if not contexts or not preserve:
        raise ValueError(f"{len(contexts)} contexts and {len(preserve)} preserved templates: give at least one of each")
    templates = [context + fact.prompt for context in contexts] + list(preserve)
    prompts = [fill(template, fact.subject) for template in templates]
    n = len(contexts)
    tokens = model.tokens([f"{prompt} {fact.new}" for prompt in prompts[:n]] + prompts[n:])
    target = tokens_after(tokens, [len(prompt) for prompt in prompts])
    subject = last_token_of(fact.subject, templates).mask(tokens)
    end = last_token_before([len(prompt) for prompt in prompts]).mask(tokens)
    stays = torch.arange(len(tokens), device=target.device)[:, None] >= n
    return Statements(tokens, target, (subject | end) & stays, place(token, fact.subject, templates))


def likely_and_near(state: State, search: Search) -> tuple[Float[Tensor, ""], bool]:
    """L = NLL + kl · KL + decay · ‖δ‖/‖v̄‖, until L < stop (Meng et al. 2022, equation 4)."""
    loss = state.nll + search.kl * state.kl + search.decay * state.size
    return loss, float(loss.detach()) < search.stop


def search_value(
    model: Model,
    said: Statements,
    v: Mapping[Site, Float[Tensor, "d_model"]],
    search: Search = Search(),  # noqa: B008
    objective: Objective = likely_and_near,
) -> Found:
    """Search the δ that, added to each site at `said.at` in every text, makes the model say the new object.

    Minimises mean NLL(new | context + prompt) + kl · mean KL(p₀‖p_δ) + decay · ‖δ‖/‖v̄‖ by Adam, projecting on
    ‖δ‖ ≤ clamp · ‖v̄‖ (Meng et al. 2022, equation 4; the KL over all of `said.kept`, the norm relative).

    Args:
        model: the model.
        said: what to say and what to keep.
        v: the sites to change, with what they hold; its norm is the unit of δ.
        search: the settings.
        objective: another loss, or another end.

    Raises:
        RuntimeError: the loss is no longer finite.

    Cost: a forward and a backward pass over `said` per step, the latter down to the site only.
    """
    n = int(said.target.any(1).sum())
    with torch.no_grad():
        before = model.run(said.tokens)[said.kept].float().log_softmax(-1)
    units = {site: float(value.float().norm()) for site, value in v.items()}
    deltas = {site: torch.zeros_like(value, dtype=torch.float32, requires_grad=True) for site, value in v.items()}
    adam = torch.optim.Adam(
        [{"params": [d], "lr": search.learning_rate * units[site] / len(d) ** 0.5} for site, d in deltas.items()]
    )
    for step in range(search.steps + 1):
        with torch.enable_grad(), frozen(model), intervene(model, _adding(deltas, said.at)):
            logits = model.run(said.tokens)
            nll = -log_probs(logits[:n], said.tokens.ids[:n], said.target[:n])
            kl = F.kl_div(logits[said.kept].float().log_softmax(-1), before, log_target=True, reduction="batchmean")
            size = torch.stack([d.norm() / units[site] for site, d in deltas.items()]).sum()
            state = State(nll.mean(), kl, size, _agrees(logits[:n], said, n))
            loss, enough = objective(state, search)
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"the search for v* met a loss of {float(loss)} at step {step}: lower its learning rate")
        if step == search.steps or enough:
            break
        for d, grad in zip(deltas.values(), torch.autograd.grad(loss, [*deltas.values()]), strict=True):
            d.grad = grad
        adam.step()
        with torch.no_grad():
            for site, d in deltas.items():
                d *= min(1.0, search.clamp * units[site] / max(float(d.norm()), 1e-30))
    found = {site: d.detach().clone() for site, d in deltas.items()}
    return Found(found, float((-nll.detach()).exp().mean()), float(kl.detach()), step)


def _adding(deltas: Mapping[Site, Tensor], at: Position) -> dict[Site | str, Intervention]:
    def adding(delta: Tensor) -> Intervention:
        return apply(lambda a: (a.float() + delta).to(a), at)

    return {site: adding(delta) for site, delta in deltas.items()}


def _agrees(logits: Float[Tensor, "batch pos vocab"], said: Statements, n: int) -> bool:
    """Whether arg max gives every token of the new object after the true ones before it."""
    best, target = logits[:, :-1].argmax(-1), said.target[:n, 1:]
    return bool((best == said.tokens.ids[:n, 1:])[target].all())


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """No gradient for the weights inside the block, so that a backward pass stops at the site that is searched."""
    trained = [p for p in model.hf.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)
