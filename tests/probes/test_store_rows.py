"""A store as a source of probes: the same as the rows in memory, and refused where labels do not fit it."""

from pathlib import Path

import pytest
import torch
from sklearn.base import clone

from hooks import Model, capture
from hooks.position import last
from hooks.site import resid_post
from hooks.store import ActivationStore, harvest, separate
from probes import LDA, LEACE, Logistic, Multinomial, Ridge, StoreBatches, gather, read_cells

TEXTS = ["fog over the bay", "the fog is cold", "grey fog", "a bridge of red steel", "towers"]


@pytest.fixture
def store(gpt2: Model, tmp_path: Path) -> ActivationStore:
    return harvest(
        gpt2, TEXTS, [resid_post[0], resid_post[1]], tmp_path / "store", packing=separate(), dtype=torch.float32
    )


@pytest.mark.parametrize("probe", [LDA(shrinkage=0.5), Logistic()], ids=lambda p: type(p).__name__)
def test_a_probe_of_a_store_is_the_probe_of_its_rows(probe: LDA, store: ActivationStore, gpt2: Model) -> None:
    x = capture(gpt2, TEXTS, [resid_post[1]]).flat(resid_post[1])
    y = torch.arange(len(x)) % 3 == 0
    keep = torch.arange(len(x)) % 5 != 0
    whole = probe.fit(x[keep], y[keep]).coef_.clone()
    found = probe.fit_batches(StoreBatches(store, resid_post[1], y, keep))
    assert torch.allclose(found.coef_, whole, atol=1e-3)
    assert (found.direction_.site, found.direction_.fingerprint) == (resid_post[1], gpt2.fingerprint)


def test_numbers_classes_and_concepts_are_learnt_from_a_store_too(store: ActivationStore, gpt2: Model) -> None:
    x = capture(gpt2, TEXTS, [resid_post[1]]).flat(resid_post[1])
    number = torch.arange(float(len(x)))
    for probe, y in ((Ridge(), number), (Multinomial(), number.long() % 3), (LEACE(), number > 9)):
        whole = clone(probe).fit(x, y)
        parts = clone(probe).fit_batches(StoreBatches(store, resid_post[1], y))
        said = (p.transform(x) if isinstance(p, LEACE) else p.predict(x).double() for p in (whole, parts))
        assert torch.allclose(*said, atol=1e-2)


def test_cells_of_a_store_are_those_of_the_model(store: ActivationStore, gpt2: Model) -> None:
    sites = [resid_post[0], resid_post[1]]
    ours, theirs = read_cells(store, sites, {last: store.documents[1:] - 1}), gather(gpt2, TEXTS, sites, [last])
    assert ours.fingerprint == theirs.fingerprint
    assert list(ours.rows) == list(theirs.rows)
    for cell, rows in theirs.rows.items():
        assert torch.allclose(ours.rows[cell], rows, atol=1e-4)


def test_labels_that_are_not_one_per_row_are_refused(store: ActivationStore) -> None:
    with pytest.raises(ValueError, match=f"the store has {len(store)} rows, there are 3 labels"):
        StoreBatches(store, resid_post[1], torch.tensor([True, False, True]))
    with pytest.raises(KeyError, match="does not hold resid_post.2"):
        StoreBatches(store, resid_post[2], torch.zeros(len(store), dtype=torch.bool))
