"""Breaking a prompt's subject and restoring single places, with a clean row in the same forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model, Site
from hooks.errors import InvalidArgument
from hooks.forward import accepts, named_outputs
from hooks.pieces import is_blank
from hooks.site import embed
from interp.common.completion import tokenise_completions
from interp.memory.facts.fact import Subject

Spot = tuple[Sequence[int], Sequence[Site]]
"""Columns and sites that are restored together."""


@dataclass(frozen=True, eq=False)
class CorruptedPrompt:
    """One prompt, broken in several ways: `ids[0]` is the clean one, and so is `noise[0]`, which is zero.

    Attributes:
        ids: the clean prompt, then one row for each draw.
        columns: of the subject's tokens.
        noise: added to the embeddings there, row by row.
        answer: the token whose probability is measured.
    """

    ids: Int[Tensor, "batch pos"]
    columns: Int[Tensor, "n"]
    noise: Float[Tensor, "batch n d_model"]
    answer: int

    @property
    def draws(self) -> int:
        """How often it is broken."""
        return len(self.ids) - 1


@torch.no_grad()
def restore(
    model: Model, broken: CorruptedPrompt, spots: Sequence[Spot], batch_size: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "n"]]:
    """The answer's probability clean, broken, and broken with each spot restored; means over draws.

    A restored place takes what it holds in the clean row of the same pass. A row that nothing breaks is the clean one.

    Cost: one forward pass over a clean row and draws × (spots + 1) others, in parts of `batch_size` rows.
    """
    per = max(1, (batch_size - 1) // broken.draws)
    todo: list[Spot] = [((), ()), *spots]
    whole = (broken.ids == broken.ids[0]).all(1) & (broken.noise == 0).flatten(1).all(1)
    clean, found = torch.tensor(0.0), []
    for i in range(0, len(todo), per):
        part = todo[i : i + per]
        row = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(1, broken.draws + 1).repeat(len(part))])
        row = row.to(broken.ids.device)
        with _restore(model, broken, row, part):
            last = {"logits_to_keep": 1} if accepts(model.hf, "logits_to_keep") else {}
            ids = broken.ids[row]
            with named_outputs(model.hf):
                logits = model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), **last).logits[:, -1]
        p = logits.double().softmax(-1)[:, broken.answer]
        p = torch.where(whole[row], p[0], p).cpu()
        clean = p[0]
        found.append(p[1:].view(len(part), broken.draws).mean(1))
    means = torch.cat(found).float()
    return clean.float(), means[0], means[1:]


@contextmanager
def _restore(model: Model, broken: CorruptedPrompt, row: Int[Tensor, "batch"], spots: Sequence[Spot]) -> Iterator[None]:
    """The noise of each row, and in the rows of each spot the clean row's values."""
    masks: dict[Site, Tensor] = {}
    for number, (columns, sites) in enumerate(spots):
        rows = slice(1 + number * broken.draws, 1 + (number + 1) * broken.draws)
        for site in sites if len(columns) else ():
            mask = masks.setdefault(site, torch.zeros_like(broken.ids[row], dtype=torch.bool))
            mask[rows, list(columns)] = True

    def noisy(a: Tensor) -> Tensor:
        return a.index_add(1, broken.columns, broken.noise[row].to(a))

    def putting(mask: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda a: torch.where(mask[..., None], a[:1], a)

    with ExitStack() as stack:
        if bool(broken.noise.any()):
            stack.callback(model.tap(embed).attach(noisy).remove)
        for site, mask in masks.items():
            stack.callback(model.tap(site).attach(putting(mask)).remove)
        yield


def corrupt_with_noise(model: Model, fact: Subject, std: float, draws: int, random: torch.Generator) -> CorruptedPrompt:
    """The prompt with noise of this standard deviation on its subject's embeddings."""
    ids, columns, answer = _subject(model, fact)
    noise = std * torch.randn(draws, len(columns), model.d_model, generator=random)
    noise = torch.cat([torch.zeros_like(noise[:1]), noise]).to(model.device)
    return CorruptedPrompt(ids.expand(draws + 1, -1), columns, noise, answer)


def corrupt_with_others(
    model: Model, fact: Subject, others: Sequence[str], draws: int, random: torch.Generator
) -> CorruptedPrompt:
    """The prompt with other subjects of as many tokens in its subject's place."""
    ids, columns, answer = _subject(model, fact)
    head, tail = fact.prompt[: fact.begins], fact.prompt[fact.begins + len(fact.subject) :]
    rows = [
        _subject(model, replace(fact, prompt=f"{head}{other}{tail}", subject=other, start=fact.begins))
        for other in others
        if other != fact.subject
    ]
    fitting = [row for row, place, _ in rows if torch.equal(place, columns) and row.shape == ids.shape]
    if not fitting:
        raise InvalidArgument(
            f"none of the {len(others)} other subjects has {len(columns)} tokens as {fact.subject!r} has: "
            "name more of them, or break it with noise"
        )
    order = torch.randperm(len(fitting), generator=random)[:draws].tolist()
    noise = torch.zeros(len(order) + 1, len(columns), model.d_model, device=model.device)
    return CorruptedPrompt(torch.cat([ids, *(fitting[i] for i in order)]), columns, noise, answer)


def _subject(model: Model, fact: Subject) -> tuple[Int[Tensor, "1 pos"], Int[Tensor, "n"], int]:
    """A prompt's token ids up to where the answer is said, the columns of its subject, and the answer's first token.

    A token of white space alone, which some tokenizers put before every word, says nothing of the answer: it is read.
    """
    asked = tokenise_completions(model, [fact.prompt], [fact.answer])
    ids = asked.tokens.ids
    said = [i for i in asked.target[0].nonzero().flatten().tolist() if not is_blank(model.tokenizer, int(ids[0, i]))]
    if not said:
        raise InvalidArgument(f"the answer {fact.answer!r} has no token but white space: give one with a word")
    columns = fact.place.mask(model.tokens(fact.prompt))[0].nonzero().flatten()
    return ids[:, : said[0]], columns, int(ids[0, said[0]])
