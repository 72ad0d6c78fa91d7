"""Memory outside the weights, on the bundled models: `python benchmarks/memory_outside.py`.

Facts that no weight holds, by a store of states that votes and by passages that are read; an index of a million states
next to all of them compared; the same fact taught in five ways. Every figure is next to its control, with its interval.
Writes benchmarks/results/memory_outside.json after every part; `--part NAME` measures one part, the others are kept.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import RESULTS, write  # noqa: E402
from hooks import Model, capture, load  # noqa: E402
from hooks.site import mlp_in, resid_post  # noqa: E402
from interp import landmark  # noqa: E402
from interp.common.completion import find_answer_ids, score  # noqa: E402
from interp.common.statistics import bootstrap, share  # noqa: E402
from interp.common.texts import begins_with  # noqa: E402
from interp.landmark.grammar import held_out_phrasings, training_phrasings  # noqa: E402
from interp.landmark.writing import capitalise  # noqa: E402
from interp.memory import table_cases  # noqa: E402
from interp.memory.outside import (  # noqa: E402
    ChosenMixture,
    TokenMemory,
    choose_mixture,
    encode_by_states,
    index_states,
    index_words,
    make_token_memory,
    measure_mixture,
    measure_passage_reading,
    measure_recall,
    measure_retrieval,
    predict_mixture,
)
from interp.memory.outside.mixture import choose_temperatures, neighbour_votes  # noqa: E402
from interp.teaching import compare_ways, make_ways  # noqa: E402
from interp.worlds import load_world  # noqa: E402
from interp.worlds.lists import MADE_UP  # noqa: E402

NAME, UNSEEN = "memory_outside", 1_000_000
SITE = mlp_in[7]
NEW, OTHER, OLD = 60, 30, 100  # facts reported, facts that λ and T are chosen on, and true facts to be kept
STORED, ASKED = 2, 3  # training phrasings that the store holds, and the number of the one that it does not
KEYS, QUERIES, CELLS, PROBES = 1_048_576, 128, 1024, (1, 4, 16, 64, 256)
INDEXED = mlp_in[0]  # read after one block's attention, as a million states at the last block are ten times as dear
FACTS, DRIFT = 8, 12


@cache
def model() -> Model:
    """The bundled model."""
    return load("landmark")


@cache
def changed(seed: int, n: int) -> tuple[tuple[landmark.Triple, str], ...]:
    """True facts with another object of their relation, which no text that the model read gives them."""
    rng = Random(f"memory outside {seed}")
    of: dict[str, list[str]] = {}
    for one in landmark.triples():
        of.setdefault(one.relation.name, []).append(one.object)
    drawn = rng.sample([t for t in landmark.triples() if len({*of[t.relation.name]}) > 3], n)
    return tuple((t, rng.choice(sorted({*of[t.relation.name]} - {t.object}))) for t in drawn)


def asked(t: landmark.Triple, number: int, *, unseen: bool = False) -> str:
    """One phrasing of a fact as a prompt; of training, or one that no text uses."""
    pool = (held_out_phrasings if unseen else training_phrasings)(t.relation.name)
    return capitalise(pool[number % len(pool)].template.format(t.subject.text))


def statements(facts: Sequence[tuple[landmark.Triple, str]], numbers: Sequence[int]) -> list[str]:
    """Facts said in some phrasings of training."""
    return [f"{asked(t, i)} {said}." for t, said in facts for i in numbers]


def says(memory: TokenMemory, mixture: ChosenMixture, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
    """Whether the mixture's arg max is each answer, token by token."""
    ids, found = find_answer_ids(model(), prompts, answers), []
    for prompt, answer, want in zip(prompts, answers, ids, strict=True):
        how = {"weight": mixture.share, "temperature": mixture.temperature, "k": mixture.k, "within": mixture.within}
        log_p = predict_mixture(model(), memory, f"{prompt} {answer}", **how)
        found.append(log_p[-len(want) - 1 : -1].argmax(-1).tolist() == want)
    return torch.tensor(found)


