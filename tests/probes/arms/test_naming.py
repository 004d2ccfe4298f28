"""Arms are shown with their short names."""

import re

import pytest

from probes.arms.naming import arm_title, arms_named, with_arm_names
from probes.arms.registry import ARMS

CODES = [code for code in ARMS if re.fullmatch(r"M\d+", code)]


@pytest.mark.parametrize("code", CODES)
def test_a_code_gets_its_short_name_once(code):
    named = f"{code} {ARMS[code].short}: 0.1"
    assert with_arm_names(f"{code}: 0.1") == named
    assert with_arm_names(named) == named
    assert arm_title(code) == f"{code} {ARMS[code].short}"


def test_other_text_stays():
    for text in ("M13, M0 and M120", "xM1", "presence: 0.5", ""):
        assert with_arm_names(text) == text
    assert arm_title("presence") == "largest presence effect"
    assert arm_title("unknown") == "unknown"


def test_arms_of_a_text_are_listed_in_order_with_their_meanings():
    found = arms_named("M12 after M1, M1 again")
    assert found == {"M1 input swap": ARMS["M1"].meaning, "M12 backups": ARMS["M12"].meaning}
