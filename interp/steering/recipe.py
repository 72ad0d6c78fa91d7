"""A steered model as a recipe of kilobytes: which direction, how, how much, where; saved, shared, and run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NotRequired, final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from hooks import Direction, Model, Position, Receipt
from hooks.border import Count, Natural, NotNegative
from hooks.direction import DirectionHeader
from hooks.errors import InvalidArgument, nearest
from hooks.json_file import Kind, parse_contents
from hooks.position import everywhere, generated, last, prompt
from hooks.tensor_file import read_tensors, write_tensors
from interp.steering.conditional import Conditional
from interp.steering.rules import ablate_direction, set_projection
from interp.steering.steer import steer
from interp.steering.steering import Steering, add_direction


class RecipeHeader(TypedDict):
    """What a file says of a recipe."""

    way: str
    dose: float
    at: str
    threshold: float
    direction: DirectionHeader
    condition: NotRequired[DirectionHeader]


WAYS: Final[dict[str, Callable[[Direction, Position], Steering]]] = {
    "add": add_direction,
    "set": set_projection,
    "ablate": ablate_direction,
}
KIND: Final = Kind("interp.recipe", "recipe", "Recipe.save", RecipeHeader)
PLACES: Final = {str(place): place for place in (everywhere, prompt, generated, last)}


@final
@dataclass(frozen=True, eq=False)
class Recipe:
    """How to steer: `way` is "add", "set" or "ablate", at "everywhere", "prompt", "generated" or "last".

    With a `condition` it acts only on texts whose prompt has a mean projection above `threshold` on it.

    Raises:
        InvalidArgument: an unknown way or place, with the nearest.

    Examples:
        ```python
        Recipe(found.best.direction, "add", 4.0).save("golden_gate.safetensors")
        model = SteeredModel(load("gpt2"), Recipe.load("golden_gate.safetensors"))
        model.generate("I am")
        ```
    """

    direction: Direction
    way: str
    dose: float
    at: str = "everywhere"
    condition: Direction | None = None
    threshold: float = 0.0

    def __post_init__(self) -> None:
        for name, known in ((self.way, WAYS), (self.at, PLACES)):
            if name not in known:
                raise InvalidArgument(f"a recipe knows no {name!r}; did you mean {nearest(name, known)}?")

    @property
    def steering(self) -> Steering | Conditional:
        """What it says, ready for `steer`."""
        made = WAYS[self.way](self.direction, PLACES[self.at])
        return made if self.condition is None else Conditional(made, self.condition, self.threshold)

    def save(self, path: str | Path) -> None:
        """Write it to one safetensors file of a few kilobytes."""
        parts = {"direction": self.direction} | ({"condition": self.condition} if self.condition else {})
        about = {"way": self.way, "dose": self.dose, "at": self.at, "threshold": self.threshold} | {
            name: d.said for name, d in parts.items()
        }
        write_tensors(path, KIND, {name: d.vector for name, d in parts.items()}, about)

    @staticmethod
    def load(path: str | Path) -> "Recipe":
        """Read what `save` wrote.

        Raises:
            InvalidArgument: the file holds something else.
        """
        tensors, about = read_tensors(path, KIND)
        return parse_contents(path, KIND, lambda: _recipe(tensors, about))


@final
class SteeredModel:
    """A model that is steered by a recipe whenever it runs or generates, and as it was otherwise.

    Raises:
        InvalidArgument: the recipe is of another model.
    """

    def __init__(self, model: Model, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.steer()  # raises where the recipe does not fit

    def __repr__(self) -> str:
        return f"SteeredModel({self.model.name!r}, {self.recipe.steering.source}, dose {self.recipe.dose:g})"

    def steer(self) -> AbstractContextManager[Receipt]:
        """The block in which the recipe acts."""
        return steer(self.model, self.recipe.steering, self.recipe.dose)

    def run(self, text: str | Sequence[str]) -> Float[Tensor, "batch pos vocab"]:
        """`Model.run`, steered, without gradients."""
        with self.steer(), torch.no_grad():
            return self.model.run(text)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: Count = 40,
        temperature: NotNegative = 0.0,
        seed: Natural = 0,
    ) -> str | list[str]:
        """`Model.generate`, steered."""
        with self.steer():
            return self.model.generate(prompt, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


def format_chat(model: Model, message: str, system: str = "") -> str:
    """A message as the prompt of a chat model, in its own template, ready for `generate`.

    The beginning-of-text token is left out where the tokenizer adds it by itself, so that it is not there twice.

    Raises:
        InvalidArgument: the tokenizer has no chat template.

    Examples:
        ```python
        model.generate(format_chat(model, "Who are you?"))
        ```
    """
    tokenizer = model.tokenizer
    if getattr(tokenizer, "chat_template", None) is None:
        raise InvalidArgument(
            f"the tokenizer of {model.name} has no chat template: write the prompt as the model wants it"
        )
    turns = ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": message}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    start = tokenizer.bos_token
    adds = start is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return text.removeprefix(start) if adds else text


def _recipe(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Recipe:
    made = {name: Direction.of(vector, about[name]) for name, vector in tensors.items()}
    condition = made.get("condition")
    return Recipe(made["direction"], about["way"], about["dose"], about["at"], condition, about["threshold"])
