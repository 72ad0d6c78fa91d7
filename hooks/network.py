"""A module of plain torch that is no Hugging Face model: every module inside it is a site."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import inf
from typing import Any, Literal, TypeAlias, final

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from hooks.contract.report import Check, ContractReport, site_refusal
from hooks.errors import ContractBroken, InvalidArgument, InvalidType, UnknownSite, nearest
from hooks.fingerprint import fingerprint
from hooks.forward import forward
from hooks.model import Model
from hooks.running import Running
from hooks.site import Site
from hooks.taps import Tap
from hooks.temporary import Temporary
from hooks.tokens import Tokens
from hooks.tracing.record import Call, Trace, record

Inputs: TypeAlias = Tensor | Mapping[int | str, Tensor] | Mapping[str, Tensor] | tuple[Tensor, ...] | Tokens
"""What a module is given: one tensor, several in order, or by the names of its arguments; the batch comes first."""


@final
class Network:
    """Any module, whose sites are what each module inside it gives and is given. Made by `load`.

    A picture, a vector or a row of ids is one item of the batch, and `places` says which axes of a site's tensor count
    its places: `(2, 3)` makes [batch row*column channel] of a convnet's maps. A tensor without these axes, or with
    nothing next to them, is one place, [batch 1 *d]. Positions such as `index(3)` and `everywhere` speak of places.
    Of a tuple or mapping that a module gives, the first tensor of floats is the site. A module that runs several times
    in a pass has a site for each call, `Site.module(path, call=1)`.

    It has no tokenizer, streams or heads: methods that need those take a `Model`.

    Attributes:
        hf: the module, in evaluation mode.
        name: of its class.
        places: the axes that count places.
        taps: where each site sits, in the order of the pass over the example.
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

    def __init__(self, module: nn.Module, inputs: Inputs, places: tuple[int, ...]) -> None:
        self.hf = module.eval()
        self.name = type(module).__name__
        self.places = places
        self.contract: ContractReport | None = None
        example = _read(inputs)
        trace = record(module, lambda: forward(module, example))
        self.taps = {tap.site: tap for tap in _taps(trace, len(example), places)}
        trace.release()
        self.example = example
        self.fingerprint = fingerprint(module)
        self.running = Running(module, frozenset(), _read)

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

        Raises:
            InvalidType: something else than tensors.
            InvalidArgument: tensors of batches of different length, or none.

        Examples:
            ```python
            model.tokens(torch.randn(4, 3, 32, 32))
            ```
        """
        return _read(text).to(self.device)

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


def guessed(module: nn.Module) -> Shaped[Tensor, "batch _"]:
    """Return an example for a module whose first weights say what it reads: ids of an embedding, or a vector.

    Raises:
        InvalidArgument: they do not.

    Examples:
        >>> guessed(nn.Linear(3, 5)).shape
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


@torch.no_grad()
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
    sites = tuple(model.taps)
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
    ids = torch.zeros(sizes.pop(), 1, dtype=torch.long, device=tensors[0].device)
    mask = torch.ones_like(ids, dtype=torch.bool)
    return Tokens(ids, mask, ~mask, inputs={slot: one for slot, one in given.items() if isinstance(one, Tensor)})


def _taps(trace: Trace, batch: int, places: tuple[int, ...]) -> Iterator[Tap]:
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
    trace: Trace, call: Call, side: Literal["input", "output"], slot: Any, places: tuple[int, ...], root: Any
) -> Tap:
    value = call.inputs[slot] if side == "input" else call.outputs[slot]
    shape = trace.tensor(value).shape
    axes = places if len(shape) > max(places, default=0) and len(shape) > 1 + len(places) else ()
    one = tuple(size for axis, size in enumerate(shape) if axis and axis not in axes)
    number = None if root is None else call.number
    where: dict[str, Any] = {"slot": slot} if side == "input" else {"part": 0 if slot is None else slot}
    return Tap(
        Site.module(call.path, side, number), call.module, side, one,
        overwritten=trace.is_overwritten(value), call=number, root=root, places=axes, **where,
    )  # fmt: skip
