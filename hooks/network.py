"""A module that reads no text: every module inside it is a site, and of one that reads pictures more have names."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, Literal, TypeAlias, final

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from hooks.contract.report import Check, ContractReport, site_refusal
from hooks.errors import ContractBroken, InvalidArgument, InvalidType, UnknownSite, nearest
from hooks.fingerprint import fingerprint
from hooks.forward import forward
from hooks.grid import Grid, grids
from hooks.images import Images
from hooks.model import Model
from hooks.picture_sites import picture_taps, places_of
from hooks.processor import Processor
from hooks.running import PassTracker
from hooks.site import Site
from hooks.site_names import site_names
from hooks.structure import Structure
from hooks.taps import Aliases, OneCall, Tap
from hooks.temporary import Temporary, grad_mode
from hooks.tokens import Tokens
from hooks.tracing.record import Call, Trace, record

Example: TypeAlias = Tensor | Mapping[int | str, Tensor] | Mapping[str, Tensor] | tuple[Tensor, ...] | Tokens
"""What a module is given: one tensor, several in order, or by the names of its arguments; the batch comes first."""


@final
class Network:
    """Any module, whose sites are what each module inside it gives and is given. Made by `load`.

    A picture, a vector or a row of ids is one item of the batch, and `places` says which axes of a site's tensor count
    its places: `(2, 3)` makes [batch row*column channel] of a convnet's maps. A tensor without these axes, or with
    nothing next to them, is one place, [batch 1 *d]. Positions such as `index(3)` and `everywhere` speak of places.
    Of a tuple or mapping that a module gives, the first tensor of floats is the site. A module that runs several times
    in a pass has a site for each call, `Site.module(path, call=1)`.

    One that reads pictures, [batch channel row column], has named sites as well (`hooks/picture_sites.py`), and knows
    where the places of each are in the picture, for positions such as `region` and `where`. It reads files, arrays and
    whatever else `hooks.images` speaks of through its processor; a tensor of floats is given to the module as it is.

    It has no tokenizer: methods that need one take a `Model`.

    Attributes:
        hf: the module, in evaluation mode.
        name: of its class.
        places: the axes that count places; None where each tensor's follow from how many axes it has, as those of a
            model of pictures do.
        processor: how it reads pictures, or None.
        taps: where each site sits: those with a name of their own, then each module's in the order of the pass.
        grids: where the places of each site are in pictures of the example's size.
        structure: the blocks of a transformer over patches, or None.
        fingerprint: SHA-256 of its form and weights when it was loaded.
        contract: what was measured, or None.
        running: the forward pass in flight.

    Examples:
        ```python
        model = load(convnet, inputs=torch.randn(1, 3, 32, 32), places=(2, 3))
        capture(model, pictures, Site.module("features.3"))
        ```
    """

    tokenizer = None
    padding_side = "right"

    def __init__(
        self,
        module: nn.Module,
        inputs: Example,
        places: tuple[int, ...] | None,
        processor: Processor | None = None,
    ) -> None:
        self.hf = module.eval()
        self.name = type(module).__name__
        self.places = places
        self.processor = processor
        self.contract: ContractReport | None = None
        example = _read(inputs)
        slots = [slot for slot, one in (example.inputs or {}).items() if _is_picture(one)]
        self._slot: int | str | None = slots[0] if slots and places in (None, (2, 3)) else None
        self.places = () if places is None and self._slot is None else places
        trace = record(module, lambda: forward(module, example))
        taps = [*_taps(trace, len(example), self.places)]
        self.grids: Mapping[Site, Grid] = {}
        self.structure: Structure | None = None
        if self._slot is not None:
            found = dict(grids(trace, _picture(trace, self._slot)))
            named, self.structure = _find_named_sites(module, example)
            taps = [*named, *taps]
            self.grids = {tap.site: found[value] for tap in taps if (value := _value(trace, tap)) in found}
        self.taps = {tap.site: tap for tap in taps}
        self.site_names = site_names(module, self.taps)
        trace.release()
        self.example = example
        self.fingerprint = fingerprint(module)
        self.running = PassTracker(module, frozenset(), self._of_call)

    def __repr__(self) -> str:
        return f"Network({self.name}, {len(self.taps)} sites)"

    @property
    def device(self) -> torch.device:
        """Where the weights are, or the example if there are none."""
        return next(self.hf.parameters(), next(iter((self.example.inputs or {}).values()))).device

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site that keeps its contract, in the order of the pass."""
        refused = self.contract.refused if self.contract else ()
        return tuple(site for site in self.taps if site not in refused)

    def tokens(self, text: Any) -> Tokens:
        """Return the items of a batch, whose tokens are places.

        Tensors of floats are what the module is given, as they are; all else is read as pictures, where it reads some.

        Raises:
            InvalidType: something else than tensors or pictures.
            InvalidArgument: tensors of batches of different length, or none; pictures for a model without a processor.

        Examples:
            ```python
            model.tokens(torch.randn(4, 3, 32, 32))
            ```
        """
        if self._slot is None or isinstance(text, Tokens | tuple | Mapping) or _is_given(text):
            return self._of_call(text).to(self.device)
        if self.processor is None:
            raise InvalidArgument(
                f"how {self.name} reads pictures is not known: load it with processor=Processor(size, mean=…, std=…), "
                "or pass a tensor of what it is given"
            )
        images = replace(self.processor.read(text), scaling=self.processor.scaling(self._slot)).to(self.device)
        return replace(_of_places(len(images), self.device), images=images, grids=self.grids)

    def join(self, batches: Sequence[Tokens]) -> Tokens:
        """Return batches of pictures as one.

        Examples:
            ```python
            model.join([model.tokens(some), model.tokens(others)])
            ```
        """
        held = [one.images for one in batches if one.images is not None]
        names = [one.names for one in held if one.names is not None]
        shared = set.intersection(*(set(one.masks) for one in held))
        images = Images(
            torch.cat([one.pixels for one in held]),
            {name: torch.cat([one.masks[name] for one in held]) for name in sorted(shared)},
            sum(names, ()) if len(names) == len(held) else None,
        )
        return self.tokens(images)

    def _of_call(self, given: Any) -> Tokens:
        """What a call of the module reads."""
        tokens = _read(given)
        return replace(tokens, grids=self.grids) if self.grids and tokens.grids is None else tokens

    def run(self, text: Any) -> Any:
        """Return what the module gives, under the caller's grad mode.

        Cost: one forward pass.

        Examples:
            ```python
            model.run(torch.randn(4, 3, 32, 32))
            ```
        """
        tokens = self.tokens(text)
        with self.running.reading(tokens):
            return forward(self.hf, tokens)

    def tap(self, site: Site) -> Tap:
        """Return where a site sits.

        Raises:
            UnknownSite: there is none such; the message says why and names the nearest.
            ContractBroken: the site breaks its contract.

        Examples:
            ```python
            model.tap(Site.module("features.3")).shape
            ```
        """
        if self.contract is not None and site in self.contract.refused:
            raise ContractBroken(site_refusal(self.contract, site, self.sites))
        if site in self.taps:
            return self.taps[site]
        calls = sum(one.name == site.name and one.path.split("#")[0] == site.path for one in self.taps)
        if site.path and calls:
            why = f"its module runs {calls} times in a pass: write Site.module({site.path!r}, call=0) for the first"
        else:
            why = f"the nearest are {nearest(str(site), map(str, self.taps))}"
        raise UnknownSite(f"{self.name} has no {site}: {why}")


