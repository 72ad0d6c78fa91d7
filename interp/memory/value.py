"""The value that states a fact: a change δ of one site, searched by gradient through the frozen model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Model, Position, Site, Tokens, intervene
from hooks.interventions import apply
from interp.memory.completion import log_probs, tokens_after
from interp.memory.fact import Fact, fill, last_token_before, last_token_of

TOKENS = ("last subject", "last prompt")


@dataclass(frozen=True)
class Search:
    """How v* is searched: Adam steps on δ, its rate, the weight of KL(p₀‖p_δ) and of ‖δ‖/‖v₀‖², the clamp, the stop."""

    steps: int = 100
    learning_rate: float = 0.1
    kl: float = 0.0625
    decay: float = 0.01
    clamp: float = 4.0
    stop: float = 5e-2


@dataclass(frozen=True, eq=False)
class Found:
    """The change δ of the site that states the fact, and what it reached."""

    delta: Float[Tensor, "d_model"]
    probability: float
    kl: float
    steps: int


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


def search_value(
    model: Model,
    said: Statements,
    site: Site,
    v: Float[Tensor, "d_model"],
    search: Search = Search(),  # noqa: B008
) -> Found:
    """Search the δ that, added to the site at `said.at` in every text, makes the model say the new object.

    Minimises mean NLL(new | context + prompt) + kl · mean KL(p₀‖p_δ) + decay · ‖δ‖/‖v‖² by Adam, projecting on
    ‖δ‖ ≤ clamp · ‖v‖ (Meng et al. 2022, equation 4; the KL over all of `said.kept`).

    Raises:
        RuntimeError: the loss is no longer finite.

    Cost: a forward and a backward pass over `said` per step, the latter down to the site only.
    """
    n = int(said.target.any(1).sum())
    with torch.no_grad():
        before = model.run(said.tokens)[said.kept].float().log_softmax(-1)
    delta = torch.zeros_like(v, requires_grad=True)
    adding = apply(lambda a: a + delta, said.at)
    adam = torch.optim.Adam([delta], lr=search.learning_rate)
    limit = search.clamp * float(v.norm())
    found: Found | None = None
    for step in range(search.steps + 1):
        with torch.enable_grad(), frozen(model), intervene(model, {site: adding}):
            logits = model.run(said.tokens)
            nll = -log_probs(logits[:n], said.tokens.ids[:n], said.target[:n])
            kl = F.kl_div(logits[said.kept].float().log_softmax(-1), before, log_target=True, reduction="batchmean")
            loss = nll.mean() + search.kl * kl + search.decay * delta.norm() / v.norm() ** 2
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"the search for v* met a loss of {float(loss)} at step {step}: lower its learning rate")
        found = Found(delta.detach().clone(), float((-nll.detach()).exp().mean()), float(kl.detach()), step)
        if step == search.steps or float(loss.detach()) < search.stop:
            break
        (delta.grad,) = torch.autograd.grad(loss, delta)
        adam.step()
        with torch.no_grad():
            delta *= min(1.0, limit / max(float(delta.norm()), 1e-12))
    assert found is not None
    return found


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
