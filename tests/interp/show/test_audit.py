"""The table of an audit says every figure and every refusal."""

from interp.common.statistics import Estimate
from interp.memory import Audit
from interp.show import audit_panel


def made() -> Audit:
    row = {"efficacy": Estimate(0.5, 0.25, 0.75, 4), "drift": Estimate(0.0123, 0.01, 0.02, 4)}
    plain = {"efficacy": Estimate(0.0, 0.0, 0.0, 4)}
    message = {"unedited": " Italy <now>", "rome": " Peru", "rome control": "x"}
    said = {name: {"Rome is in": text} for name, text in message.items()}
    spoilt = {"efficacy": Estimate(0.25, 0.0, 0.5, 4)}
    return Audit({"unedited": plain, "rome": row, "rome control": spoilt}, {"rome": {"Rome is in": "no room"}}, said)


def test_each_mean_is_with_its_interval_and_what_is_missing_is_a_dash() -> None:
    panel = audit_panel(made())
    text = panel.body.text
    assert "50% <small>25% to 75%</small>" in text and "0.0123 <small>0.01 to 0.02</small>" in text
    assert "<small>control 25%</small>" in text and "<th>rome control</th>" not in text
    assert "\u2013</td>" in text and "rome refused 1" in panel.caption