AnyModel: TypeAlias = Model | Network
"""A transformer, or any other module."""


def guess_example(module: nn.Module) -> Shaped[Tensor, "batch _"]:
    """Return an example for a module whose first weights say what it reads: ids of an embedding, or a vector.

    Raises:
        InvalidArgument: they do not.

    Examples:
        >>> guess_example(nn.Linear(3, 5)).shape
        torch.Size([1, 3])
    """
    random = torch.Generator().manual_seed(0)
    first = next((one for one in module.modules() if [*one.parameters(recurse=False)]), None)
    if isinstance(first, nn.Embedding):
        return torch.randint(first.num_embeddings, (1, 5), generator=random).to(next(first.parameters()).device)
    if isinstance(first, nn.Linear):
        return torch.randn(1, first.in_features, generator=random).to(next(first.parameters()))
    raise InvalidArgument(
        f"{type(module).__name__} is no transformers.PreTrainedModel, and its weights do not say what it reads: give "
        "an example, as in load(module, inputs=torch.randn(1, 3, 32, 32))"
    )


@grad_mode(False)
def check_network(model: Network) -> ContractReport:
    """Measure the laws of a network on its example, and keep the report on it.

    Two runs give the same; and with every site read and written again the module gives bit for bit what it gives
    without hooks. A site that is not reached, or changes what is given, is refused.

    Cost: three forward passes, and one for each site where the second law is broken.

    Examples:
        ```python
        check_network(model).holds
        ```
    """
    plain = _flat(forward(model.hf, model.example))
    again = _flat(forward(model.hf, model.example))
    checks = [_equal("no dropout", "two runs give the same", again, plain)]
    sites = tuple(site for site, tap in model.taps.items() if not tap.read_only)
    states = "written again as it is, a site changes nothing"
    if checks[0].holds and not _equal("", "", _rewritten(model, sites), plain).holds:
        checks += [_equal("same as without hooks", states, _rewritten(model, (site,)), plain, site) for site in sites]
    else:
        checks += [Check("same as without hooks", states, 0.0, 0.0, (site,)) for site in sites]
    passes = 3 + (len(checks) - 1 if any(not one.holds for one in checks[1:]) else 0)
    dtype = str(next((one.dtype for one in plain), torch.float32)).removeprefix("torch.")
    model.contract = ContractReport(model.name, dtype, model.fingerprint, tuple(checks), passes, 0.0)
    return model.contract


