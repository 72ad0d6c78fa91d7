"""What an export wrote, how far what its reader computes is from ours, and what could not be taken along."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from hooks.errors import WrongState

LARGEST: Final = 0.1
"""The largest difference, as a share of the effect, at which a file still holds what was exported."""


@final
@dataclass(frozen=True)
class ExportReport:
    """What was written, and how well it was read back.

    Attributes:
        what: the thing exported and the form it has now.
        files: what was written.
        checked_with: what read the files back and computed with them; empty where nothing did.
        difference: the largest difference between what that reader computes and what we do.
        effect: the largest difference between ours and the same without the thing exported: what the difference is
            to be compared with, as a file that changes nothing differs by all of it.
        lost: what the form cannot hold, one sentence each.
    """

    what: str
    files: tuple[Path, ...]
    checked_with: str = ""
    difference: float | None = None
    effect: float | None = None
    lost: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.what}: {', '.join(str(file) for file in self.files)}"]
        if self.difference is not None:
            rivals = "" if self.effect is None else f", where the whole effect is {self.effect:.3g}"
            lines.append(f"read back with {self.checked_with}: differs by at most {self.difference:.2g}{rivals}")
        else:
            lines.append("not read back: install its reader to check it")
        return "\n".join([*lines, *(f"not taken along: {one}" for one in self.lost)])

    def __repr__(self) -> str:
        return f"ExportReport({self.what!r}, {len(self.files)} files, difference {self.difference})"


def check_difference(report: ExportReport) -> None:
    """Refuse an export whose reader does not do what was exported.

    Raises:
        WrongState: it differs by more than a tenth of the whole effect.
    """
    if report.difference is None or report.effect is None:
        return
    if not report.difference <= LARGEST * report.effect:
        raise WrongState(
            f"{report.what}: {report.checked_with} differs from us by {report.difference:.3g}, where the whole effect "
            f"is {report.effect:.3g}, so the files do not hold it: do not use them, and report the model's family"
        )
