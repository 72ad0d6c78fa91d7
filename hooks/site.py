"""Sites: named places in a transformer's forward pass, and the only file that writes a hook name."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final, Literal, Protocol, final, runtime_checkable

from hooks.errors import InvalidArgument, InvalidType, UnknownSite, nearest

_TRANSFORMER_LENS: Final = {
    "embed": "hook_embed",
    "pos_embed": "hook_pos_embed",
    "resid_pre": "blocks.{}.hook_resid_pre",
    "layer_embed": "blocks.{}.hook_layer_embed",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out",
    "q": "blocks.{}.attn.hook_q",
    "k": "blocks.{}.attn.hook_k",
    "v": "blocks.{}.attn.hook_v",
    "z": "blocks.{}.attn.hook_z",
    "pattern": "blocks.{}.attn.hook_pattern",
    "attn_gate": "blocks.{}.attn.hook_gate",
    "cross_q": "blocks.{}.cross_attn.hook_q",
    "cross_k": "blocks.{}.cross_attn.hook_k",
    "cross_v": "blocks.{}.cross_attn.hook_v",
    "cross_z": "blocks.{}.cross_attn.hook_z",
    "cross_pattern": "blocks.{}.cross_attn.hook_pattern",
    "cross_out": "blocks.{}.cross_attn.hook_out",
    "mixer_in": "blocks.{}.mixer.hook_in",
    "mixer_gate": "blocks.{}.mixer.hook_gate",
    "mixer_state": "blocks.{}.mixer.hook_state",
    "mixer_out": "blocks.{}.mixer.hook_out",
    "mlp_in": "blocks.{}.mlp.hook_in",
    "mlp_pre": "blocks.{}.mlp.hook_pre",
    "mlp_act": "blocks.{}.mlp.hook_post",
    "router_logits": "blocks.{}.mlp.hook_router_logits",
    "expert_choice": "blocks.{}.mlp.hook_expert_indices",
    "expert_weights": "blocks.{}.mlp.hook_expert_weights",
    "expert_act": "blocks.{}.mlp.experts.hook_post",
    "expert_out": "blocks.{}.mlp.experts.hook_out",
    "shared_out": "blocks.{}.mlp.hook_shared_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "ln_final_scale": "ln_final.hook_scale",
    "conv_pre": "conv_pre.{}",
    "conv_act": "conv_act.{}",
    "pool": "pool.{}",
    "fc_act": "fc_act.{}",
    "embedding": "embedding",
    "logits": "unembed.hook_out",
}
_MODULE: Final = "module"
_MODULE_INPUT: Final = "module_input"
_BY_MODULE: Final = re.compile(r"module\(([^,()]*)(?:, ?(input))?\)")
NAMES: Final = tuple(_TRANSFORMER_LENS)
"""Every site's name, in the order of the forward pass."""
FINAL_NORM: Final = "ln_final"
"""What TransformerLens calls the norm before the unembedding."""
_SHORT: Final = re.compile(r"(?:(\w+)\.)??(\w+?)(?:\.(\d+)|\[(-?\d+)(?:, ?(\d+))?\])?(?:\.(\d+))?")
PATTERNS: Final = ("pattern", "cross_pattern")
"""Sites of [batch head pos key], whose width depends on the text."""
STATES: Final = ("mixer_state",)
"""Sites that are computed again from what a mixer reads, token by token."""
OF_THE_ENCODER: Final = ("cross_k", "cross_v")
"""Sites of a decoder whose rows are the encoder's tokens."""
OF_ONE_EXPERT: Final = ("expert_act", "expert_out")
"""What every expert has of its own."""
_UNGAINED: Final = "ln2.hook_normalized"
_IN_LAYERS: Final = frozenset(name for name, written in _TRANSFORMER_LENS.items() if "{}" in written)


