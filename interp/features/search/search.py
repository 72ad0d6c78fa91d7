"""Search by concept: which latent expresses it best, and should it be believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from jaxtyping import Bool, Float
from torch import Tensor

from hooks import Direction, Model, Site
from hooks.border import Natural
from hooks.errors import InvalidArgument
from interp.common.statistics import Estimate
from interp.features.reading import describe_sites, encode_again, encode_texts, find_sites
from interp.features.search.baselines import score_baselines
from interp.features.search.concept import Concept, split_by_group
from interp.features.search.group import Group, find_group
from interp.features.search.ranking import Entries, Ranking, Stability, compare_halves, pool_entries
from interp.features.search.rows import Unit, by_text
from interp.features.search.score import Evaluation, Score, compare_all_scores
from interp.sae import SAE

if TYPE_CHECKING:
    from pandas import DataFrame

GROUP = 3  # latents at most that may cover a concept together


@final
@dataclass(frozen=True)
class SearchResult:
    """The latents that express a concept best, in the order of their F1 on the searched half, next to probes.

    `p_value` is the chance of a best latent as good as this on the searched half, were the labels exchanged at random
    and all latents searched again; `null_f1` holds the best F1 of each of those searches. `searched` and `reported`
    count the rows of each half: all, and positive. `group` is up to three latents that do better together, if any do;
    `against` is the F1 of each baseline less the best latent's, on the same texts, in intervals that hold all baselines
    at once (`compare_all_scores`); `stability` says what searching the
    other half would have found. `site` is the first of `sites`, which are several where latents of several layers were
    searched.
    """

    concept: str
    unit: str
    sites: tuple[Site, ...]
    latents: tuple[Score, ...]
    baselines: tuple[Score, ...]
    p_value: float
    null_f1: Float[Tensor, "n"]
    searched: tuple[int, int]
    reported: tuple[int, int]
    group: Group | None = None
    stability: Stability | None = None
    against: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def site(self) -> Site:
        """What was searched reads here, or here first."""
        return self.sites[0]

    def __repr__(self) -> str:
        d, at = self.finding.held_out, describe_sites(self.sites)
        return f"SearchResult({self.concept!r} at {at}: {self.finding.name}, F1 {d.f1:.3f}, p {self.p_value:.3f})"

    def to_pandas(self) -> "DataFrame":
        """A row for each latent, the group if there is one, and each control, with what it reaches on each half."""
        from pandas import DataFrame

        scores = [*self.latents, *([self.group.score] if self.group else []), *self.baselines]
        return DataFrame([score.as_row() for score in scores])

    @property
    def best(self) -> Score:
        """The latent that was best on the searched half."""
        return self.latents[0]

    @property
    def finding(self) -> Score:
        """What to go on with: the group of latents, which is there only where it beats the best one, or that one."""
        return self.best if self.group is None else self.group.score

    @property
    def found_latents(self) -> tuple[int, ...]:
        """The latents of the finding, the one that is best alone first."""
        alone = () if self.best.latent is None else (self.best.latent,)
        return alone if self.group is None else self.group.latents

    def __str__(self) -> str:
        head = (
            f"'{self.concept}' at {describe_sites(self.sites)}, by {self.unit}: searched on {self.searched[0]:,} rows "
            f"({self.searched[1]:,} positive), whose F1 gives the order, reported on {self.reported[0]:,} "
            f"({self.reported[1]:,} positive)"
        )
        tail = (
            f"best latent against {len(self.null_f1)} searches with exchanged labels: p = {self.p_value:.3f} "
            f"(searched F1 {self.best.searched_f1:.3f}, theirs at most {float(self.null_f1.max()):.3f})"
        )
        rivals = "; ".join(f"{name} {e:+.3f}" for name, e in self.against.items())
        more = [f"F1 less the best latent's, on the same texts: {rivals}"] if rivals else []
        more += [str(part) for part in (self.group, self.stability) if part is not None]
        return "\n".join([head, *map(str, self.latents), *map(str, self.baselines), *more, tail])


def search(
    sae: SAE,
    model: Model,
    concept: Concept,
    *,
    unit: Unit = by_text,
    top: int = 10,
    permutations: int = 200,
    seed: Natural = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> SearchResult:
    """Rank all latents by F1 on one half of a concept's texts, and report the best on the other half.

    The halves share no group. Each latent's threshold is the one with the highest F1 on the searched half. A row is a
    text, scored by its highest token, or with `unit=by_token` a token. As controls a difference of means and
    a logistic probe are fitted to the searched half's tokens (the last token of each mention against all others, or
    every token with its text's label where there are no mentions) and then treated the same, as are the best of the
    first ten principal components and saying yes to every row. All are compared with the best latent on the same
    texts, in intervals that hold all the differences at once.

    Cost: one forward pass per text up to the autoencoder's site.

    Raises:
        InvalidArgument: the autoencoder belongs to another model, or the concept leaves a half without one of its
        labels.

    Examples:
        ```python
        found = search(sae, model, Concept("Golden Gate Bridge", texts, labels, mentions))
        print(found)                               # the ranking, with its controls
        bridge = found.best.direction
        ```
    """
    (found,) = search_many(
        [sae],
        model,
        concept,
        unit=unit,
        top=top,
        permutations=permutations,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    return found


def search_many(
    saes: Sequence[SAE],
    model: Model,
    concept: Concept,
    *,
    unit: Unit = by_text,
    top: int = 10,
    permutations: int = 200,
    seed: Natural = 0,
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[SearchResult, ...]:
    """The same search in several autoencoders of one site, on the same halves, from one reading of the texts.

    Cost: what one search does, and an encoding of every token for each further autoencoder.

    Raises:
        InvalidArgument: no autoencoders, or autoencoders that read at different sites; otherwise as `search`.

    Examples:
        ```python
        [found.best.held_out.f1 for found in search_many(seeds, model, concept)]
        ```
    """
    if top < 1 or permutations < 1:
        raise InvalidArgument(f"top is {top} and permutations {permutations}; both must be at least 1")
    sites = sorted({describe_sites(find_sites(sae, model)) for sae in saes})
    if len(sites) != 1:
        raise InvalidArgument(
            f"the {len(saes)} autoencoders read at {sites or 'no site'}: give at least one, all of a site"
        )
    half = split_by_group(concept, seed)
    reading = encode_texts(saes[0], model, concept.texts, batch_size=batch_size, progress=progress)
    rows = unit(reading, concept)
    bench = Evaluation(concept, rows, half[rows.text], seed)
    baselines = score_baselines(saes[0], model, reading, bench, half[reading.text])
    readings = (reading if sae is saes[0] else encode_again(sae, reading) for sae in saes)
    return tuple(
        _rank(sae, pool_entries(coded_so, rows), bench, baselines, (top, permutations))
        for sae, coded_so in zip(saes, readings, strict=True)
    )


def _rank(
    sae: SAE, entries: Entries, bench: Evaluation, baselines: tuple[Score, ...], sizes: tuple[int, int]
) -> SearchResult:
    """The latents of one autoencoder in their order, with the null of searching them all."""
    (top, permutations), y = sizes, bench.rows.y
    ranking = Ranking(entries.at(bench.searched), sae.d_sae)
    f1, threshold = ranking.best(y, bench.counts(bench.searched)[1])
    null = bench.null(ranking, permutations)
    latents = [
        bench.score(f"latent {i}", entries.column(i, len(y)), float(threshold[i]), i, _direction(sae, i))
        for i in f1.argsort(descending=True, stable=True)[:top].tolist()
    ]
    names = [one.name for one in baselines]
    return SearchResult(
        concept=bench.concept.name,
        unit=bench.rows.unit,
        sites=sae.read_sites,
        latents=tuple(latents),
        group=find_group(sae, bench, entries, (f1, threshold), GROUP),
        stability=compare_halves(f1, Ranking(entries.at(bench.reported), sae.d_sae).best(*_other(bench))[0]),
        baselines=baselines,
        p_value=(1 + int((null >= f1.max()).sum())) / (1 + permutations),
        null_f1=null,
        searched=bench.counts(bench.searched),
        reported=bench.counts(bench.reported),
        against=dict(zip(names, compare_all_scores(baselines, latents[0], seed=bench.seed), strict=True)),
    )


def _other(bench: Evaluation) -> tuple[Bool[Tensor, "n"], int]:
    return bench.rows.y, bench.counts(bench.reported)[1]


def _direction(sae: SAE, latent: int) -> Direction | None:
    return sae.direction(latent) if float(sae.max_activation[latent]) > 0 else None
