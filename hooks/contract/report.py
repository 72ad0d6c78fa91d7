"""The contract of a model: the laws its sites keep, what was measured, and what is refused because of it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, final

from hooks.errors import nearest
from hooks.site import Site
from hooks.summary import summarise

if TYPE_CHECKING:
    from pandas import DataFrame


@final
@dataclass(frozen=True)
class Check:
    """One law, measured at one layer or for the model as a whole.

    Attributes:
        law: its name.
        states: the identity, as it reads for this family.
        error: by how much it is missed, relative to the size of what is compared; worst token.
        allowed: what rounding explains.
        sites: the sites it speaks of, the one it is about first; while it holds, each vouches for the others.
        at: where the error is largest, for laws that compare many sites.
        use: the use of the model that rests on it, for laws about more than a site.
    """

    law: str
    states: str
    error: float
    allowed: float
    sites: tuple[Site, ...] = ()
    at: Site | None = None
    use: str | None = None

    @property
    def holds(self) -> bool:
        """True when rounding explains the error; a NaN is never explained."""
        return self.error <= self.allowed

    @property
    def missed(self) -> str:
        """What was measured, in words."""
        at = "" if self.at is None else f" at {self.at}"
        return f"'{self.states}' is missed by {self.error:.2g}{at}, where rounding explains {self.allowed:.1g}"


@final
@dataclass(frozen=True)
class ContractReport:
    """Every law of a model as measured by `check`; printed as a table.

    Attributes:
        model: the model's name and class.
        dtype: the type of the weights, which sets how much rounding explains.
        fingerprint: of the model.
        checks: every law at every layer.
        passes: how many forward passes it took.
        seconds: how long it took.
        refused: sites that cannot be trusted on this model, with the law each breaks.
        unfit: uses of the model that cannot be trusted ("unembed", "left padding", "right padding", "batch",
            "cache"), with the law each rests on.

    Examples:
        ```python
        print(load("gpt2").contract)
        ```
    """

    model: str
    dtype: str
    fingerprint: str
    checks: tuple[Check, ...]
    passes: int
    seconds: float
    refused: Mapping[Site, Check] = field(init=False)
    unfit: Mapping[str, Check] = field(init=False)

    __repr__ = summarise

    def __post_init__(self) -> None:
        unfit = {check.use: check for check in self.checks if check.use and not check.holds}
        object.__setattr__(self, "refused", blame_sites(self.checks))
        object.__setattr__(self, "unfit", unfit)

    @property
    def holds(self) -> bool:
        """True when every law holds."""
        return all(check.holds for check in self.checks)

    def __str__(self) -> str:
        rows = [("law", "holds", "error", "allowed", "states"), *_rows(self.checks)]
        wide = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, wide, strict=False)), row[4]]) for row in rows]
        refused = ", ".join(map(str, self.refused)) or "none"
        took = f"{self.passes} forward passes, {self.seconds:.2g} s"
        return "\n".join([f"contract of {self.model}, {self.dtype}: {took}", *lines, f"refused sites: {refused}"])

    def to_pandas(self) -> "DataFrame":
        """A row for each law at each layer: what it says, what was measured and allowed, and whether it holds."""
        from pandas import DataFrame

        rows = [(c.law, c.states, str(c.sites[0]) if c.sites else "", c.error, c.allowed, c.holds) for c in self.checks]
        return DataFrame(rows, columns=["law", "states", "site", "error", "allowed", "holds"])


def site_refusal(report: ContractReport, site: Site, others: Sequence[Site]) -> str:
    """Return the message for a site that breaks a law on this model.

    Examples:
        ```python
        site_refusal(model.contract, resid_mid[0], model.sites)
        ```
    """
    return (
        f"{report.model} refuses {site}: {report.refused[site].missed}; the nearest sites that hold are "
        f"{nearest(str(site), map(str, others))}. `model.contract` shows what was measured"
    )


def use_refusal(report: ContractReport, use: str, instead: str) -> str:
    """Return the message for a use of the model that rests on a broken law.

    Examples:
        ```python
        use_refusal(model.contract, "cache", "call model.run")
        ```
    """
    return (
        f"{report.model} refuses {use}: {report.unfit[use].missed}; {instead}. `model.contract` shows what was measured"
    )


def blame_sites(checks: Sequence[Check]) -> dict[Site, Check]:
    """Blame, for each broken law, the sites that no kept law vouches for.

    A broken law that speaks of a site already blamed is thereby explained. Where all its sites are vouched for,
    the first, which the law is about, is blamed.

    Examples:
        >>> blame_sites([Check("law", "z = 0", 1.0, 0.1, (Site("z", 0),))]).keys()
        dict_keys([z.0])
    """
    vouched = {site for check in checks if check.holds and len(check.sites) > 1 for site in check.sites}
    refused: dict[Site, Check] = {}
    for check in checks:
        if check.holds or check.use is not None or refused.keys() & set(check.sites):
            continue
        suspects = [site for site in check.sites if site not in vouched]
        refused |= dict.fromkeys(suspects or check.sites[:1], check)
    return refused


def measure_laws(law: str, laws: Callable[[], Iterable[Check]], use: str | None = None) -> Iterator[Check]:
    """Yield laws, and one that says why they could not be measured where measuring them raises.

    Args:
        law: the name of what could not be measured.
        laws: measures them.
        use: the use of the model that rests on them.

    Examples:
        >>> [check.holds for check in measure_laws("law", lambda: iter([1 / 0]))]
        [False]
    """
    try:
        yield from laws()
    except Exception as error:  # whatever a model built like no other raises
        said = str(error).splitlines()[0] if str(error) else ""
        yield Check(law, f"could not be measured: {type(error).__name__}: {said}"[:200], inf, 0.0, use=use)


def find_unmeasured(checks: Sequence[Check], sites: Iterable[Site]) -> Iterator[Check]:
    """Yield a broken law for each site that no measured law speaks of, since nothing vouches for it.

    Examples:
        >>> [*find_unmeasured([], [Site("z", 0)])][0].sites
        (z.0,)
    """
    spoken = {site for check in checks if check.law not in _OF_ANY_TENSOR for site in check.sites}
    why = next((f": {check.states}" for check in checks if check.states.startswith("could not")), "")
    for site in sites:
        if site not in spoken:
            yield Check("every site is measured", f"a law that speaks of {site} was measured{why}", inf, 0.0, (site,))


_OF_ANY_TENSOR = frozenset(["no dropout", "every site fires", "writing reaches", "q reaches", "k reaches"])
"""Laws that any tensor of the model keeps, whatever it is called."""


def _rows(checks: Sequence[Check]) -> Iterator[tuple[str, str, str, str, str]]:
    """One row per law: its worst layer."""
    laws: dict[str, Check] = {}
    for check in checks:
        worst = laws.setdefault(check.law, check)
        laws[check.law] = max(worst, check, key=_severity)
    for law, check in laws.items():
        yield law, "yes" if check.holds else "NO", f"{check.error:.1e}", f"{check.allowed:.1e}", check.states


def _severity(check: Check) -> float:
    return check.error / check.allowed if check.allowed and check.error == check.error else inf
