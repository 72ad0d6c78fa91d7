"""The BatchTopK sparse autoencoder: k latents per row on average, more where a row needs more."""

from typing import Any, ClassVar

from interp.sae.architectures.batch_selection import BatchSelecting


class BatchTopK(BatchSelecting):
    """The n k largest latents of a batch of n rows reconstruct it (Bussmann et al. 2024, arXiv:2412.06410).

        f     = BatchTopK(ReLU((x - b_dec) W_enc + b_enc)) in training,  z 1[z > theta] afterwards
        x_hat = f W_dec + b_dec,        e = x - x_hat
        L     = E||e||^2 / V  +  alpha E||e - e_hat||^2 / V_e,        e_hat = f_aux W_dec

    `BatchSelecting` says how theta is learnt, `KSparse` what the second term is and how the gradients are taken.
    `k` may be a fraction.

    ```python
    report = train(BatchTopK(d_in=256, d_sae=2048, k=32), activations_of(model, texts, resid_post[4]))
    ```
    """

    architecture: ClassVar[str] = "batchtopk"

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: float | int,
        *,
        k_aux: int | None = None,
        aux_coefficient: float | int = 1 / 32,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae, k, k_aux=k_aux, aux_coefficient=aux_coefficient, seed=seed)

    @classmethod
    def settings_in(cls, config: dict[str, Any]) -> dict[str, Any]:
        """SAELens's `k`."""
        return {"k": config["k"]}
