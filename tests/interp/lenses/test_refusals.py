"""What reads a logit off the last stream refuses a model whose logits are read off something else."""

from collections.abc import Callable

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from hooks import Model, load
from hooks.errors import InvalidArgument
from hooks.site import resid_post
from interp.circuits.heads import copying
from interp.directions import lens_row, unembedding
from interp.lenses import attribute

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = torch.tensor([[7, 8, 9, 10]])


@pytest.fixture(scope="module")
def mixed() -> Model:
    """Its stream is four copies, and its last norm reads a mixture of them."""
    return load(tiny_model("hy_v4", "HYV4ForCausalLM"))


READERS: dict[str, Callable[[Model], object]] = {
    "attribute": lambda model: attribute(model, TEXTS, 5),
    "copying": copying,
    "lens_row": lambda model: lens_row(model, 5, resid_post[0], ["fog"]),
    "unembedding": lambda model: unembedding(model, 5, resid_post[0], ["fog"]),
}


@pytest.mark.parametrize("name", READERS)
def test_a_model_whose_logits_are_read_off_something_else_is_refused(name: str, mixed: Model) -> None:
    with pytest.raises(InvalidArgument, match="refuses unembed"):
        READERS[name](mixed)
