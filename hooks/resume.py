"""Resuming: a forward pass that is run once, and then continued from any block, with changes, as often as wanted."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, TypeAlias, final

from jaxtyping import Float
from torch import Tensor, nn

from hooks.activations import Activations
from hooks.capture import capture
from hooks.errors import InvalidArgument
from hooks.forward import forward
from hooks.model import Model, Text
from hooks.passes import spread
from hooks.site import Site, resid_post, resid_pre
from hooks.taps import Edit
from hooks.temporary import Temporary
from hooks.tokens import Tokens
from hooks.unembed import check_head

Passed: TypeAlias = Callable[[Tensor], Any]


class _AfterTheLast(Exception):
    """The last block has been computed."""


@final
@dataclass(frozen=True, eq=False)
class HeldPass:
    """A forward pass kept so that it can be continued from any block. Made by `hold`.

    Attributes:
        model: the model.
        activations: what was asked for, with the stream before every block and after the last.
        passed: gives a stream the form in which this model's blocks return it.
    """

    model: Model
    activations: Activations
    passed: Passed

    @property
    def final(self) -> Float[Tensor, "batch pos d_model"]:
        """The stream after the last block."""
        return self.activations[resid_post[self.model.n_layers - 1]]

    def resume(self, layer: int, edits: Mapping[Site, Edit], times: int = 1) -> Float[Tensor, "n pos d_model"]:
        """Return the stream after the last block, computed from one block on under edits.

        Row `text * times + i` is the i-th copy of a text. Blocks before `layer` do not run; sites outside the
        blocks are reached from layer 0. The caller's grad mode holds, and the stream it continues from is detached.

        Args:
            layer: the first block to run.
            edits: from the tensor of a site, [n pos *d], to what flows on.
            times: how many copies of each text.

        Raises:
            UnknownSite: an unknown site.

        Cost: `n_layers - layer` blocks over `batch * times` rows, without unembedding.

        Examples:
            ```python
            held = hold(model, "Fog over the bay")
            held.resume(3, {z[3]: lambda a: 0.5 * a})
            ```
        """
        got: list[Tensor] = []

        def keep(value: Tensor) -> None:
            got.append(value)
            raise _AfterTheLast

        last = resid_post[self.model.n_layers - 1]
        with self._take_up(layer, edits, times) as (copies, changes), suppress(_AfterTheLast):
            self.model.tap(last).attach_during(changes, keep)
            forward(self.model.hf, copies)
        (value,) = got
        return value

    def logits(self, layer: int, edits: Mapping[Site, Edit], times: int = 1) -> Float[Tensor, "n pos vocab"]:
        """Return the logits of the same pass, with all that is changed after the last block.

        Args:
            layer: the first block to run.
            edits: from the tensor of a site, [n pos *d], to what flows on.
            times: how many copies of each text.

        Raises:
            InvalidArgument: an unknown site, a model without output embeddings.

        Cost: as `resume`, and the unembedding of every token.

        Examples:
            ```python
            held = hold(model, "Fog over the bay")
            held.logits(3, {z[3]: lambda a: 0.5 * a})
            ```
        """
        check_head(self.model.hf)
        with self._take_up(layer, edits, times) as (copies, _):
            return forward(self.model.hf, copies).logits

    @contextmanager
    def _take_up(self, layer: int, edits: Mapping[Site, Edit], times: int) -> Iterator[tuple[Tokens, Temporary]]:
        """Inside the block, a pass over these copies of the texts begins at a block and runs under edits."""
        tokens = self.activations.tokens
        copies = spread(tokens, tokens.ids.repeat_interleave(times, dim=0))
        if copies is None:
            raise InvalidArgument(f"times is the number of copies of each text, at least 1; got {times}")
        with self.model.running.reading(copies), Temporary() as changes:
            if layer > 0:
                stream = self.activations[resid_pre[layer]].repeat_interleave(times, dim=0)
                self.model.tap(resid_pre[layer]).attach_during(changes, lambda _: stream)
                for block, calls in Counter(self.model.blocks[:layer]).items():
                    _pass_over(changes, block, self.passed, calls)
            for site, edit in edits.items():
                self.model.tap(site).attach_during(changes, edit)
            yield copies, changes


def hold(model: Model, text: Text, sites: Sequence[Site] = ()) -> HeldPass:
    """Run a forward pass once and keep the stream before every block, to continue from there.

    Args:
        model: a loaded model.
        text: a text, texts, token ids or `Tokens`, read as one batch.
        sites: what else to keep.

    Raises:
        UnknownSite: an unknown site.

    Cost: one forward pass; memory for `n_layers + 1` streams.

    Examples:
        ```python
        hold(model, "Fog over the bay").resume(3, {})
        ```
    """
    tokens = model.tokens(text)
    streams = [resid_pre[layer] for layer in range(model.n_layers)]
    forms: list[Passed] = []
    with model.running.reading(tokens), Temporary() as changes:
        changes.hook(model.blocks[0], lambda _m, _a, output: forms.append(_form(output)))
        wanted = dict.fromkeys([*streams, *sites, resid_post[model.n_layers - 1]])
        acts = capture(model, tokens, wanted, batch_size=len(tokens))
    return HeldPass(model, acts, forms[0])


def _form(output: Any) -> Passed:
    if isinstance(output, Tensor):
        return lambda stream: stream
    return lambda stream: (stream, *(None for _ in output[1:]))


def _pass_over(changes: Temporary, block: nn.Module, passed: Passed, calls: int) -> None:
    """Let a block return what it is given at its first calls; where it serves later layers too, it runs there."""
    own_forward, left = block.forward, count(calls, -1)

    def hand_on(*args: Any, **kwargs: Any) -> Any:
        if next(left) > 0:
            return passed(args[0] if args else next(iter(kwargs.values())))
        return own_forward(*args, **kwargs)

    own = vars(block).get("forward")
    undo = partial(vars(block).pop, "forward", None) if own is None else partial(setattr, block, "forward", own)
    changes.make(partial(setattr, block, "forward", hand_on), undo)
