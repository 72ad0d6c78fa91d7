"""An index on disk: `latents.parquet`, `examples.parquet` and `coactivation.parquet`, each sorted by latent."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hooks import Model
from hooks.disk import write_file
from hooks.pieces import BROKEN, piece, pieces
from interp.features.evidence import PROMOTED
from interp.features.index.accumulator import Accumulator
from interp.features.index.top_examples import TopExamples
from interp.features.logits import add_layers, measure_logit_effects, promotes_tokens
from interp.sae import SAE

TABLES = ("latents", "examples", "coactivation")
BLOCK = 256  # latents written at once
WORDS = 20  # tokens by activation mass


def write_tables(folder: Path, gathered: Accumulator, sae: SAE, model: Model) -> None:
    """Write the three tables, block by block, so that memory stays that of a block.

    Examples:
        ```python
        write_tables(folder, gathered, sae, model)
        ```
    """
    said = _words(model)
    for name, rows in (("latents", _latents), ("examples", _examples), ("coactivation", _partners)):
        held = gathered.own.ranges
        blocks = (run[start : start + BLOCK] for run in held for start in range(0, len(run), BLOCK))
        with write_file(folder / f"{name}.parquet") as partial:
            _write_table(partial, name, (list(rows(block, gathered, sae, model, said)) for block in blocks))


def join_tables(folder: Path, parts: Sequence[Path]) -> None:
    """Write the three tables of which processes wrote each the rows of its latents, row group by row group, in order.

    Examples:
        ```python
        join_tables(folder, [folder / "unfinished-0", folder / "unfinished-1"])
        ```
    """
    from pyarrow import parquet

    for name in TABLES:
        with (
            write_file(folder / f"{name}.parquet") as partial,
            parquet.ParquetWriter(partial, _schema(name)) as writer,
        ):
            held = [parquet.ParquetFile(part / f"{name}.parquet") for part in parts]
            groups = sorted((first, *where) for where, first in _first_latents(held))
            for _, part, group in groups:
                writer.write_table(held[part].read_row_group(group))


def _first_latents(held: Sequence[Any]) -> Iterator[tuple[tuple[int, int], int]]:
    """The first latent of each row group that has rows, by the numbers of its part and of the group."""
    for part, file in enumerate(held):
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            if about.num_rows:
                yield (part, group), about.column(0).statistics.min


def _write_table(path: Path, name: str, blocks: Iterable[list[dict[str, Any]]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetWriter(path, _schema(name)) as writer:
        for rows in blocks:
            writer.write_table(pa.Table.from_pylist(rows, schema=_schema(name)))


def _words(model: Model) -> Any:
    @cache
    def word(token: int) -> str:
        return piece(model.tokenizer, token)

    return word


def _latents(block: range, gathered: Accumulator, sae: SAE, model: Model, word: Any) -> Iterator[dict[str, Any]]:
    tally = gathered.tally
    effect = _promoted_rows(sae, model, block) if promotes_tokens(model, sae.sites[-1]) else None
    for row, i in enumerate(block):
        j = gathered.own.local(i)
        fired, total = int(tally.fired[j]), float(tally.total[j])
        tokens, mass = gathered.tokens.of(j)
        yield {
            "latent": i,
            "fired": fired,
            "firing_rate": fired / tally.tokens,
            "mean": total / max(1, fired),
            "second_moment": float(tally.squares[j]) / max(1, fired),
            "largest": float(tally.largest[j]),
            "counts": tally.counts[j].tolist(),
            "top": float(tally.top[j]),
            "positions": tally.positions[j].tolist(),
            "tokens": [word(t) for t in tokens[:WORDS].tolist()],
            "token_mass": (mass[:WORDS] / max(total, 1e-300)).tolist(),
            "token_slack": float(gathered.tokens.slack[j]) / max(total, 1e-300),
            "partner_slack": _partner_slack(gathered, i),
            **{name: [] if effect is None else list(effect[row][name]) for name in _EFFECT},
        } | ({} if effect is None else {n: [word(t) for t in effect[row][n]] for n in ("promoted", "suppressed")})


_EFFECT = ("promoted", "promoted_logits", "suppressed", "suppressed_logits")


def _promoted_rows(sae: SAE, model: Model, block: range) -> list[dict[str, list[Any]]]:
    local, _ = sae.own.locate(torch.arange(block.start, block.stop, device=sae.W_dec.device))
    logits = measure_logit_effects(model, add_layers(sae._rows(local)))
    up, down = (logits.topk(min(PROMOTED, logits.shape[-1]), largest=largest) for largest in (True, False))
    parts = (part.tolist() for part in (up.indices, up.values, down.indices, down.values))
    return [dict(zip(_EFFECT, four, strict=True)) for four in zip(*parts, strict=True)]


def _examples(block: range, gathered: Accumulator, sae: SAE, model: Model, word: Any) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    for i in block:
        for kind, kept in (("top", gathered.top), ("sampled", gathered.sampled)):
            yield from _example_rows(i, gathered.own.local(i), kind, kept, model, word)


def _example_rows(
    latent: int, j: int, kind: str, kept: TopExamples, model: Model, word: Any
) -> Iterator[dict[str, Any]]:
    used = (kept.text[j] >= 0).nonzero().flatten()
    by_text = used[kept.text[j][used].argsort()]
    falling = by_text[kept.value[j][by_text].argsort(descending=True, stable=True)].tolist()
    for rank, slot in enumerate(falling):
        ids, acts = kept.ids[j, slot], kept.acts[j, slot]
        inside = ids >= 0
        yield {
            "latent": latent,
            "kind": kind,
            "rank": rank,
            "text": int(kept.text[j, slot]),
            "peak": int(inside[: len(ids) // 2].sum()),
            "tokens": _spell(model, ids[inside].tolist(), word),
            "activations": acts[inside].tolist(),
        }


def _spell(model: Model, ids: list[int], word: Any) -> list[str]:
    """The tokens' pieces; token by token where none is part of a character, which is quicker."""
    words = [word(token) for token in ids]
    return list(pieces(model.tokenizer, ids)) if any(BROKEN in piece for piece in words) else words