@final
@dataclass(frozen=True)
class Site:
    """One named place in the forward pass, such as `resid_post[6]`.

    A site is a value: hashable, comparable, printed as `resid_post.6`. `hooks/layout.py` says what each
    name means; which sites a model has is `model.sites`.

    Args:
        name: one of the site names of this module.
        layer: the block, counted from 0, or from the last as -1; None for sites outside the blocks.
        stack: which blocks, in a model of several (`encoder`, `decoder`); empty for the only ones.
        path: of a module that is no named place, see `Site.module`.
        expert: which expert, for what one of a mixture reads and gives (`expert_act`, `expert_out`); None for all.

    Raises:
        InvalidArgument: unknown name, or a layer where there is none (or the reverse).

    Examples:
        >>> str(Site("resid_post", 6)), str(Site("resid_post", 6, "encoder"))
        ('resid_post.6', 'encoder.resid_post.6')
    """

    name: str
    layer: int | None = None
    stack: str = ""
    path: str = ""
    expert: int | None = None

    def __post_init__(self) -> None:
        if self.name in (_MODULE, _MODULE_INPUT):
            return
        if self.name not in _TRANSFORMER_LENS:
            raise InvalidArgument(_unknown(self.name, _TRANSFORMER_LENS))
        if self.name in _IN_LAYERS and self.layer is None:
            raise InvalidArgument(f"{self.name} needs a layer counted from 0, got {self.layer}: write {self.name}[0]")
        if self.name not in _IN_LAYERS and self.layer is not None:
            raise InvalidArgument(f"{self.name} is not in a layer, got layer {self.layer}: write {self.name}")
        if self.expert is not None and self.name not in OF_ONE_EXPERT:
            raise InvalidArgument(f"{self.name} is not of one expert, got expert {self.expert}: write {self.name}[0]")

    @staticmethod
    def module(path: str, side: Literal["output", "input"] = "output", call: int | None = None) -> "Site":
        """Return the site that is what any module of the model gives, or the first tensor that it is given.

        Args:
            path: the module's name in the model, as `named_modules` says it; empty for the whole module.
            side: what it gives, or what it is given.
            call: which of its calls in a pass, from 0, where there are several.

        Examples:
            >>> Site.module("model.layers.3.mlp", "input")
            module(model.layers.3.mlp, input)
        """
        path = path if call is None else f"{path}#{call}"
        return Site(_MODULE if side == "output" else _MODULE_INPUT, path=path)

    def __str__(self) -> str:
        if self.name in (_MODULE, _MODULE_INPUT):
            return f"module({self.path}{', input' if self.name == _MODULE_INPUT else ''})"
        name = f"{self.stack}.{self.name}" if self.stack else self.name
        return ".".join([name, *(str(one) for one in (self.layer, self.expert) if one is not None)])

    __repr__ = __str__

    @property
    def transformer_lens_name(self) -> str:
        """The name a `TransformerBridge` and SAELens give this place, as in `blocks.6.hook_resid_post`.

        Places of convnets have no such name, and print as they do here.

        At `unembed.hook_out` a bridge holds the logits before the soft-cap of the families that have one; ours
        are after it.
        """
        if self.name in (_MODULE, _MODULE_INPUT):
            return str(self)
        name = _TRANSFORMER_LENS[self.name].format(self.layer)
        name = name if self.expert is None else name.replace(".experts.", f".experts.{self.expert}.")
        return f"{self.stack}.{name}" if self.stack else name

    @staticmethod
    def parse(text: str, model: "NamedModules | None" = None) -> "Site":
        """Read a site from its short name, from TransformerLens's name for it, or from the name of a model's module.

        Args:
            text: `resid_post.6`, `resid_post[6]`, `encoder.resid_post.6`, `logits`, `module(features.3)` or
                `blocks.6.hook_resid_post`; with a model also a module's own name, such as `model.layers.3`: of a block
                it is what the block gives, of any other module `Site.module`.
            model: whose modules may be named.

        Raises:
            InvalidArgument: nothing is called that; the message names the three nearest sites. TransformerLens's
            `ln2.hook_normalized` is no site: the message says how `mlp_in` differs from it.

        Examples:
            >>> Site.parse("blocks.6.hook_resid_post") == Site.parse("resid_post.6")
            True
        """
        by_module = _BY_MODULE.fullmatch(text)
        if by_module:
            return Site.module(by_module[1], "input" if by_module[2] else "output")
        short = _SHORT.fullmatch(text)
        expert = (short[5] or short[6]) if short else None
        if short and short[2] in _TRANSFORMER_LENS and (expert is None or short[2] in OF_ONE_EXPERT):
            number = short[3] or short[4]
            whole = [None if one is None else int(one) for one in (number, expert)]
            return Site(short[2], whole[0], short[1] or "", expert=whole[1])
        for name, long_name in _TRANSFORMER_LENS.items():
            long = re.fullmatch(r"(?:(\w+)\.)??" + re.escape(long_name).replace(r"\{\}", r"(\d+)"), text)
            if long:
                return Site(name, int(long[2]) if long.re.groups > 1 else None, long[1] or "")
        module = None if model is None else dict(model.hf.named_modules()).get(text)
        if model is not None and module is not None:
            given = (site for site, tap in model.taps.items() if site.name == "resid_post" and tap.module is module)
            return next(given, Site.module(text))
        layer = re.search(r"(?<=\.)\d+$", text)
        written = _TRANSFORMER_LENS.values() if layer is None else ()
        raise InvalidArgument(_unknown(text, (*_name_sites(layer[0] if layer else "0"), *written)))


