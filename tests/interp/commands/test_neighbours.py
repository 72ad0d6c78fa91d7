"""The command that shows neighbours of a token, on the tiny model."""

import json

from tests.interp.commands.runner import call


def test_a_token_is_asked_for_by_its_text_or_its_id_and_has_a_control(folder: str) -> None:
    found = json.loads(call("neighbours", folder, "a", "--k", "3", "--json"))
    again = json.loads(call("neighbours", folder, "id:64", "--k", "3", "--json"))
    assert found["excluded"] == ["a"] and len(found["numbers"]) == 3
    assert again["excluded"] == [chr(33 + 64)] and again["neighbours"] == found["neighbours"]
    assert found["control_is"] == "a random direction" and len(found["control"]) == 3
    assert "id:" in call("neighbours", folder, "a", "--k", "3")