def other_facts(number: int) -> tuple[TokenMemory, list[str], list[str]]:
    """A memory of new facts that are not reported, their statements in one phrasing, and those of true facts."""
    others = changed(1, OTHER)
    memory = make_token_memory(model(), statements(others, range(STORED)), SITE)
    return memory, statements(others, [number]), statements([(t, t.object) for t, _ in changed(2, OTHER)], [number])


def choose_by_saying() -> dict[str, ChosenMixture]:
    """λ and how near, on other facts: by the lesser of new ones said, in a phrasing stored or not, and true kept."""
    memory, stated, kept = other_facts(ASKED)
    new, true = changed(1, OTHER), [t for t, _ in changed(2, OTHER)]
    states = torch.cat([capture(model(), text, [SITE]).flat(SITE) for text in [*stated, *kept]])
    apart = choose_temperatures(memory.find(states, 64)[0])[3]
    print("median squared distance of the nearest 64:", apart, flush=True)
    found: dict[str, tuple[float, ChosenMixture]] = {}
    for within in (*(apart * one for one in (0.003, 0.03, 0.1, 0.2, 0.4, 0.7)), float("inf")):
        for weight in (0.6, 0.95):
            one = ChosenMixture(weight, apart / 100, 64, float("nan"), within)
            still = says(memory, one, [asked(t, 0) for t in true], [t.object for t in true]).float().mean()
            for name, number in (("a phrasing stored", 0), ("a phrasing not stored", ASKED)):
                said = says(memory, one, [asked(t, number) for t, _ in new], [y for _, y in new]).float().mean()
                print(f"{name}: {weight:.2f} {within:8.2f}: said {said:.2f}, kept {still:.2f}", flush=True)
                if float(torch.minimum(said, still)) > found.get(name, (-1.0,))[0]:
                    found[name] = float(torch.minimum(said, still)), one
    everywhere = ChosenMixture(0.6, apart / 100, 64, float("nan"))
    return {**{f"for {name}": one for name, (_, one) in found.items()}, "where all vote": everywhere}


def new_facts() -> dict[str, Any]:
    """Whether a store of new facts says them, in phrasings stored and not, and leaves true facts as they were."""
    chosen, facts = choose_by_saying(), changed(0, NEW)
    mixture = chosen["for a phrasing stored"]
    subjects = {t.subject.name for t, _ in facts}
    kept = [t for t, _ in changed(3, 3 * OLD) if t.subject.name not in subjects][:OLD]
    memory = make_token_memory(model(), statements(facts, range(STORED)), SITE)
    found: dict[str, Any] = {"mixtures": {name: asdict(one) for name, one in chosen.items()}, "entries": len(memory)}
    print(found, flush=True)
    alone, answers = replace(mixture, share=0.0), [said for _, said in facts]
    true = [asked(t, 0) for t in kept], [t.object for t in kept]
    before = says(memory, alone, *true)
    rest = [next(o for o in landmark.facts_of(t.subject) if o.relation != t.relation) for t, _ in facts
            if len(landmark.facts_of(t.subject)) > 1]  # fmt: skip
    others = [asked(t, 0) for t in rest], [t.object for t in rest]
    known = says(memory, alone, *others)
    ways = {name: (memory, one) for name, one in chosen.items()}
    ways["tokens shuffled"] = memory.shuffle(), mixture
    for name, (held, how) in ways.items():
        prompts = {
            "a phrasing stored": [asked(t, 0) for t, _ in facts],
            "a phrasing not stored": [asked(t, ASKED) for t, _ in facts],
            "a phrasing no text uses": [asked(t, 0, unseen=True) for t, _ in facts],
        }
        found[name] = {k: asdict(share(says(held, how, p, answers))) for k, p in prompts.items()}
        after, stay = says(held, how, *true), says(held, how, *others)
        found[name]["other facts of the same subjects, of those said without it"] = asdict(share(stay[known]))
        found[name]["true facts said, of those said without it"] = asdict(share(after[before]))
        print(name, found[name], flush=True)
    forgotten = memory.without(memory.document < STORED)  # all that is said of the first fact
    still = says(forgotten, mixture, [asked(t, 0) for t, _ in facts], answers)
    found["the first fact deleted"] = {"first said": bool(still[0]), "others said": asdict(share(still[1:]))}
    found["known without it"] = asdict(share(before))
    return found


