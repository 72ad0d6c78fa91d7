"""The Matryoshka BatchTopK sparse autoencoder: nested dictionaries, each of which must reconstruct by itself."""

from collections.abc import Sequence
from typing import Any, ClassVar

from hooks.errors import InvalidArgument
from interp.sae.architectures.batch_topk import BatchKSparse


class MatryoshkaBatchTopK(BatchKSparse):
    """The first m latents alone must reconstruct, for several m at once (Bussmann et al. 2025, arXiv:2503.17547).

        f     = BatchTopK(ReLU((x - b_dec) W_enc + b_enc)) in training,  z 1[z > theta] afterwards
        x_m   = f_{1..m} W_dec,1..m + b_dec,      e = x - x_{d_sae}
        L     = sum_m E||x - x_m||^2 / V  +  alpha E||e - e_hat||^2 / V_e,        e_hat = f_aux W_dec

    so that general latents, which come first, are not hollowed out by special ones: there is less absorption.
    `widths` are the prefixes m, rising; d_sae is added where it is missing. Losses of prefixes are summed, as in
    SAELens. The rest is as for `BatchTopK`.

    ```python
    train(MatryoshkaBatchTopK(d_in=256, d_sae=2048, k=32, widths=(128, 512, 2048)), source)
    ```
    """

    architecture: ClassVar[str] = "matryoshka_batchtopk"

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        k: float | int,
        widths: Sequence[int],
        *,
        k_aux: int | None = None,
        aux_coefficient: float | int = 1 / 32,
        seed: int = 0,
    ) -> None:
        super().__init__(d_in, d_sae, k, k_aux=k_aux, aux_coefficient=aux_coefficient, seed=seed)
        rising = (*widths,) if widths and widths[-1] == d_sae else (*widths, d_sae)
        if any(a >= b for a, b in zip((0, *rising), rising, strict=False)):
            raise InvalidArgument(
                f"widths are {tuple(widths)}; they must rise from at least 1 to at most d_sae = {d_sae}"
            )
        self.widths = rising

    def settings(self) -> dict[str, Any]:
        """As for `BatchTopK`, and `widths`."""
        return super().settings() | {"widths": list(self.widths)}
