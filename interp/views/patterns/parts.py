"""What does a page need besides its data? A style, one script for all views of a kind, and JSON that is safe in it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@functools.cache
def script_of(*names: str) -> str:
    """The style and the scripts of these names, as one script."""
    style = json.dumps((HERE / "views.css").read_text(encoding="utf-8"))
    parts = [(HERE / f"{name}.js").read_text(encoding="utf-8") for name in ("shared", *names)]
    return "\n".join([parts[0].replace('"STYLE"', style), *parts[1:]])


def fragment(data: dict[str, Any]) -> str:
    """An element that a view's script fills. No token can end the script that holds it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return (
        f'<div class="mnemo-attention"><script type="application/json">{text}</script>'
        "<script>globalThis.mnemoViews?.start()</script></div>"
    )
