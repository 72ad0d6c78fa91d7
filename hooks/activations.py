"""Captured activations: the tensor of each site, with the tokens they belong to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NotRequired, final

from jaxtyping import Float, Shaped
from torch import Tensor
from typing_extensions import TypedDict

from hooks.errors import UnknownName, nearest
from hooks.grid import as_json, from_json
from hooks.images import Images, Scaling
from hooks.json_file import Kind, parse_contents
from hooks.position import Position, everywhere
from hooks.site import PATTERNS, Site
from hooks.site_names import SiteNames
from hooks.tensor_file import read_tensors, write_tensors
from hooks.tokens import Tokens


class ActivationsHeader(TypedDict):
    """What a file says of activations."""

    texts: list[str] | None
    prompt_pos: int | None
    fingerprint: str | None
    changed_by: NotRequired[list[str]]
    layers: NotRequired[dict[str, int]]
    blocks: NotRequired[dict[str, str]]
    grids: NotRequired[dict[str, Any]]
    scaling: NotRequired[dict[str, Any] | None]


KIND: Final = Kind("hooks.activations", "activations", "Activations.save", ActivationsHeader)


@final
@dataclass(frozen=True, eq=False)
class Activations:
    """What was captured, by site.

    Attributes:
        values: the tensor of each site, [batch pos *d]; attention patterns are [batch head pos pos].
        tokens: the tokens they were computed from.
        fingerprint: of the weights that computed them, as they were then.
        names: what else that model's sites are called, so that `acts[resid_post[-1]]` and `acts["model.layers.6"]` are
            understood.
        changed_by: what changed the pass besides the weights: the interventions of open blocks, edits next to weights.

    Examples:
        ```python
        acts = capture(model, texts, [resid_post[6]])
        acts[resid_post[6]].shape, acts.flat(resid_post[6], at=last).shape
        ```
    """

    values: Mapping[Site, Shaped[Tensor, "batch ..."]]
    tokens: Tokens
    fingerprint: str | None = None
    names: SiteNames = SiteNames()  # noqa: RUF009
    changed_by: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shapes = ", ".join(f"{site}: {list(value.shape)}" for site, value in self.values.items())
        return f"Activations({shapes}{''.join(f'; {one}' for one in self.changed_by)})"

    @property
    def sites(self) -> tuple[Site, ...]:
        """What was captured."""
        return tuple(self.values)

    def __getitem__(self, site: Site | str) -> Float[Tensor, "batch pos *d"]:
        site = self.names.find(site, self.values)
        if site not in self.values:
            near = nearest(str(site), map(str, self.values))
            raise UnknownName(f"{site} was not captured; the nearest that was: {near}")
        return self.values[site]

    def flat(self, site: Site | str, at: Position = everywhere) -> Float[Tensor, "n *d"]:
        """Return the selected tokens' rows, text after text; special tokens and padding are left out.

        Args:
            site: a captured site.
            at: which tokens.

        Raises:
            UnknownName: the site was not captured.
            InvalidArgument: a text lacks what the position speaks of.

        Examples:
            ```python
            acts.flat(resid_post[6], at=substring("Golden Gate Bridge"))
            ```
        """
        site = self.names.find(site, self.values)
        value = self[site].transpose(1, 2) if site.name in PATTERNS else self[site]
        return value[at.mask(self.tokens.places(value.shape[1], site))]

    def save(self, path: str | Path) -> None:
        """Write the activations and their tokens to one safetensors file.

        Examples:
            ```python
            acts.save("acts.safetensors")
            ```
        """
        tokens = self.tokens
        tensors = {"ids": tokens.ids, "mask": tokens.mask, "special": tokens.special}
        if tokens.offsets is not None:
            tensors["offsets"] = tokens.offsets
        if tokens.cut_from is not None:
            tensors["cut_from"] = tokens.text_number
        tensors |= {f"site:{site}": value for site, value in self.values.items()}
        tensors |= {f"input:{slot}": one for slot, one in (tokens.inputs or {}).items()}
        if tokens.images is not None:
            tensors |= {"pixels": tokens.images.pixels}
            tensors |= {f"mask:{name}": mask for name, mask in tokens.images.masks.items()}
        grids = {str(site): as_json(grid) for site, grid in (tokens.grids or {}).items() if site in self.values}
        scaling = None if tokens.images is None else tokens.images.scaling
        about = {
            "texts": tokens.texts,
            "prompt_pos": tokens.prompt_pos,
            "fingerprint": self.fingerprint,
            "changed_by": self.changed_by,
            "layers": self.names.layers,
            "blocks": self.names.blocks,
            "grids": grids,
            "scaling": None if scaling is None else asdict(scaling),
        }
        write_tensors(path, KIND, tensors, about)

    @staticmethod
    def load(path: str | Path) -> "Activations":
        """Read activations that `save` wrote.

        Raises:
            MissingFile: there is no such file.
            DamagedFile: it is torn, changed, or holds something else.

        Examples:
            ```python
            Activations.load("acts.safetensors")
            ```
        """
        tensors, about = read_tensors(path, KIND)
        return parse_contents(path, KIND, lambda: Activations._of(tensors, about))

    @staticmethod
    def _of(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> "Activations":
        given = {name.removeprefix("input:"): one for name, one in tensors.items() if name.startswith("input:")}
        tokens = Tokens(
            ids=tensors["ids"],
            mask=tensors["mask"],
            special=tensors["special"],
            texts=None if about["texts"] is None else tuple(about["texts"]),
            offsets=tensors.get("offsets"),
            prompt_pos=about["prompt_pos"],
            cut_from=tuple(tensors["cut_from"].tolist()) if "cut_from" in tensors else None,
            inputs={int(slot) if slot.isdigit() else slot: one for slot, one in given.items()} or None,
            images=_images(tensors, about.get("scaling")),
            grids={Site.parse(name): from_json(said) for name, said in about.get("grids", {}).items()} or None,
        )
        named = {name.removeprefix("site:"): value for name, value in tensors.items() if name.startswith("site:")}
        values = {Site.parse(name): value for name, value in named.items()}
        names = SiteNames(about.get("layers", {}), about.get("blocks", {}))
        return Activations(values, tokens, about["fingerprint"], names, tuple(about.get("changed_by", ())))


def _images(tensors: Mapping[str, Tensor], scaling: Mapping[str, Any] | None) -> Images | None:
    if "pixels" not in tensors:
        return None
    masks = {name.removeprefix("mask:"): one for name, one in tensors.items() if name.startswith("mask:")}
    how = None if scaling is None else Scaling(tuple(scaling["mean"]), tuple(scaling["std"]), scaling["slot"])
    return Images(tensors["pixels"], masks, scaling=how)