def _partner_slack(gathered: Accumulator, i: int) -> float:
    """By how much a Jaccard index of a latent can be too small, as its counts of pairs may be by the slack."""
    j = gathered.own.local(i)
    others, together = gathered.partners.of(j)
    either = (gathered.paired[i] + gathered.paired[others]).double() - together
    slack = gathered.partners.slack[j]
    too_small = (together + slack) / (either - slack).clamp(min=1) - together / either.clamp(min=1)
    return float(too_small.clamp(max=1).max()) if len(others) else 0.0


def _partners(block: range, gathered: Accumulator, sae: SAE, model: Model, word: Any) -> Iterator[dict[str, Any]]:  # noqa: ARG001
    for i in block:
        others, counts = gathered.partners.of(gathered.own.local(i))
        for other, together in zip(others.tolist(), counts.tolist(), strict=True):
            either = int(gathered.paired[i] + gathered.paired[other]) - together
            yield {"latent": i, "other": other, "together": together, "jaccard": together / max(1.0, either)}


def _schema(name: str) -> Any:
    import pyarrow as pa

    words, numbers = pa.list_(pa.string()), pa.list_(pa.float32())
    of = {
        "latents": {
            "latent": pa.int32(),
            "fired": pa.int64(),
            **dict.fromkeys(("firing_rate", "mean", "second_moment", "largest", "top"), pa.float64()),
            "counts": pa.list_(pa.int64()),
            "positions": pa.list_(pa.int64()),
            "tokens": words,
            "token_mass": numbers,
            "token_slack": pa.float64(),
            "partner_slack": pa.float64(),
            "promoted": words,
            "promoted_logits": numbers,
            "suppressed": words,
            "suppressed_logits": numbers,
        },
        "examples": {
            "latent": pa.int32(),
            "kind": pa.string(),
            "rank": pa.int32(),
            "text": pa.int64(),
            "peak": pa.int32(),
            "tokens": words,
            "activations": numbers,
        },
        "coactivation": {
            "latent": pa.int32(),
            "other": pa.int32(),
            "together": pa.float64(),
            "jaccard": pa.float64(),
        },
    }
    return pa.schema(list(of[name].items()))