def new_documents() -> dict[str, Any]:
    """What a store of documents on new facts does to the perplexity of other documents on them."""
    facts, (others, stated, true) = changed(0, NEW), other_facts(ASKED)
    texts = [*stated, *true]
    apart = choose_temperatures(others.find(torch.cat([capture(model(), t, [SITE]).flat(SITE) for t in texts]), 64)[0])
    reach = [share_of * apart[3] for share_of in (0.03, 0.1, 0.2, 0.4)]
    mixture = choose_mixture(model(), others, texts, within=[*reach, float("inf")])
    everywhere = choose_mixture(model(), others, texts)
    memory = make_token_memory(model(), statements(facts, range(STORED)), SITE)
    rng, test = Random("new documents"), statements(facts, [ASKED])
    rng.shuffle(test)
    documents = [" ".join(test[i : i + 3]) for i in range(0, len(test), 3)]
    unrelated = [text for text in landmark.unseen_texts(model(), 60, seed=11) if len(text) > 60][:30]
    found: dict[str, Any] = {"mixture": asdict(mixture), "mixture where all vote": asdict(everywhere)}
    for name, how in (("", mixture), (", where all vote", everywhere)):
        for kind, read in (("new documents", documents), ("unrelated documents", unrelated)):
            gain = measure_mixture(model(), memory, read, how)
            found[kind + name] = {n: asdict(e) for n, e in vars(gain).items()}
            print(kind + name, gain, flush=True)
    cached = n_gram(statements(facts, range(STORED)), documents, mixture.share)
    print(cached, flush=True)
    return {**found, "n-gram cache": cached}


def n_gram(stored: Sequence[str], test: Sequence[str], weight: float, longest: int = 5) -> dict[str, Any]:
    """Perplexity over that of the model with a cache of what followed the longest last words in the stored texts."""
    follow: dict[tuple[int, ...], list[int]] = {}
    for text in stored:
        ids = model().tokens(text).ids[0].tolist()
        for i in range(1, len(ids)):
            for n in range(1, min(longest, i) + 1):
                follow.setdefault(tuple(ids[i - n : i]), []).append(ids[i])
    rows = []
    for text in test:
        tokens = model().tokens(text)
        ids, log_p = tokens.ids[0].tolist(), model().run(tokens)[0].log_softmax(-1).double()
        moved, n = 0.0, 0
        for i in range(2, len(ids)):
            p = float(log_p[i - 1, ids[i]].exp())
            best = next(
                (follow[w] for k in range(longest, 0, -1) if (w := tuple(ids[max(0, i - k) : i])) in follow), []
            )
            mixed = p if not best else (1 - weight) * p + weight * best.count(ids[i]) / len(best)
            moved, n = moved - float(torch.tensor(mixed).log()) + float(log_p[i - 1, ids[i]]), n + 1
        rows.append([moved, float(n)])
    held = [torch.tensor(rows, dtype=torch.float64)]
    return asdict(bootstrap(lambda drawn: float((drawn[0][:, 0].sum() / drawn[0][:, 1].sum()).exp()), held))


