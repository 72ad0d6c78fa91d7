"""The laws of every lens: a new lens is one line in the table."""

from collections.abc import Callable

import pytest
import torch

from hooks import Model, capture
from hooks.site import resid_post
from interp.common.unembedding import output_rows
from interp.lenses import JacobianLens, Lens, LogitLens, TunedLens

TEXTS = ["fog over", "a bay"]


def random_tuned(model: Model) -> TunedLens:
    g = torch.Generator().manual_seed(0)
    n, d = model.n_layers - 1, model.d_model
    return TunedLens(model, 0.1 * torch.randn(n, d, d, generator=g), torch.randn(n, d, generator=g))


def random_jacobian(model: Model) -> JacobianLens:
    g = torch.Generator().manual_seed(0)
    n, d = model.n_layers - 1, model.d_model
    return JacobianLens(model, {layer: torch.randn(d, d, generator=g) for layer in range(n)}, 1)


LENSES: dict[str, Callable[[Model], Lens]] = {
    "logit": LogitLens,
    "tuned": random_tuned,
    "tuned, untrained": TunedLens.identity,
    "jacobian": random_jacobian,
    "jacobian, identity": lambda m: JacobianLens(m, dict.fromkeys(range(m.n_layers - 1), torch.eye(m.d_model)), 1),
}
IDENTITIES = ("logit", "tuned, untrained", "jacobian, identity")


@pytest.fixture(params=LENSES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_at_the_last_layer_every_lens_says_what_the_model_says(name: str, model: Model) -> None:
    lens, last = LENSES[name](model), model.n_layers - 1
    h = capture(model, TEXTS, resid_post[last])[resid_post[last]]
    with torch.no_grad():
        torch.testing.assert_close(lens.read(h, last), model.run(TEXTS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", IDENTITIES)
def test_a_lens_that_changes_nothing_is_the_logit_lens(name: str, gpt2: Model) -> None:
    for layer in range(gpt2.n_layers):
        h = capture(gpt2, TEXTS, resid_post[layer])[resid_post[layer]]
        with torch.no_grad():
            assert torch.equal(LENSES[name](gpt2).read(h, layer), gpt2.unembed(h))


def test_what_a_lens_reads_of_a_token_does_not_depend_on_what_is_read_next_to_it(name: str, gpt2: Model) -> None:
    lens, h = LENSES[name](gpt2), capture(gpt2, TEXTS, resid_post[1])[resid_post[1]]
    with torch.no_grad():
        torch.testing.assert_close(lens.read(h, 1)[1, 2], lens.read(h[1, 2], 1), rtol=1e-4, atol=1e-5)


def test_a_step_along_a_tokens_direction_raises_what_its_row_reads_by_the_square_of_its_length(
    name: str, gpt2: Model
) -> None:
    """v = M^T U_t is the steepest way up: U_t . (transform(h + e v) - transform(h)) = e |v|^2."""
    lens = LENSES[name](gpt2)
    token = gpt2.tokens("g").ids[0, -1:]
    rows, _ = output_rows(gpt2, token)
    h = torch.randn(gpt2.d_model, generator=torch.Generator().manual_seed(1))
    for layer in range(gpt2.n_layers):
        v = lens.direction("g", layer)
        with torch.no_grad():
            rise = rows[0] @ (lens.transform(h + 0.5 * v.vector, layer) - lens.transform(h, layer))
        torch.testing.assert_close(rise, 0.5 * v.vector.square().sum(), rtol=1e-3, atol=1e-3)
        assert v.site == resid_post[layer] and v.fingerprint == gpt2.fingerprint


def test_the_rows_of_the_unembedding_are_its_weights(decoder: Model) -> None:
    rows, b = output_rows(decoder, torch.tensor([3, 200]))
    torch.testing.assert_close(rows, decoder.hf.get_output_embeddings().weight[[3, 200]].detach(), rtol=1e-4, atol=1e-5)
    assert float(b.abs().max()) < 1e-6


def test_a_stream_or_layer_that_a_lens_does_not_read_gives_no_number(name: str, gpt2: Model) -> None:
    lens = LENSES[name](gpt2)
    with pytest.raises(ValueError, match=r"does not read layer 3 of .*: take one of \[0, 1, 2\]"):
        lens.read(torch.zeros(2, gpt2.d_model), 3)
    with pytest.raises(ValueError, match="has width 32, got 31"):
        lens.read(torch.zeros(2, 31), 0)
    with pytest.raises(ValueError, match="'go' is 2 tokens"):
        lens.direction("go", 0)
