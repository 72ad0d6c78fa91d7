"""The errors of this library, each also the built-in error that Python has for its kind, and how texts suggest names.

```
InterpError
├── InvalidArgument (ValueError)        a value that is not allowed: the text names it, what was expected, and the fix
│   ├── UnknownName (KeyError)          no layer, probe, editor, column … is called that; the nearest are named
│   │   └── UnknownSite                 the model has no such site
│   ├── ContractBroken                  the model breaks a law that this depends on, so the answer would be wrong
│   ├── InvalidType (TypeError)         an object of another kind than is taken there
│   ├── WrongModel                      made from another model, other weights or other data than it is used with
│   ├── DamagedFile                     a file that is torn, changed, or not what its name says
│   └── NoFluentDose                    no dose of a steering keeps the text fluent
├── OutOfRange (IndexError)             no latent, layer, row … has that number
├── MissingFile (FileNotFoundError)     there is no such file or folder
├── StorageFailed (OSError)             a disk is full, or a folder cannot be written
├── NotReachable (ConnectionError)      a hub or a server does not answer
├── MissingExtra (ImportError)          an optional package is not installed; the text has the command that installs it
├── NotFinite (FloatingPointError)      a number became NaN or infinite
└── WrongState (RuntimeError)           a call at the wrong time: inside a block, before fit, in two processes
    ├── NothingChanged                  an intervention was never reached, so a result would be of the unchanged model
    ├── NotConverged                    a search or a fit ended before it arrived
    └── EditRefused                     an edit that does not do what it was asked for, or does too much else
```
"""

from collections.abc import Iterable
from difflib import get_close_matches


class InterpError(Exception):
    """Anything that this library refuses; catch it to catch all of them.

    Examples:
        >>> issubclass(UnknownSite, InterpError) and issubclass(UnknownSite, ValueError)
        True
    """

    def __str__(self) -> str:
        return " ".join(map(str, self.args))


class InvalidArgument(InterpError, ValueError):
    """A value that is not allowed; the text names it, what was expected, and the fix."""


class UnknownName(InvalidArgument, KeyError):
    """Nothing is called that; the nearest names are in the text."""


class UnknownSite(UnknownName):
    """The model has no such site."""


class ContractBroken(InvalidArgument):
    """The model breaks a law that this depends on, so the answer would be wrong."""


class WrongModel(InvalidArgument):
    """Made from another model, other weights or other data than it is used with."""


class DamagedFile(InvalidArgument):
    """A file that is torn, changed, or not what its name says."""


class NoFluentDose(InvalidArgument):
    """No dose of a steering keeps the text fluent."""


class InvalidType(InvalidArgument, TypeError):
    """An object of another kind than is taken there."""


class OutOfRange(InterpError, IndexError):
    """No latent, layer or row has that number."""


class MissingFile(InterpError, FileNotFoundError):
    """There is no such file or folder."""


class StorageFailed(InterpError, OSError):
    """A disk is full, or a folder cannot be written."""


class NotReachable(InterpError, ConnectionError):
    """A hub or a server does not answer."""


class MissingExtra(InterpError, ImportError):
    """An optional package is not installed; the text has the command that installs it."""


class NotFinite(InterpError, FloatingPointError):
    """A number became NaN or infinite."""


class WrongState(InterpError, RuntimeError):
    """A call at the wrong time: inside a block of interventions, before a fit, in another process."""


class NothingChanged(WrongState):
    """An intervention was never reached, so a result would be of the unchanged model."""


class NotConverged(WrongState):
    """A search or a fit ended before it arrived."""


class EditRefused(WrongState):
    """An edit that does not do what it was asked for, or does too much else."""


def nearest(given: str, choices: Iterable[str]) -> str:
    """Return the three choices that look most like `given`, quoted and ready for an error message.

    Args:
        given: what was asked for.
        choices: what exists.

    Returns:
        `'a', 'b' or 'c'`; the first choices when none is close.

    Examples:
        >>> nearest("resid_pots", ["resid_post", "mlp_out"])
        "'resid_post'"
    """
    choices = list(dict.fromkeys(choices))
    close = get_close_matches(given, choices, n=3, cutoff=0.5) or choices[:3]
    quoted = [f"'{choice}'" for choice in close]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
