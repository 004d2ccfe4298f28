"""circuitsvis through its public API: its plots' properties and its script, taken from `RenderedHTML.local_src`.

circuitsvis 1.43 has four defects here. Axis labels skip every second token, which hides all bits or all labels.
Tokens enter the page as HTML, so that `<bos>` vanishes. Every plot carries 1.3 MB of script. `_repr_html_` opens an
internet address. In turn: `plot.js` sets Chart.js's own defaults on the drawn chart; tokens are escaped here; the page
carries the script once; and `_repr_html_` is never called.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interp.views.patterns.parts import script_of
from interp.views.patterns.prompt import Prompt

# A `local_src`: the script, and where it hands the plot's properties to its component.
LOCAL_SRC = re.compile(
    r'<script[^>]*>(?P<script>.*)CircuitsVis\.render\(\s*"[\w-]+",\s*CircuitsVis\.(?P<component>\w+),\s*'
    r"(?P<props>\{.*\})\s*\)\s*</script>\s*$",
    re.DOTALL,
)
# A word joiner: it has no width, and after it no "<" starts a tag and no "&" an entity.
JOINER = "\u2060"


@functools.cache
def circuitsvis_bundle() -> str | None:
    """Return the script of circuitsvis with ours; None if this version's `local_src` has another layout."""
    from circuitsvis.tokens import colored_tokens

    found = LOCAL_SRC.search(colored_tokens(["a"], [0.0]).local_src)
    if found is None:
        return None
    script = re.sub(r"\n//# sourceMappingURL=.*", "", found["script"]).replace("</script", r"<\/script")
    # A notebook has the script in each output; its libraries complain when they run twice.
    once = f"if (!globalThis.CircuitsVis?.once) (function () {{\n{script}\n"
    once += "globalThis.CircuitsVis = { ...CircuitsVis, once: true };\n})();\n"
    return once + script_of("plot")


def plot_props(values: Float[Tensor, "head dest_pos src_pos"], prompt: Prompt, heads: list[int]) -> dict[str, Any]:
    """Return component and properties of `circuitsvis.attention.attention_heads`."""
    from circuitsvis.attention import attention_heads

    limit = float(values.max()) or 1.0
    plot = attention_heads(
        attention=_rounded(values),
        tokens=list(prompt.tokens),
        attention_head_names=[f"head {h}" for h in heads],
        min_value=-limit,
        max_value=limit,
        mask_upper_tri=not values.triu(1).any(),
    )
    return _props(plot.local_src)


def token_props(values: Float[Tensor, " pos"], prompt: Prompt) -> dict[str, Any]:
    """Return component and properties of `circuitsvis.tokens.colored_tokens`, with symmetric bounds."""
    from circuitsvis.tokens import colored_tokens

    limit = float(values.abs().max()) or 1.0
    plot = colored_tokens(
        [escaped(token) for token in prompt.tokens],
        _rounded(values),
        min_value=-limit,
        max_value=limit,
        negative_color="#b2182b",
        positive_color="#2166ac",
    )
    return _props(plot.local_src)


def escaped(token: str) -> str:
    """Return a token that reads the same as HTML and as plain text.

    >>> escaped("<bos>") == f"<{JOINER}bos>"
    True
    """
    return re.sub("[<&]", rf"\g<0>{JOINER}", token)


def _rounded(values: Tensor) -> list:
    """Return four decimals: what a person reads, in a third of the size."""
    return (values.double() * 1e4).round().div(1e4).tolist()


def _props(source: str) -> dict[str, Any]:
    found = LOCAL_SRC.search(source)
    assert found, "the layout of circuitsvis's local_src is unknown; circuitsvis_bundle() checks it"
    return {"component": found["component"], "props": json.loads(found["props"])}
