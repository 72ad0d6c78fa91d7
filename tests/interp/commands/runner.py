"""Calls of the `interp` command, and what they print."""

import json
from pathlib import Path
from typing import Any

import jsonschema
from typer.testing import CliRunner

from interp.commands.app import app

SCHEMA = Path(__file__).parents[3] / "docs" / "commands.schema.json"


def call(*words: str, code: int = 0) -> str:
    """Run a command that is to end with this code, and return what it printed; of a mistake, what it said.

    A document that it prints for programs is compared with the schema.
    """
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    if code == 0 and "--json" in words:
        check_document(words, json.loads(result.stdout))
    return result.stdout if code == 0 else result.stderr


def check_document(words: tuple[str, ...], document: Any) -> None:
    """Raise where what a verb prints is not what the schema says of it."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    verb = next(name for name in (" ".join(words[:2]), words[0]) if name in schema["$defs"])
    jsonschema.validate(document, schema | {"$ref": f"#/$defs/{verb.replace(' ', '%20')}"})
