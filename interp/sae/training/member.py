"""An autoencoder among those that are trained in one pass: which columns it reads, and how fast it learns."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site
from hooks.errors import InvalidArgument, UnknownName, nearest
from interp.sae.architectures.sae import SAE, check_positive, convert_rows
from interp.sae.data.normalisation import Normalisation
from interp.sae.data.source import Source

BELONGINGS: Final = ("sites", "normalisation", "model_name", "fingerprint", "dataset")


@final
@dataclass(frozen=True, eq=False)
class Member:
    """One autoencoder of `train_many`, with what is its own.

    `site` says which columns of the source it reads: one site, or several side by side (a transcoder's two); the
    whole row where it is None. `normalisation` is of these columns, and `lr` as for `train`.

    Examples:
        ```python
        Member(TopK(model.d_model, 2048, k=32), resid_post[4], lr=1e-3)
        ```
    """

    sae: SAE
    site: Site | tuple[Site, ...] | None = None
    lr: float | int | None = None
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        if self.lr is not None:
            check_positive("lr", self.lr)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites asked for; none where the whole row is read."""
        return () if self.site is None else (self.site,) if isinstance(self.site, Site) else self.site

    @property
    def rate(self) -> float:
        """The peak learning rate: `lr`, or 2e-4 sqrt(2^14 / d_sae) (Gao et al. 2024)."""
        return 2e-4 * (2**14 / self.sae.d_sae) ** 0.5 if self.lr is None else float(self.lr)

    def belongs(self, source: Source) -> Callable[[], None]:
        """Set where the autoencoder is trained, and return what takes that back.

        Raises:
            UnknownName: the source does not hold the site.
            InvalidArgument: both the source and the member are normalised, or the autoencoder was trained on
                activations normalised otherwise.
        """
        self._columns(source)
        if source.normalisation is not None and (self.sites or self.normalisation is not None):
            raise InvalidArgument(
                "a source that is normalised as a whole cannot be split or normalised again: give the source as "
                "it is, and each member its own normalisation"
            )
        sae, normalisation = self.sae, self.normalisation or source.normalisation
        if bool(sae.max_activation.any()) and _digest(sae.normalisation) != _digest(normalisation):
            raise InvalidArgument(
                f"this autoencoder was trained on activations {_say_normalisation(sae.normalisation)} and is to be "
                f"trained further on them {_say_normalisation(normalisation)}: give the source as it was, or train "
                "fold_normalisation(sae) on activations as they are"
            )
        if sae.row_norm is not None:
            raise InvalidArgument(
                f"this autoencoder reads each row normalised by itself ({sae.row_norm.kind}), which is read from other "
                "libraries and not trained here: give a new one normalise_source(source, expected_norm(source))"
            )
        for name, parameter in sae.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise InvalidArgument(
                    f"{name} of this autoencoder holds NaN or infinity before training begins: make it again, or load "
                    "a file that is whole"
                )
        before = {name: getattr(sae, name) for name in BELONGINGS}
        sae.sites, sae.normalisation = self.sites or source.sites, normalisation
        sae.model_name, sae.fingerprint, sae.dataset = source.model_name, source.fingerprint, source.data
        return lambda: vars(sae).update(before)

    def rows(self, batch: Float[Tensor, "n *d"], source: Source) -> Float[Tensor, "n ..."]:
        """What it reads of a batch: its columns, on its device, finite, of its width, normalised.

        Raises:
            InvalidArgument: another width than the autoencoder's, or NaN or infinity.
        """
        own = [batch[:, columns] for columns in self._columns(source)]
        rows = batch if not own else own[0].contiguous() if len(own) == 1 else torch.cat(own, dim=1)
        rows = rows.to(self.sae.W_dec.device)
        return convert_rows(self.sae, rows if self.normalisation is None else self.normalisation(rows))

    def settings(self) -> dict[str, Any]:
        """What was made and where it is trained, for a checkpoint to compare."""
        sae = self.sae
        made = {"architecture": sae.architecture, "d_in": sae.d_in, "d_sae": sae.d_sae, **sae.settings()}
        trained = {"sites": [str(site) for site in sae.sites], "normalisation": _digest(sae.normalisation)}
        return {**made, "lr": self.rate, **trained}

    def _columns(self, source: Source) -> list[slice]:
        if not self.sites:
            return []
        if not source.widths or len(source.widths) != len(source.sites):
            raise InvalidArgument(
                f"the source's rows are not side by side, so {self.sites[0]} cannot be taken out of them: "
                "make it by activations_at or read_activations_at, or give no site"
            )
        starts = [0, *accumulate(source.widths)]
        found = {site: slice(starts[i], starts[i + 1]) for i, site in enumerate(source.sites)}
        for site in self.sites:
            if site not in found:
                raise UnknownName(
                    f"the source does not hold {site}; the nearest it holds: {nearest(str(site), map(str, found))}"
                )
        return [found[site] for site in self.sites]


def _digest(normalisation: Normalisation | None) -> str | None:
    return None if normalisation is None else normalisation.digest()


def _say_normalisation(normalisation: Normalisation | None) -> str:
    return "as they are" if normalisation is None else f"normalised by {normalisation.digest()}"
