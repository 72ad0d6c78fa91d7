"""Along which directions the model would name a concept more often, read off continuations already sampled."""

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Model, Tokens, capture_gradients
from hooks.errors import InvalidArgument
from interp.steering.effects import Effect
from interp.steering.fluency import log_p_of, of_continuation
from interp.steering.steer import steer


def naming_slope(
    model: Model, effect: Effect, *, temperature: float | int, batch_size: int = 64
) -> Float[Tensor, "d_model"]:
    """∇P = E[(named − P) ∇_v log p_v(text | prompt)], P the naming rate where v is added to every token.

    The score-function estimate (Williams 1992) over the effect's own continuations, so that a little more of a
    direction u, ε u, changes P by ε u·∇P: one backward pass ranks all latents. Its noise falls with the square root of
    their number. That a continuation ended is left out.

    Errors: `ValueError` for a temperature that is not above 0, or that of another model. Cost: a forward and a backward
    pass over the continuations, down to the effect's site.

    ```python
    (sae.W_dec @ naming_slope(model, effect, temperature=1.0)).abs().topk(10)
    ```
    """
    if not temperature > 0:
        raise InvalidArgument(f"temperature={temperature}: give the one, above 0, that the continuations were drawn at")
    said = effect.condition
    above = (said.named.float() - said.named.float().mean()) / len(said.texts)
    slope = torch.zeros(model.d_model)
    for start in range(0, len(said.texts), batch_size):
        part = slice(start, start + batch_size)
        prompts = said.prompts[part]
        tokens = model.tokens([a + b for a, b in zip(prompts, said.texts[part], strict=True)])
        new = of_continuation(tokens, [*map(len, prompts)])

        def weighted(logits: Tensor, of: Tokens = tokens, new: Tensor = new, above: Tensor = above[part]) -> Tensor:
            return log_p_of(logits, of, new, temperature) @ above.to(logits.device)

        site = effect.direction.site
        with steer(model, effect.direction, effect.dose):
            found = capture_gradients(model, tokens, [site], weighted)
        at = tokens.content.to(found.gradients[site].device)
        slope += found.gradients[site][at].float().sum(0).cpu()
    return slope
