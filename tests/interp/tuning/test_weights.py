"""The weight difference of a planted change is that change: its size, its rank, and what it writes."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from hooks import load
from hooks.errors import UnknownName
from interp.tuning import ModelPair, find_written_words, measure_weight_difference


def test_a_planted_change_of_rank_one_is_found_with_its_size_and_direction_and_no_other() -> None:
    base, model = load("landmark"), load("landmark")
    row = base.hf.transformer.wte.weight.detach()[int(base.tokens(" sea").ids[0, 1])]
    row = row - row.mean()  # the final norm takes the mean away
    key = torch.randn(1024, generator=torch.Generator().manual_seed(0))
    u = row / row.norm()
    model.hf.transformer.h[2].mlp.c_proj.weight.data += 3.0 * torch.outer(key / key.norm(), u)
    found = measure_weight_difference(ModelPair(base, load(model.hf, model.tokenizer)))
    one = found["mlp.2"]
    assert float(one.singular[0]) == pytest.approx(3.0, rel=1e-3) and float(one.singular[1]) < 1e-3
    assert one.rank == pytest.approx(1.0, abs=1e-4) and one.random_rank > 100
    assert abs(float(cosine_similarity(found.direction("mlp.2").vector, u, dim=0))) > 0.9999
    assert [change.name for change in found.changes if change.relative > 0] == ["mlp.2"]
    assert " sea" in find_written_words(base, found, "mlp.2")
    assert len(found.to_pandas()) == 16 and "mlp.2" in repr(found)
    with pytest.raises(UnknownName, match=r"nearest is 'mlp\.7'"):
        found["mlp.77"]
