"""What a page of attention views needs beside its data: one script with the style, and JSON that is safe in HTML."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@functools.cache
def script_of(*names: str) -> str:
    """Return the style and the scripts of these names, as one script."""
    style = json.dumps((HERE / "views.css").read_text(encoding="utf-8"))
    parts = [(HERE / f"{name}.js").read_text(encoding="utf-8") for name in ("shared", *names)]
    return "\n".join([parts[0].replace('"STYLE"', style), *parts[1:]])


def fragment(data: dict[str, Any]) -> str:
    """Return an element that a view's script fills. No token can end the script that holds it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return (
        f'<div class="mnemo-attention"><script type="application/json">{text}</script>'
        "<script>globalThis.mnemoViews?.start()</script></div>"
    )
