"""How much a feed-forward layer can be made to hold: `python benchmarks/editing_capacity.py`.

Of all changes ΔW of a layer's output projection, the one that best writes a random unit value r for each of N subjects
wherever their names were read: the least ‖K ΔW − R‖² + ρ tr(ΔWᵀ C ΔW), C over all other tokens. On documents that it
did not read: the share of r that is written where the subjects are named, and by how much what the layer writes
elsewhere moves, in units of ‖r‖². An editor reads a dozen texts of each subject; this reads hundreds of documents.
Writes benchmarks/results/editing_capacity.json.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import write  # noqa: E402
from hooks import Model, Site, load, stream  # noqa: E402
from hooks.site import mlp_act  # noqa: E402
from interp import landmark  # noqa: E402
from interp.landmark.writing import Document  # noqa: E402
from interp.memory import table_cases  # noqa: E402

SEED, BATCH = 777, 32
ELSEWHERE, OTHERWISE = -1, -2  # no mention of a subject; one by another name, which may move or not
RIDGES = tuple(float(10**half) for half in (0, 1, 2, 3))


@dataclass(frozen=True, eq=False)
class Keys:
    """Keys of one half of the documents: at names of subjects, whose they are, and the second moment of all others."""

    named: Float[Tensor, "n d_mlp"]
    whose: Int[Tensor, "n"]
    others: Float[Tensor, "d_mlp d_mlp"]
    n_others: int

    def but(self, n: int) -> tuple[Float[Tensor, "_ d_mlp"], Int[Tensor, "_"], Float[Tensor, "d_mlp d_mlp"]]:
        """Keys of the first `n` subjects, whose, and the mean second moment of all other tokens."""
        mine = self.whose < n
        rest = self.named[~mine]
        moment = (self.others + rest.T @ rest) / (self.n_others + len(rest))
        return self.named[mine], self.whose[mine], moment


@dataclass(frozen=True)
class CapacityRow:
    """What the best change of a layer holds of N subjects, on documents that it did not read.

    Attributes:
        layer: the layer.
        subjects: N.
        ridge: ρ.
        written: the mean share of its value that a subject's mention gets, r · ΔWᵀk.
        missed: the mean ‖ΔWᵀk − r‖² there.
        moved: the mean ‖ΔWᵀk‖² at all other tokens.
    """

    layer: int
    subjects: int
    ridge: float
    written: float
    missed: float
    moved: float


def keys(model: Model, documents: Sequence[Document], site: Site, number: dict[str, int]) -> Keys:
    """Read the keys of some documents. Cost: one forward pass over them, up to the site."""
    others = torch.zeros(model.d_mlp, model.d_mlp, dtype=torch.float64)
    named, whose, n_others = [], [], 0
    acts_of = stream(model, [d.text for d in documents], [site], batch_size=BATCH)
    for acts, part in zip(acts_of, _parts(documents), strict=True):
        k, tokens = acts[site].float(), acts.tokens
        assert tokens.offsets is not None
        owner = torch.full(tokens.ids.shape, ELSEWHERE)
        for row, document in enumerate(part):
            names = {(span.start, span.end) for span in document.spans if (span.kind, span.value) == ("form", "name")}
            for span in document.spans:
                if span.kind == "entity" and span.value in number:
                    named_so = (span.start, span.end) in names
                    owner[row, tokens.offsets[row, :, 1] == span.end] = number[span.value] if named_so else OTHERWISE
        at = tokens.content & (owner >= 0)
        rest = k[tokens.content & (owner == ELSEWHERE)]
        named.append(k[at])
        whose.append(owner[at])
        others += (rest.T @ rest).double()
        n_others += len(rest)
    return Keys(torch.cat(named).double(), torch.cat(whose), others, n_others)


def _parts(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    return (documents[i : i + BATCH] for i in range(0, len(documents), BATCH))


def held(layer: int, seen: Keys, unseen: Keys, n: int, d_model: int) -> Iterator[CapacityRow]:
    """The best change for the first `n` subjects, for each ridge; all of a subject's mentions weigh 1 together."""
    r = torch.nn.functional.normalize(torch.randn(n, d_model, generator=torch.Generator().manual_seed(SEED)), dim=1)
    r = r.double()
    k, whose, c = seen.but(n)
    weight = (1 / torch.bincount(whose, minlength=n).clamp_min(1))[whose][:, None]
    gram, written = k.T @ (weight * k), k.T @ (weight * r[whose])
    k, whose, elsewhere = unseen.but(n)
    for ridge in RIDGES:
        delta = torch.linalg.solve(gram + ridge * c + 1e-6 * c.trace() / len(c) * torch.eye(len(c)).double(), written)
        out, wanted = k @ delta, r[whose]
        yield CapacityRow(
            layer,
            n,
            ridge,
            float((out * wanted).sum(1).mean()),
            float((out - wanted).square().sum(1).mean()),
            float((delta * (elsewhere @ delta)).sum()),
        )


def main() -> None:
    """Measure each layer and number of subjects, and write the figures."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--model", default="landmark")
    asked.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2, 3])
    asked.add_argument("--subjects", type=int, nargs="+", default=[1, 10, 100, 320])
    asked.add_argument("--documents", type=int, default=4000)
    asked.add_argument("--name", default="editing_capacity", help="of the results")
    options = asked.parse_args()
    model = load(options.model)
    found = islice(landmark.documents(SEED), options.documents)
    room = model.hf.config.get_text_config().max_position_embeddings
    texts = [d for d in found if len(model.tokenizer(d.text).input_ids) < room]
    named = [case.fact.subject for case in table_cases(max(options.subjects))]
    number = {name: i for i, name in enumerate(named)}
    rows: list[CapacityRow] = []
    for layer in tqdm(options.layers, desc="layers"):
        seen, unseen = (keys(model, texts[i::2], mlp_act[layer], number) for i in (0, 1))
        for n in options.subjects:
            rows += held(layer, seen, unseen, n, model.d_model)
            for row in rows[-len(RIDGES) :]:
                print(row, flush=True)
    settings = {"model": model.fingerprint, "documents": options.documents, "seed": SEED}
    write(options.name, " ".join(["python", *sys.argv]), {"settings": settings, "rows": [*map(asdict, rows)]})


if __name__ == "__main__":
    main()
