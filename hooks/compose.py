"""Which interventions fit a site, and which undo each other."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import prod

from hooks.errors import InvalidArgument, InvalidType
from hooks.fingerprint import is_of
from hooks.interventions import Intervention
from hooks.network import AnyModel
from hooks.passes import Pass
from hooks.position import everywhere
from hooks.site import STATES, Site

Plan = Mapping[Site, Sequence[Intervention]]


def check_fits(model: AnyModel, site: Site, chain: Sequence[Intervention]) -> None:
    """Raise when a site cannot be changed, or a value to be put there has another shape.

    Examples:
        ```python
        check_fits(model, resid_post[0], (zero(),))
        ```
    """
    tap = model.tap(site)
    if tap.read_only:
        raise InvalidArgument(f"{site} can be captured but not changed: intervene at {_instead(site)} instead")
    if not chain:
        raise InvalidArgument(f"no intervention was given for {site}: leave the site out or name one")
    for one in chain:
        if not isinstance(one, Intervention):
            raise InvalidType(f"expected an intervention such as add(direction) at {site}, got {one!r}")
        _check_value(site, one, tap.shape)
        if not is_of(model, one.fingerprint):
            raise InvalidArgument(
                f"{one} at {site} uses a direction found in another model than {model.name}: "
                "if that is meant, pass its vector, `direction.vector`"
            )


def _instead(site: Site) -> str:
    if site.name in STATES:
        return f"mixer_in.{site.layer} or mixer_out.{site.layer}"
    return f"z.{site.layer} or attn_out.{site.layer}" if site.layer is not None else "the last resid_post"


def _check_value(site: Site, one: Intervention, shape: tuple[int, ...]) -> None:
    if one.value is None:
        return
    got = tuple(one.value.shape)
    flat = one.value.ndim == 1 and one.value.numel() == prod(shape)
    batched = one.batched and got[-len(shape) :] == shape and one.value.ndim - len(shape) in (1, 2)
    if got != shape and not flat and not batched:
        raise InvalidArgument(f"{one.name} at {site} needs a value of shape {shape}, got {got}")


def check_overwriting(plan: Plan) -> None:
    """Raise when one intervention certainly undoes an earlier one of the same place.

    Examples:
        ```python
        check_overwriting({resid_post[0]: (add(direction), zero())})  # raises
        ```
    """
    for site, earlier, later in _find_undoing(plan):
        if later.at in (everywhere, earlier.at):
            raise InvalidArgument(_as_text(site, earlier, later))


def check_pass(plan: Plan, passing: Pass) -> None:
    """Raise when, on the tokens of this pass, one intervention undoes an earlier one.

    Examples:
        ```python
        check_pass(model.running.active, model.running.current)
        ```
    """
    if passing.tokens.are_places:
        return  # which tokens there are differs from site to site, so only equal positions are compared
    for site, earlier, later in _find_undoing(plan):
        one, other = passing.rows(earlier.at), passing.rows(later.at)
        places = set(zip(one.row.tolist(), one.column.tolist(), strict=True))
        if places & set(zip(other.row.tolist(), other.column.tolist(), strict=True)):
            raise InvalidArgument(_as_text(site, earlier, later))


def _find_undoing(plan: Plan) -> Iterator[tuple[Site, Intervention, Intervention]]:
    """Pairs at one place of which the later would undo the earlier if they met at a token."""
    for site, chain in _same_tensor(plan).items():
        for earlier, later in combinations(chain, 2):
            if later.overwrites or _sets_the_same(earlier, later):
                yield site, earlier, later


def _sets_the_same(earlier: Intervention, later: Intervention) -> bool:
    if not (earlier.sets_projection and later.sets_projection):
        return False
    if earlier.value is None or later.value is None or earlier.value.numel() != later.value.numel():
        return False
    one, other = (value.detach().flatten().float().cpu() for value in (earlier.value, later.value))
    return abs(float(one @ other)) > 0.999


def _same_tensor(plan: Plan) -> dict[Site, tuple[Intervention, ...]]:
    """Interventions by the tensor they change: the output of a block is the input of the next."""
    chains: dict[Site, tuple[Intervention, ...]] = {}
    for site in sorted(plan, key=lambda site: site.name == "resid_pre"):
        place = site
        if site.name == "resid_pre" and site.layer:
            place = Site("resid_post", site.layer - 1)
        chains[place] = (*chains.get(place, ()), *plan[site])
    return chains


def _as_text(site: Site, earlier: Intervention, later: Intervention) -> str:
    return (
        f"{later} at {site} would undo {earlier} there: put the overwriting one first, "
        "give them different positions, or drop one"
    )
