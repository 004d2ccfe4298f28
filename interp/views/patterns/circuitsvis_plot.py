"""How is circuitsvis shown without its defects? Its own plots and its own script, mended in four places.

circuitsvis 1.43 drops axis labels (Chart.js skips every second one: all bits, or all labels), puts tokens into the
page as HTML (`<bos>` vanishes), carries 1.3 MB of script in each plot and asks the internet before it is displayed.
Here a plot gives its properties only; the page carries the script once, and nothing of its `_repr_html_` is called.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interp.views.patterns.parts import script_of
from interp.views.patterns.prompt import Prompt

# What is changed, and into what: each must be found once, or this is another circuitsvis and we do not touch it.
MENDS = (
    # No label is left out; each is in its role's colour, which our page knows.
    (
        "ticks:{display:!0,minRotation:45,maxRotation:90}",
        "ticks:{display:!0,autoSkip:!1,minRotation:90,maxRotation:90,font:{size:10}}",
    ),
    (
        "labels:[...c].reverse(),ticks:{display:!0}",
        "labels:[...c].reverse(),ticks:{display:!0,autoSkip:!1,font:{size:10}}",
    ),
    # The page can find the chart of a canvas, to mark a cell by keyboard.
    (
        "animation:{duration:0},plugins:{tooltip:{enabled:",
        "animation:{duration:0,onComplete:e=>{e.chart.canvas.mnemoChart=e.chart}},plugins:{tooltip:{enabled:",
    ),
)
# Where a plot hands its properties to its script.
HANDS_OVER = re.compile(r'CircuitsVis\.render\(\s*"[\w-]+",\s*CircuitsVis\.(\w+),\s*(\{.*\})\s*\)\s*</script>$', re.S)
# The function that makes HTML of a token.
AS_HTML = re.compile(r'(function \w+\((\w+)\)\{return \2)(\.replace\(/\\s/g,"&nbsp;"\))')


@functools.cache
def mended_bundle() -> str | None:
    """The script of circuitsvis, mended, with ours; None where the mends do not fit this version."""
    import circuitsvis

    text = (Path(circuitsvis.__file__).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    text = re.sub(r"\n//# sourceMappingURL=.*", "", text)
    if any(text.count(old) != 1 for old, _ in MENDS) or len(AS_HTML.findall(text)) != 1:
        return None
    for old, new in MENDS:
        text = text.replace(old, new)
    text = AS_HTML.sub(r'\1.replace(/&/g,"&amp;").replace(/</g,"&lt;")\3', text)
    # React makes script elements with this; as it stands it would end ours.
    text = text.replace("</script>", r"<\/script>")
    # A notebook has the script in each output; run twice, its libraries complain hundreds of times.
    once = f"if (!globalThis.CircuitsVis?.mended) (function () {{\n{text}\n"
    once += "globalThis.CircuitsVis = { ...CircuitsVis, mended: true };\n})();\n"
    return once + script_of("plot")


def plot_props(values: Float[Tensor, "head dest_pos src_pos"], prompt: Prompt, heads: list[int]) -> dict[str, Any]:
    """`circuitsvis.attention.attention_heads`: its component and properties."""
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
    """`circuitsvis.tokens.colored_tokens` with bounds that are symmetric around zero."""
    from circuitsvis.tokens import colored_tokens

    limit = float(values.abs().max()) or 1.0
    plot = colored_tokens(
        list(prompt.tokens)[: len(values)],
        _rounded(values),
        min_value=-limit,
        max_value=limit,
        negative_color="#b2182b",
        positive_color="#2166ac",
    )
    return _props(plot.local_src)


def _rounded(values: Tensor) -> list:
    """Four digits after the point: what a person reads, and a third of the size."""
    return (values.double() * 1e4).round().div(1e4).tolist()


def _props(source: str) -> dict[str, Any]:
    """What a plot hands to its script: circuitsvis keeps it only in the page that it writes."""
    found = HANDS_OVER.search(source)
    assert found, "circuitsvis writes its page in another way"
    return {"component": found[1], "props": json.loads(found[2])}
