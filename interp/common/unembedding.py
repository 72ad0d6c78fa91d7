"""The rows of the unembedding: which direction of the normalised stream each token's logit reads."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks import Model
from hooks.errors import InvalidArgument
from hooks.unembed import unembed


@torch.no_grad()
def check_unembeds(model: Model) -> None:
    """Raise where the logits of a model are not read off its last stream.

    Raises:
        InvalidArgument: they are not, or the model has no output embeddings.

    Cost: one token through the unembedding.

    Examples:
        ```python
        check_unembeds(model)
        ```
    """
    model.unembed(torch.zeros(1, model.d_model, dtype=model.dtype, device=model.device))


def output_rows(model: Model, tokens: Int[Tensor, "n"]) -> tuple[Float[Tensor, "n d_model"], Float[Tensor, "n"]]:
    """The rows U_t and biases b_t of logit_t = U_t . y + b_t, y being the stream after the final norm.

    Where logits are capped, those before the cap.

    Raises:
        InvalidArgument: token ids outside the vocabulary, logits that are not read off the last stream, or a head that
            is no linear map of the stream (BERT's).

    Examples:
        ```python
        output_rows(model, torch.tensor([7]))[0]
        ```
    """
    if not bool(((tokens >= 0) & (tokens < model.d_vocab)).all()):
        raise InvalidArgument(
            f"token ids are in 0..{model.d_vocab - 1}, got {tokens.tolist()}: tokenise with model.tokens"
        )
    check_unembeds(model)
    with torch.inference_mode(False), torch.enable_grad():
        y = torch.zeros(model.d_model, dtype=model.dtype, device=model.device, requires_grad=True)
        said = unembed(model.hf, None, y[None], model.head)[0]
        rows = torch.stack([torch.autograd.grad(said[t], y, retain_graph=True)[0] for t in tokens.tolist()])
    with torch.no_grad():
        y = torch.linspace(-1, 1, model.d_model, dtype=model.dtype, device=model.device)
        y = y / (rows @ y).abs().max()  # logits of 1 at most, where no cap bends them
        moved, linear = unembed(model.hf, None, y[None], model.head)[0, tokens] - said[tokens], rows @ y
    if float((moved - linear).abs().max()) > 0.02:
        raise InvalidArgument(
            f"the head of {type(model.hf).__name__} is no linear map of the stream, so its tokens have no directions: "
            "take a causal language model"
        )
    return rows, said[tokens].detach()