@runtime_checkable
class NamedModules(Protocol):
    """A model whose modules have names, and some of them places."""

    @property
    def hf(self) -> Any:
        """Its module."""
        ...

    @property
    def taps(self) -> Mapping[Site, Any]:
        """Where its sites sit."""
        ...


def match(pattern: str, sites: tuple[Site, ...]) -> tuple[Site, ...]:
    """Return the sites whose name or TransformerLens name a glob matches, in their order.

    Args:
        pattern: such as `resid_post.*` or `blocks.*.hook_resid_post`.
        sites: where to look, usually `model.sites`.

    Raises:
        InvalidArgument: the glob matches none of them.

    Examples:
        >>> match("resid_post.*", (Site("resid_post", 0), Site("mlp_out", 0)))
        (resid_post.0,)
    """
    found = tuple(
        site for site in sites if fnmatchcase(str(site), pattern) or fnmatchcase(site.transformer_lens_name, pattern)
    )
    if not found:
        raise InvalidArgument(_unknown(pattern, map(str, sites)))
    return found


def find_sites(
    asked: Site | str | Iterable[Site | str], sites: tuple[Site, ...], model: NamedModules | None = None
) -> tuple[Site, ...]:
    """Return the sites asked for, each once: by themselves, by a name, or by globs of those there are.

    Raises:
        InvalidType: a name that waits for its layer.
        InvalidArgument: nothing is called that, or a glob matches none of them.

    Examples:
        >>> find_sites(["logits", "z.*"], (Site("z", 0), Site("z", 1)))
        (logits, z.0, z.1)
    """
    listed = [asked] if isinstance(asked, Site | str) else asked
    listed = [listed] if isinstance(listed, LayerSites) else listed
    found: list[Site] = []
    for one in listed:
        if isinstance(one, LayerSites):
            raise InvalidType(f"{one.name} needs a layer: write {one.name}[0], or '{one.name}.*' for all of them")
        if isinstance(one, Site):
            found.append(one)
        else:
            written = _SHORT.fullmatch(one)
            found += (
                match(one, sites) if not written and any(sign in one for sign in "*?[") else [Site.parse(one, model)]
            )
    return tuple(dict.fromkeys(resolve_layer(site, sites) for site in found))


def resolve_layer(site: Site, sites: Iterable[Site]) -> Site:
    """Return a site whose layer is counted from the last, as `resid_post[-1]` is, by the number of its layer.

    Raises:
        UnknownSite: there are fewer layers.

    Examples:
        >>> resolve_layer(Site("z", -1), (Site("z", 0), Site("z", 1)))
        z.1
    """
    if site.layer is None or site.layer >= 0:
        return site
    layers = [one.layer for one in sites if one.stack == site.stack and one.layer is not None]
    n = max(layers, default=-1) + 1
    if n + site.layer < 0:
        raise UnknownSite(f"{site} counts from the last of {n} layers: count from 0")
    return replace(site, layer=n + site.layer)


