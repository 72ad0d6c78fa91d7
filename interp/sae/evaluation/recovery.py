"""What the model loses when the reconstruction replaces the activations at its site."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from hooks import Intervention, Model, Site, Tokens, intervene, stream
from hooks.border import Count
from hooks.capture import Data
from hooks.errors import InvalidArgument
from hooks.interventions import mean, zero
from interp.sae.architectures.sae import SAE
from interp.sae.evaluation.splice import check_fits, splice


@dataclass(frozen=True)
class Recovery:
    """Next-token cross-entropy (nats per token) as the model is, with the reconstruction, and with two ablations.

    A share recovered is NaN where the ablation costs nothing, as there is nothing to recover.
    `kl_sae`, `kl_zero` and `kl_mean` are KL(model, changed model), nats per token. All over `tokens` predictions; at
    BOS and padding nothing is changed and nothing counted.
    """

    ce_clean: float
    ce_sae: float
    ce_zero: float
    ce_mean: float
    kl_sae: float
    kl_zero: float
    kl_mean: float
    tokens: int

    @property
    def of_zero(self) -> float:
        """(CE_zero - CE_sae) / (CE_zero - CE_clean): 1 is no loss. Near 1 for almost anything, early in the stream."""
        return _share_recovered(self.ce_clean, self.ce_sae, self.ce_zero)

    @property
    def of_mean(self) -> float:
        """(CE_mean - CE_sae) / (CE_mean - CE_clean): against the activations' mean, the harder of the two."""
        return _share_recovered(self.ce_clean, self.ce_sae, self.ce_mean)

    @property
    def kl_of_zero(self) -> float:
        """1 - KL_sae / KL_zero."""
        return _share_recovered(0.0, self.kl_sae, self.kl_zero)

    @property
    def kl_of_mean(self) -> float:
        """1 - KL_sae / KL_mean."""
        return _share_recovered(0.0, self.kl_sae, self.kl_mean)

    def __str__(self) -> str:
        return (
            f"cross-entropy {self.ce_clean:.3f} -> {self.ce_sae:.3f} nats with the reconstruction "
            f"({_show_share(self.of_mean, 'mean')}, {_show_share(self.of_zero, 'zero')}), "
            f"KL {self.kl_sae:.3f}, over {self.tokens:,} tokens without BOS and padding"
        )


def _share_recovered(clean: float, changed: float, ablated: float) -> float:
    return (ablated - changed) / (ablated - clean) if ablated > clean else math.nan


def _show_share(share: float, ablation: str) -> str:
    return (
        f"{ablation} ablation costs nothing here"
        if math.isnan(share)
        else f"{share:.1%} of {ablation} ablation recovered"
    )


@torch.no_grad()
def recovery(sae: SAE, model: Model, data: Data, *, batch_size: Count = 32, progress: bool = True) -> Recovery:
    """Measure what a model's predictions lose by the reconstruction, next to zero and mean ablation of the same tokens.

    Cost: six forward passes per batch: two up to the site, for the mean and for the tokens, and four whole.

    Raises:
        InvalidArgument: the autoencoder does not fit the model, the model does not predict the next token (BERT), or no
            text has two tokens.

    Examples:
        ```python
        print(recovery(sae, model, held_out_texts))
        ```
    """
    site = check_fits(sae, model)
    if not model.hf.can_generate():
        raise InvalidArgument(
            f"{type(model.hf).__name__} does not predict the next token, so its cross-entropy there says nothing: "
            "take a causal language model"
        )
    sums, n = 0, 0
    for acts in stream(model, data, [site], batch_size=batch_size, progress=progress):
        rows = acts.flat(site)
        sums, n = sums + rows.double().sum(0), n + len(rows)
    if not n:
        raise InvalidArgument("there are no tokens to measure on: the texts hold special tokens only")
    average = torch.as_tensor(sums / n)
    changes = {"sae": splice(sae), "zero": zero(), "mean": mean(average.to(model.dtype))}
    totals = torch.zeros(7, dtype=torch.float64)
    count = 0
    for acts in stream(model, data, [site], batch_size=batch_size, progress=progress):
        part, counted = _batch(model, acts.tokens, site, changes)
        totals, count = totals + part, count + counted
    if not count:
        raise InvalidArgument("there is nothing to predict: no text has two tokens that are not special")
    ce_clean, ce_sae, ce_zero, ce_mean, kl_sae, kl_zero, kl_mean = (totals / count).tolist()
    return Recovery(ce_clean, ce_sae, ce_zero, ce_mean, kl_sae, kl_zero, kl_mean, count)


def _batch(
    model: Model, tokens: Tokens, site: Site, changes: dict[str, Intervention]
) -> tuple[Float[Tensor, "n"], int]:
    """Summed cross-entropies (clean, sae, zero, mean) and divergences (sae, zero, mean) of one batch."""
    answered = tokens.content[:, :-1] & tokens.content[:, 1:]
    answers = tokens.ids[:, 1:][answered]
    clean = _predict(model, tokens, answered)
    entropies, divergences = [_entropy(clean, answers)], []
    for change in changes.values():
        with intervene(model, {site: change}):
            changed = _predict(model, tokens, answered)
        entropies.append(_entropy(changed, answers))
        divergences.append(kl_div(changed, clean, reduction="sum", log_target=True))
    return torch.stack([*entropies, *divergences]).cpu(), int(answered.sum())


def _predict(model: Model, tokens: Tokens, answered: Bool[Tensor, "batch pos"]) -> Float[Tensor, "n vocab"]:
    """Log-probabilities of the next token, in float64, where both tokens are content."""
    return log_softmax(model.run(tokens)[:, :-1][answered].double(), dim=-1)


def _entropy(logs: Float[Tensor, "n vocab"], answers: Tensor) -> Float[Tensor, ""]:
    return -logs.gather(1, answers[:, None]).sum()
