"""Write docs/commands.schema.json: a JSON schema of what each verb prints with `--json`, from docs/commands.md.

python docs/write_schema.py
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, SCHEMA = ROOT / "docs" / "commands.md", ROOT / "docs" / "commands.schema.json"
_ROW = re.compile(r"^\| ((?:`[^`]+`(?:, )?)+) \| (.*) \|$", re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")
_INSIDE = re.compile(r"\([^)]*\)")
ESTIMATE = {
    "type": "object",
    "description": "a measured value with its 95 % interval",
    "properties": {name: {"type": ["number", "null"]} for name in ("value", "low", "high")}
    | {"n": {"type": "integer"}},
    "required": ["value", "low", "high", "n"],
}


def schema() -> dict[str, Any]:
    """The schema: under `$defs` one for each verb, with the keys that its document may have, and no others."""
    verbs: dict[str, Any] = {}
    for names, said in _ROW.findall(PAGE.read_text("utf-8")):
        keys = _NAME.findall(_INSIDE.sub("", said))
        described = {key: inside for key, inside in re.findall(r"`([^`]+)` \(([^)]*)\)", said)}
        properties = {key: {"description": described[key]} if key in described else {} for key in keys}
        for name in _NAME.findall(names):
            verbs[name] = {
                "type": "object",
                "properties": {key: of for key, of in properties.items() if not key.startswith("--")},
                "additionalProperties": "what was sampled with" in said,
            }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What each verb of interp prints with --json",
        "$defs": {"estimate": ESTIMATE, **verbs},
    }


def text() -> str:
    """The file as it is written."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA.write_text(text(), encoding="utf-8")