@final
@dataclass(frozen=True)
class LayerSites:
    """A site name that waits for its layer: `resid_post[6]` is a `Site`, and `expert_out[6, 2]` that of one expert.

    Examples:
        >>> LayerSites("z")[3], LayerSites("expert_out")[3, 1]
        (z.3, expert_out.3.1)
    """

    name: str
    stack: str = ""
    __iter__: ClassVar[None] = None  # else Python would count layers without end

    def __getitem__(self, layer: int | tuple[int, int]) -> Site:
        if isinstance(layer, tuple):
            return Site(self.name, layer[0], self.stack, expert=layer[1])
        return Site(self.name, layer, self.stack)


@final
@dataclass(frozen=True)
class StackSites:
    """The sites of one stack of blocks of several: `encoder.resid_post[3]`.

    Examples:
        >>> encoder.resid_post[3]
        encoder.resid_post.3
    """

    stack: str

    def __getattr__(self, name: str) -> LayerSites:
        if name not in _IN_LAYERS:
            raise AttributeError(_unknown(name, _IN_LAYERS))
        return LayerSites(name, self.stack)


def _unknown(given: str, choices: Iterable[str]) -> str:
    if given.endswith(_UNGAINED):
        return (
            f"no site is called '{given}': it is mlp_in (TransformerLens's mlp.hook_in) without the gain and bias of "
            "the norm; fold both into the weights that read it, and name mlp_in"
        )
    return (
        f"no site is called '{given}'; did you mean {nearest(given, choices)}? "
        "`model.sites` lists every site of a model, and `interp sites MODEL` prints them"
    )


def _name_sites(layer: str) -> list[str]:
    """Every site's name, those in layers with this one."""
    return [f"{name}.{layer}" if name in _IN_LAYERS else name for name in _TRANSFORMER_LENS]


def check_one_width(sites: Iterable[Site]) -> None:
    """Refuse attention patterns where rows of several texts are put one below the other.

    Raises:
        InvalidArgument: the width of a site depends on the text.
    """
    for site in sites:
        if site.name in PATTERNS:
            z = replace(site, name=site.name.removesuffix("pattern") + "z")
            raise InvalidArgument(
                f"{site} has a width that depends on the text, so rows of several texts do not go together: take {z}, "
                "or capture the patterns of each text"
            )


embed: Final = Site("embed")
pos_embed: Final = Site("pos_embed")
resid_pre: Final = LayerSites("resid_pre")
layer_embed: Final = LayerSites("layer_embed")
resid_mid: Final = LayerSites("resid_mid")
resid_post: Final = LayerSites("resid_post")
attn_out: Final = LayerSites("attn_out")
attn_gate: Final = LayerSites("attn_gate")
cross_q: Final = LayerSites("cross_q")
cross_k: Final = LayerSites("cross_k")
cross_v: Final = LayerSites("cross_v")
cross_z: Final = LayerSites("cross_z")
cross_pattern: Final = LayerSites("cross_pattern")
cross_out: Final = LayerSites("cross_out")
mixer_in: Final = LayerSites("mixer_in")
mixer_gate: Final = LayerSites("mixer_gate")
mixer_state: Final = LayerSites("mixer_state")
mixer_out: Final = LayerSites("mixer_out")
q: Final = LayerSites("q")
k: Final = LayerSites("k")
v: Final = LayerSites("v")
z: Final = LayerSites("z")
pattern: Final = LayerSites("pattern")
mlp_in: Final = LayerSites("mlp_in")
mlp_pre: Final = LayerSites("mlp_pre")
mlp_act: Final = LayerSites("mlp_act")
router_logits: Final = LayerSites("router_logits")
expert_choice: Final = LayerSites("expert_choice")
expert_weights: Final = LayerSites("expert_weights")
expert_act: Final = LayerSites("expert_act")
expert_out: Final = LayerSites("expert_out")
shared_out: Final = LayerSites("shared_out")
mlp_out: Final = LayerSites("mlp_out")
ln_final_scale: Final = Site("ln_final_scale")
conv_pre: Final = LayerSites("conv_pre")
conv_act: Final = LayerSites("conv_act")
pool: Final = LayerSites("pool")
fc_act: Final = LayerSites("fc_act")
embedding: Final = Site("embedding")
logits: Final = Site("logits")
encoder: Final = StackSites("encoder")
decoder: Final = StackSites("decoder")
