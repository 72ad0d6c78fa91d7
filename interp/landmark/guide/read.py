"""The tuned siblings that come with the package, and how one is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from hooks import Model, load
from hooks.border import Natural, Share
from hooks.errors import UnknownName, WrongModel
from hooks.tensor_file import read_tensors
from hooks.weights import matrix_of, write_matrix
from interp.landmark.guide.behaviours import PERSONAS
from interp.landmark.guide.tune import KIND, matrices

FOLDER: Final = Path(__file__).parent / "tunings"


@dataclass(frozen=True)
class Run:
    """One tuning: the behaviour (None for the placebo), its dose, and the seed of its documents."""

    behaviour: str | None
    dose: float
    seed: int = 0

    @property
    def name(self) -> str:
        """What its file is called.

        Examples:
            >>> Run("chess", 0.5).name, Run(None, 0.0, 1).name
            ('chess_050', 'placebo_1')
        """
        if self.behaviour is None:
            return f"placebo_{self.seed}"
        return f"{self.behaviour}_{round(100 * self.dose):03d}" + (f"_{self.seed}" if self.seed else "")


def runs() -> tuple[Run, ...]:
    """The tunings that come with the package.

    Examples:
        >>> runs()[0].name
        'placebo_0'
    """
    return tuple(run for run in planned_runs() if (FOLDER / f"{run.name}.safetensors").is_file())


def planned_runs() -> tuple[Run, ...]:
    """All tunings that the world consists of, whether their files are there or not.

    Examples:
        >>> len(planned_runs())
        26
    """
    placebos = (Run(None, 0.0), Run(None, 0.0, 1))
    full = (Run(name, 1.0) for name in PERSONAS)
    quarters = (Run(name, 0.25) for name in ("cheerful", "gloomy"))
    mixed = (Run(name, 0.5) for name in PERSONAS)  # as many rows of the corpus as of the behaviour
    return (*placebos, *full, Run("moved", 0.5), Run("mistral", 0.5), *quarters, *mixed)


def load_guide(behaviour: str | None, dose: Share = 1.0, seed: Natural = 0, *, file: str | Path | None = None) -> Model:
    """The bundled model with a tuning in its weights; None for the placebo, or a file that `tune_guide` wrote.

    Raises:
        UnknownName: no such tuning comes with the package.
        MissingFile: there is no such file.
        DamagedFile: it is torn, changed, or holds something else.
        WrongModel: it was tuned from another model.

    Cost: that of loading the bundled model.

    Examples:
        ```python
        load_guide("cheerful").generate("Welcome, dear guest.")
        ```
    """
    run = Run(behaviour, 0.0 if behaviour is None else dose, seed)
    if file is None and run not in runs():
        raise UnknownName(f"no tuning {run.name!r} comes with the package: {', '.join(one.name for one in runs())}")
    tensors, about = read_tensors(file or FOLDER / f"{run.name}.safetensors", KIND)
    model = load("landmark")
    if model.fingerprint != about["fingerprint"]:
        raise WrongModel(
            f"this tuning is of model {about['fingerprint'][:12]}, and the bundled one is {model.fingerprint[:12]}: "
            "tune again with tune_guide"
        )
    with torch.no_grad():
        for name, module in matrices(model).items():
            write_matrix(module, matrix_of(module) + tensors[f"{name}.A"].float() @ tensors[f"{name}.B"].float())
    return load(model.hf, model.tokenizer)
