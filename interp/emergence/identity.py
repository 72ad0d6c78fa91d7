"""What a file of a track is of: the metrics by their code and arguments, the models by their weights."""

import json
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from hooks import Model
from hooks.disk import checksum, record_file
from hooks.fingerprint import fingerprint
from interp.common.digests import DataDigest

PLAIN = (bool, int, float, str, bytes, Tensor, np.ndarray)


def digest_of_metric(metric: object) -> str:
    """A digest of a function: its name, its code, and the arguments, defaults and outer variables it holds.

    Numbers, text, tensors, models, functions, and lists, mappings and dataclasses of them count with all they hold;
    anything else with its type. What the function calls counts with its name.

    Examples:
        >>> of = lambda n: lambda model: n
        >>> digest_of_metric(of(1)) == digest_of_metric(of(1)), digest_of_metric(of(1)) == digest_of_metric(of(2))
        (True, False)
    """
    digest = DataDigest()
    digest.add([[_describe(metric, ())]])
    return digest.hexdigest()


def digest_of_source(source: str | Path | Model) -> str:
    """A digest of a model's weights, or of all files of its folder; the name of what is no folder.

    Cost: one reading of the weights, or of the files.

    Examples:
        ```python
        digest_of_source("runs/induction-1/step_100")
        ```
    """
    if isinstance(source, Model):
        return fingerprint(source.hf)
    folder = Path(source)
    if not folder.is_dir():
        return str(source)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return checksum(*(part for file in files for part in (file.name, json.dumps(record_file(file)))))


def _describe(value: Any, within: tuple[int, ...]) -> object:
    """What tells a value from others; `within` are those that it is held by."""
    if value is None or isinstance(value, PLAIN):
        return value
    if id(value) in within:
        return "itself"
    within = (*within, id(value))
    if isinstance(value, Model):
        return ["model", fingerprint(value.hf)]
    if isinstance(value, partial):
        return ["partial", *(_describe(one, within) for one in (value.func, value.args, value.keywords))]
    if isinstance(value, MethodType):
        return ["method", *(_describe(one, within) for one in (value.__self__, value.__func__))]
    if isinstance(value, FunctionType):
        return _describe_function(value, within)
    return _describe_holder(value, within)


def _describe_holder(value: Any, within: tuple[int, ...]) -> object:
    """The same of what holds others, or is known by its name or type alone."""
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, _describe(value.co_consts, within)]
    if isinstance(value, Mapping):
        return ["mapping", *([_describe(k, within), _describe(v, within)] for k, v in value.items())]
    if isinstance(value, list | tuple):
        return [_describe(one, within) for one in value]
    if isinstance(value, Set):
        return ["set", *sorted(map(str, value))]
    if is_dataclass(value) and not isinstance(value, type):
        held = {one.name: _describe(getattr(value, one.name), within) for one in fields(value)}
        return [_name_of(type(value)), held]
    named = isinstance(value, type | ModuleType) or hasattr(value, "__qualname__")
    return _name_of(value if named else type(value))


def _describe_function(function: FunctionType, within: tuple[int, ...]) -> object:
    cells = [_held(cell) for cell in function.__closure__ or ()]
    holds = (function.__code__, function.__defaults__, function.__kwdefaults__, cells)
    return ["function", _name_of(function), *(_describe(one, within) for one in holds)]


def _held(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value.__name__)}"
