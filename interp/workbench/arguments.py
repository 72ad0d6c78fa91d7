"""The arguments of actions: no unknown names, numbers finite, lengths and sizes within limits."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Arguments(BaseModel):
    """Arguments of an action: no unknown names, numbers finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class TextArguments(Arguments):
    """A text to read."""

    text: Text
    top: Annotated[int, Field(ge=1, le=20)] = 5


class FeaturesArguments(TextArguments):
    """A text to read through a dictionary."""

    sae: Name


class AttributeArguments(Arguments):
    """A text, and the token whose logit is split, as a word or by its id."""

    text: Text
    word: Name | Annotated[int, Field(ge=0)]


class DirectionArguments(Arguments):
    """A direction: latent `latent` of `sae`, one of the session's by `name`, or the difference of two sets of texts."""

    dose: float
    sae: str = ""
    latent: Annotated[int, Field(ge=0)] = 0
    name: str = ""
    texts: list[Text] = []
    background: list[Text] = []
    site: str = ""


class SteerArguments(Arguments):
    """A prompt, up to eight directions with their doses, and how to generate."""

    prompt: Text
    directions: Annotated[list[DirectionArguments], Field(min_length=1, max_length=8)]
    max_new_tokens: Annotated[int, Field(ge=1, le=512)] = 40
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class DoseArguments(Arguments):
    """A prompt, one direction, the doses to compare, and the words that name the concept."""

    prompt: Text
    direction: DirectionArguments
    doses: Annotated[list[float], Field(min_length=1, max_length=12)]
    words: Annotated[list[Name], Field(min_length=1, max_length=8)]
    per_prompt: Annotated[int, Field(ge=1, le=32)] = 8
    max_new_tokens: Annotated[int, Field(ge=1, le=128)] = 30
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class EditArguments(Arguments):
    """A fact to edit, and by which method."""

    subject: Name
    prompt: Name
    old: Name
    new: Name
    method: str = "rome"


class NamedArguments(Arguments):
    """An edit by its name."""

    name: Name


class PatchArguments(Arguments):
    """Two prompts that differ, and what is said after each."""

    clean: Text
    corrupt: Text
    right: Name
    wrong: Name
    site: str = "resid_pre"


class SearchArguments(Arguments):
    """Words to look for in the labels of a dictionary's latents."""

    sae: Name
    words: Name
    top: Annotated[int, Field(ge=1, le=200)] = 50


class LatentArguments(Arguments):
    """A latent of a dictionary."""

    sae: Name
    latent: Annotated[int, Field(ge=0)]


class MapArguments(Arguments):
    """A dictionary to draw as a map."""

    sae: Name


class GraphArguments(Arguments):
    """A text, the transcoders to explain its next token by, and which tokens; the likeliest where none are named."""

    text: Text
    transcoders: Name
    targets: Annotated[list[Name], Field(max_length=5)] = []
    max_features: Annotated[int, Field(ge=1, le=5_000)] = 1_000


class SteerNodesArguments(Arguments):
    """Nodes of a graph that was drawn, by its name, and what their activations are multiplied by."""

    graph: Name
    nodes: Annotated[list[Name], Field(min_length=1, max_length=500)]
    factor: Annotated[float, Field(ge=-20, le=20)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


class CircuitArguments(Arguments):
    """Two prompts that differ, what is said after each, and how closely the slope is followed."""

    clean: Text
    corrupt: Text
    right: Name
    wrong: Name
    steps: Annotated[int, Field(ge=1, le=50)] = 5
    top: Annotated[int, Field(ge=1, le=200)] = 20


class ExportEditArguments(Arguments):
    """An edit by its name, and the form to have it in."""

    name: Name
    form: Literal["edit", "lora"] = "edit"


class ExportSteeringArguments(Arguments):
    """A direction with its dose, and the form to have it in."""

    direction: DirectionArguments
    form: Literal["recipe", "gguf", "script"] = "recipe"
