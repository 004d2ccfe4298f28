"""Short names beside the codes of arms in sentences that a person reads."""

from __future__ import annotations

import re

from probes.arms.registry import ARMS

# The longest code first, so that M12 is not read as M1.
_CODED = {code: arm.short for code, arm in ARMS.items() if re.fullmatch(r"M\d+", code)}
_CODE = re.compile(rf"\b({'|'.join(sorted(_CODED, key=len, reverse=True))})\b")


def with_arm_names(text: str) -> str:
    """Return a text in which the short name of an arm follows each of its codes, where it does not stand there yet.

    >>> with_arm_names("M5 is small, M5 history too; M1 and M12")
    'M5 history is small, M5 history too; M1 input swap and M12 backups'
    """

    def named(found: re.Match[str]) -> str:
        code, rest = found[0], text[found.end() :]
        return code if rest.startswith(f" {_CODED[code]}") else f"{code} {_CODED[code]}"

    return _CODE.sub(named, text)


def arm_title(code: str) -> str:
    """Return an arm's code with its short name, such as "M5 history"; another code as it is."""
    return ARMS[code].title if code in ARMS else code


def arms_named(text: str) -> dict[str, str]:
    """Return title and meaning of each arm whose code stands in a text, in the battery's order."""
    found = set(_CODE.findall(text))
    return {arm.title: arm.meaning for code, arm in ARMS.items() if code in found}