def _rewritten(model: Network, sites: tuple[Site, ...]) -> list[Tensor]:
    reached = set[Site]()
    with Temporary() as changes:
        for site in sites:
            model.taps[site].attach_during(changes, lambda a, site=site: reached.add(site) or a.clone())
        output = _flat(forward(model.hf, model.example))
    return output if reached == set(sites) else []


def _equal(law: str, states: str, made: list[Tensor], plain: list[Tensor], *sites: Site) -> Check:
    same = len(made) == len(plain) and all(
        torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all()) for a, b in zip(made, plain, strict=True)
    )
    return Check(law, states, 0.0 if same else inf, 0.0, sites)


def _flat(output: Any) -> list[Tensor]:
    from torch.utils._pytree import tree_leaves

    output = [*output.values()] if isinstance(output, Mapping) else output
    return [one for one in tree_leaves(output) if isinstance(one, Tensor)]


def _read(inputs: Any) -> Tokens:
    """What a module is given, as tokens of one place; each site has as many as its tensor."""
    if isinstance(inputs, Tokens):
        return inputs
    if isinstance(inputs, Tensor):
        inputs = {0: inputs}
    elif isinstance(inputs, tuple | list):
        inputs = dict(enumerate(inputs))
    if not isinstance(inputs, Mapping):
        raise InvalidType(f"a module is given a tensor, a tuple of them, or a dict of them by argument; got {inputs!r}")
    given = {slot: one for slot, one in inputs.items() if one is not None}
    tensors = [one for one in given.values() if isinstance(one, Tensor)]
    sizes = {len(one) if one.ndim else 0 for one in tensors}
    if not tensors or len(sizes) > 1 or 0 in sizes:
        raise InvalidArgument(f"tensors of one batch, at least one item long, are needed; got lengths {sorted(sizes)}")
    inputs = {slot: one for slot, one in given.items() if isinstance(one, Tensor)}
    return replace(_of_places(sizes.pop(), tensors[0].device), inputs=inputs)


def _of_places(n: int, device: torch.device) -> Tokens:
    """A batch of one place each, until a site says how many it has."""
    ids = torch.zeros(n, 1, dtype=torch.long, device=device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    return Tokens(ids, mask, ~mask)


def _is_picture(one: Tensor) -> bool:
    """Whether a tensor is [batch channel row column] of a picture."""
    return one.is_floating_point() and one.ndim == 4


def _is_given(text: Any) -> bool:
    return isinstance(text, Tensor) and text.is_floating_point()


def _find_named_sites(module: nn.Module, example: Tokens) -> tuple[list[Tap], Structure | None]:
    """The named sites, found on one picture alone."""
    one = example[:1]
    trace = record(module, lambda: forward(module, one))
    try:
        return picture_taps(module, trace)
    finally:
        trace.release()


def _picture(trace: Trace, slot: int | str) -> int:
    inputs = trace.calls[0].inputs
    return inputs[slot] if slot in inputs else next(iter(inputs.values()))


def _value(trace: Trace, tap: Tap) -> int | None:
    """The value that a site is in a recorded pass."""
    for call in trace.calls:
        if call.module is tap.module and call.number == (0 if tap.call is None else tap.call.number):
            held: Mapping[Any, int] = call.inputs if tap.side == "input" else call.outputs
            slot: Any = None if None in held else tap.part
            return held.get(slot)
    return None


def _taps(trace: Trace, batch: int, places: tuple[int, ...] | None) -> Iterator[Tap]:
    times = Counter(call.path for call in trace.calls)
    root = trace.calls[0].module
    for call in trace.calls:
        sides: tuple[tuple[Literal["input", "output"], Mapping[Any, int]], ...]
        sides = (("input", call.inputs), ("output", call.outputs))
        for side, values in sides:
            slot = next((slot for slot, value in values.items() if _is_site(trace.tensor(value), batch)), _NONE)
            if slot is not _NONE:
                yield _tap(trace, call, side, slot, places, root if times[call.path] > 1 else None)


_NONE = object()


def _is_site(tensor: Tensor, batch: int) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.shape[0] == batch


def _tap(
    trace: Trace, call: Call, side: Literal["input", "output"], slot: Any, places: tuple[int, ...] | None, root: Any
) -> Tap:
    value = call.inputs[slot] if side == "input" else call.outputs[slot]
    shape = trace.tensor(value).shape
    if places is None:
        axes = places_of(tuple(shape))
    else:
        axes = places if len(shape) > max(places, default=0) and len(shape) > 1 + len(places) else ()
    one = tuple(size for axis, size in enumerate(shape) if axis and axis not in axes)
    once = None if root is None else OneCall(call.number, root)
    alias: Aliases = frozenset({"overwritten"} if trace.is_overwritten(value) else ())
    site = Site.module(call.path, side, None if once is None else once.number)
    part = 0 if slot is None else slot
    return Tap(site, call.module, side, one, part, alias=alias, axes=axes, call=once)