def index() -> dict[str, Any]:
    """Recall of an index of a million states, what is lost of the vote, and processor time next to an exact search."""
    texts = (document.text for document in landmark.documents(0))
    memory = make_token_memory(model(), [*islice(texts, KEYS // 100)], INDEXED, limit=KEYS)
    print(memory, flush=True)
    unseen = [text for text in landmark.unseen_texts(model(), 60, seed=5) if len(text) > 60]
    q = torch.cat([capture(model(), text, [INDEXED]).flat(INDEXED) for text in unseen])[::7][:QUERIES]
    begun = time.process_time()
    indexed = memory.with_index(cells=CELLS)
    assert indexed.index is not None
    found: dict[str, Any] = {"entries": len(memory), "site": str(INDEXED), "cells": CELLS, "states looked up": len(q)}
    found["processor seconds of making it"] = time.process_time() - begun
    temperature = float(choose_temperatures(memory.find(q, 64)[0])[2])
    exact = neighbour_votes(memory, q, 64, temperature, model().d_vocab)
    spent = processor_time(memory, q)
    found["processor milliseconds of an exact search"] = 1000 * spent
    for probes in (*PROBES, CELLS):
        one = replace(indexed, index=replace(indexed.index, probes=probes))
        moved = (neighbour_votes(one, q, 64, temperature, model().d_vocab) - exact).abs().sum(1) / 2
        found[f"{probes} cells"] = {
            "recall of 64": asdict(measure_recall(one, q)),
            "vote that is another": asdict(bootstrap(lambda d: float(d[0].mean()), [moved])),
            "processor time of an exact search over it": spent / processor_time(one, q),
        }
        print(probes, found[f"{probes} cells"], flush=True)
    return found


def processor_time(memory: TokenMemory, q: Tensor) -> float:
    """Of the search of one state, as text is written, in seconds."""
    begun = time.process_time()
    for one in q[:16]:
        memory.find(one[None], 64)
    return (time.process_time() - begun) / len(q[:16])


def retrieval() -> dict[str, Any]:
    """Whether the right passage is found by words and by states, and what reading it changes in two models."""
    facts = changed(0, 2 * NEW)
    passages = statements(facts, [0])
    right, found = range(len(facts)), {}
    searches = {
        "words": index_words(passages),
        **{f"states after block {i}": index_states(passages, encode_by_states(model(), resid_post[i])) for i in (1, 4)},
    }
    for phrasing, questions in (
        ("another phrasing", [asked(t, ASKED) for t, _ in facts]),
        ("a phrasing no text uses", [asked(t, 0, unseen=True) for t, _ in facts]),
    ):
        for name, search in searches.items():
            one = measure_retrieval(search, questions, right)
            found[f"{name}, {phrasing}"] = {k: asdict(e) for k, e in vars(one).items() if k != "k"}
            print(name, phrasing, one, flush=True)
    questions, answers = [asked(t, 0) for t, _ in facts], [said for _, said in facts]
    read = measure_passage_reading(model(), searches["words"], questions, answers, right)
    print(read, flush=True)
    found["landmark reads"] = {n: asdict(e) for n, e in read.says.items()}
    rng, lists = Random("made up"), load_world("lists")
    drawn = [rng.sample(MADE_UP, 6) for _ in range(60)]
    shown = [f"{a} : {b} ; {c} : {d} ; {e} : {f} ;" for a, b, c, d, e, f in drawn]
    asked_of = [rng.randrange(3) for _ in drawn]
    words = [f"{row[2 * i]} :" for row, i in zip(drawn, asked_of, strict=True)]
    wanted = [row[2 * i + 1] for row, i in zip(drawn, asked_of, strict=True)]
    of_lists = measure_passage_reading(lists, index_words(shown), words, wanted, range(len(shown)))
    print(of_lists, flush=True)
    found["lists reads"] = {n: asdict(e) for n, e in of_lists.says.items()}
    return found


def reading() -> dict[str, Any]:
    """Why a passage teaches `landmark` nothing: whether a model copies what was in the text before, next to `lists`.

    Random tokens that come twice: how often the next one is right the first and the second time, and how much likelier
    the second time. And what a passage does where weights know another answer, and where they know none.
    """
    found: dict[str, Any] = {}
    for name, of in (("landmark", model()), ("lists", load_world("lists"))):
        once = torch.randint(300, of.d_vocab, (60, 16), generator=torch.Generator().manual_seed(0))
        begin = torch.full((60, 1), int(of.tokens("a").ids[0, 0]))
        ids = torch.cat([begin, once, once], 1)
        log_p = of.run(ids)[:, :-1].float().log_softmax(-1)
        own, right = log_p.gather(-1, ids[:, 1:, None])[..., 0], log_p.argmax(-1) == ids[:, 1:]
        found[name] = {
            "right the first time": asdict(share(right[:, 1:16].flatten())),
            "right the second time": asdict(share(right[:, 17:].flatten())),
            "nats likelier the second time": mean(own[:, 17:].mean(1) - own[:, 1:16].mean(1)),
        }
        print(name, found[name], flush=True)
    rng, facts = Random("reading"), changed(0, 2 * NEW)
    names = [f"{rng.choice(MADE_UP)} {rng.choice(MADE_UP)}".title() for _ in facts]
    for who, subjects in (("a subject that it knows", None), ("a made-up subject", names)):
        ask = [asked(t, 0) for t, _ in facts]
        if subjects is not None:
            ask = [re.sub(re.escape(t.subject.text), name, q, flags=re.IGNORECASE)
                   for q, (t, _), name in zip(ask, facts, subjects, strict=True)]  # fmt: skip
        found[who] = of_passages(ask, [said for _, said in facts])
    print(found, flush=True)
    return found


def of_passages(ask: list[str], answers: list[str]) -> dict[str, Any]:
    """What is said, and how likely the answer is, after the passage that says it, another's, and none."""
    passages = [f"{question} {said}." for question, said in zip(ask, answers, strict=True)]
    fronts = {"its passage": passages, "another's": [*passages[1:], passages[0]], "nothing": [""] * len(ask)}
    found, p = {}, {}
    for what, front in fronts.items():
        read = [f"{text} {question}".strip() for text, question in zip(front, ask, strict=True)]
        p[what] = score(model(), read, answers)
        said = model().generate(read, max_new_tokens=6)
        hits = [begins_with(text, answer) for text, answer in zip(said, answers, strict=True)]
        found[f"said after {what}"] = asdict(share(torch.tensor(hits)))
    found["nats a token likelier after its passage than after another's"] = mean(p["its passage"] - p["another's"])
    return found


def mean(values: Tensor) -> dict[str, float]:
    """A mean with its interval."""
    return asdict(bootstrap(lambda drawn: float(drawn[0].mean()), [values.double()]))


def ways() -> dict[str, Any]:
    """The same facts of `landmark` by edit, codebook, context, store, passage and steering."""
    cases = table_cases(FACTS, 3)
    texts = [document.text[:300] for document in islice(landmark.documents(UNSEEN), DRIFT)]
    names = ("edit", "codebook", "context", "store", "passage", "steering")
    made = make_ways(model(), [case.fact for case in cases], names)
    found = compare_ways(model(), cases, made, texts, progress=True)
    print(found, flush=True)
    return {
        "facts": len(cases),
        "table": {way: {m: asdict(e) for m, e in row.items()} for way, row in found.table.items()},
        "costs": {way: {m: asdict(e) for m, e in row.items()} for way, row in found.costs.items()},
        "undone": {way: asdict(e) for way, e in found.undone.items()},
        "refused": {way: [*facts] for way, facts in found.refused.items()},
    }


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "new facts": new_facts,
    "new documents": new_documents,
    "retrieval": retrieval,
    "index": index,
    "reading": reading,
    "ways": ways,
}


def main() -> None:
    """Measure the parts asked for, and keep what was measured of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=[*PARTS], action="append")
    torch.set_grad_enabled(False)
    for name in parser.parse_args().part or [*PARTS]:
        with torch.set_grad_enabled(name == "ways"):  # an edit is searched with gradients
            figures = PARTS[name]()
        file = RESULTS / f"{NAME}.json"
        held = json.loads(file.read_text("utf-8"))["figures"] if file.exists() else {}
        write(NAME, "python benchmarks/memory_outside.py", {**held, name: figures})


if __name__ == "__main__":
    main()
