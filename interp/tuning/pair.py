"""Two checkpoints of one architecture: a base model and one that was tuned from it, held to read the same tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hooks import Model, load
from hooks.errors import MissingExtra, WrongModel

PROBE = "In 1937 the bridge was opened: über 2,700 metres of steel, and fog."


@final
@dataclass(frozen=True, eq=False, repr=False)
class ModelPair:
    """A base model and one tuned from it.

    Both must have the same sites of the same shapes, and tokenise alike.

    Raises:
        WrongModel: they differ in sites, shapes or tokens, so that nothing of one can be compared with the other.

    Examples:
        ```python
        ModelPair(load("landmark"), load_guide("cheerful"))
        ```
    """

    base: Model
    tuned: Model

    def __post_init__(self) -> None:
        shapes = [{site: tap.shape for site, tap in model.taps.items()} for model in (self.base, self.tuned)]
        differ = [str(site) for site in {**shapes[0], **shapes[1]} if shapes[0].get(site) != shapes[1].get(site)]
        if differ:
            raise WrongModel(
                f"{self.base.name} and {self.tuned.name} differ in {len(differ)} sites, first {differ[0]}: give two "
                "checkpoints of one architecture"
            )
        if self.base.d_vocab != self.tuned.d_vocab:
            raise WrongModel(
                f"{self.base.name} has {self.base.d_vocab} tokens and {self.tuned.name} {self.tuned.d_vocab}: their "
                "logits cannot be compared"
            )
        read = [model.tokens(PROBE).ids.tolist() for model in (self.base, self.tuned) if model.tokenizer is not None]
        if len(read) == 2 and read[0] != read[1]:
            raise WrongModel(f"{self.base.name} and {self.tuned.name} tokenise a text differently: give one tokenizer")

    def __repr__(self) -> str:
        return f"ModelPair({self.base.name!r}, tuned: {self.tuned.name!r})"


def load_pair(base: str | Path, tuned: str | Path, *, device: str | None = None) -> ModelPair:
    """Load a base model and a tuned one; a folder that holds a LoRA adapter is put on the base model's weights.

    Raises:
        WrongModel: they are of two architectures, or tokenise differently.
        MissingFile: nothing is found there.
        MissingExtra: `tuned` is an adapter, and PEFT is not installed.

    Cost: that of loading both.

    Examples:
        ```python
        load_pair("gpt2", "runs/my_adapter")
        ```
    """
    plain = load(base, device=device)
    if not (Path(tuned) / "adapter_config.json").is_file():
        return ModelPair(plain, load(tuned, device=device))
    return ModelPair(plain, _with_adapter(load(base, device=device, check=False), Path(tuned)))


def _with_adapter(model: Model, folder: Path) -> Model:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtra(
            "a LoRA adapter is read by PEFT: pip install 'interp-workbench[export]', or merge it first"
        ) from error
    hf: Any = PeftModel.from_pretrained(model.hf, str(folder))
    return load(hf.merge_and_unload(), model.tokenizer)
