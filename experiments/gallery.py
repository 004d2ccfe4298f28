"""Every view once, each below the lines of Python that make it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from experiments.reporting.page import Section, bundles_of, figure, paragraph, report_page
from experiments.reporting.section import Picture
from interp.views import View

TEXT_MODEL = "smollm2-135m"
# Lines before the examples of a group.
RUN = """from experiments import load
from interp import Role, capture, describe_heads, edge_scores, gradient_x_input, logit_diff, patch, views
from interp.circuits import greedy
from interp.tasks import counterfactual
run = load("parity-aligned-alibi")
batch = run.sample(16, 8, seed=0)
clean, corrupted = batch, counterfactual.flip_input(batch, step=5)"""
TEXT = f"""from interp import capture, direct_logit_attribution, load, logit_diff, logit_lens, patch, prompts, views
run = load("{TEXT_MODEL}")
pair = prompts(run, ["When Mary and John went to the store, John gave a drink to"],
               ["When Mary and John went to the store, Mary gave a drink to"])
metric = logit_diff(answer=" Mary", other=" John")"""


@dataclass(frozen=True)
class Example:
    """One view: what it shows and the code whose last expression is the view."""

    title: str
    code: str
    caption: str


ON_RUN = (
    Example(
        "Attention patterns of one layer",
        "views.attention(capture(run, batch, pattern=[1]), layer=1)",
        "Rows are queries, columns are keys. Click a head, then a cell or a token, to read its weight.",
    ),
    Example(
        "Attention patterns of all layers",
        "views.attention(capture(run, batch, pattern=True))",
        "Without a layer, all layers and heads are shown.",
    ),
    Example(
        "One row of a pattern as coloured tokens",
        "found = capture(run, batch, pattern=[1])\n"
        "dest = int(batch.at(Role.OUTPUT_LABEL, 5)[0])\n"
        "views.tokens(found.pattern[1][:, 4], batch, prompt=0, dest=dest)",
        "Each token is shaded by its weight from one query.",
    ),
    Example(
        "Activation patching by layer and position",
        'views.effect(patch(run, clean, corrupted, site="resid_pre", metric=logit_diff(clean, step=5)))',
        "Blue: the patch raises the logit difference; red: it lowers it.",
    ),
    Example(
        "Activation patching by layer and head",
        'views.effect(patch(run, clean, corrupted, site="z", metric=logit_diff(clean, step=5)))',
        "The first map has the position that changes the metric most; the list has a map for each head.",
    ),
    Example(
        "Gradient x input",
        "views.attribution(gradient_x_input(run, batch))",
        "One column per answer, one row per token before it, as in the paper's Figure 5.",
    ),
    Example(
        "Statistics of heads as a table",
        "views.head_table(describe_heads(run, batch).to_dataframe())",
        "Sort by a column's head; find and filter above the table.",
    ),
    Example(
        "A circuit",
        "views.circuit(greedy(edge_scores(run, clean, corrupted, logit_diff(clean, step=5)), 40).to_networkx()).view()",
        "Point at a node or an edge; filter by score, by input and by place.",
    ),
    Example(
        "What probes read",
        "from probes.arms.m08_decoding import decode\n"
        "import probes.views\n"
        "probes.views.probes(decode(run.raw, run.sample(128, 8, seed=0), seed=0))",
        "Accuracy of linear probes by layer, with controls of equal difficulty.",
    ),
    Example(
        "A verdict",
        "import experiments, json, pathlib, probes.views\n"
        'folder = pathlib.Path(experiments.__file__).parent / "runs" / run.name\n'
        'probes.views.verdict(json.loads((folder / "verdict.json").read_text()))',
        "Each role's effect with its interval and control, from the shipped result of `mnemoscope verdict`.",
    ),
)
ON_TEXT = (
    Example(
        "Activation patching on text",
        'views.effect(patch(run, pair.clean, pair.corrupted, site="resid_pre", metric=metric, layers=range(0, 30, 5)))',
        "Two sentences that differ in one word; the metric is a difference of two logits.",
    ),
    Example(
        "Logit lens",
        'views.lens(logit_lens(run, pair.clean, " Mary"))',
        "The answer's logit difference if the residual stream were unembedded at each layer and position.",
    ),
    Example(
        "Direct logit attribution",
        'views.heads(direct_logit_attribution(run, pair.clean, " Mary", " John"))',
        "What each head adds to the logit difference directly.",
    ),
    Example(
        "Attention on text",
        "views.attention(capture(run, pair.clean, pattern=[20]), layer=20)",
        "The tokens of the prompt name rows and columns.",
    ),
)


def evaluate(code: str, namespace: dict[str, Any]) -> Any:
    """Execute the code in the namespace; return the value of its last line."""
    *lines, last = code.splitlines()
    exec("\n".join(lines), namespace)
    return eval(last, namespace)


def gallery_page(
    groups: Sequence[tuple[str, str, Sequence[Example]]], step: Callable[[str], None] = lambda name: None
) -> str:
    """Return the page of all examples, one section per group: name, setup code and examples.

    `step` is called with the title of each example before it is made.
    """
    sections, every = [], []
    for name, setup, examples in groups:
        namespace: dict[str, Any] = {}
        exec(setup, namespace)
        views: list[tuple[Example, View]] = []
        for example in examples:
            step(example.title)
            views.append((example, evaluate(example.code, namespace)))
        every += [view for _, view in views]
        sections.append((name, setup, views))
    bundles = bundles_of(every)

    def shown(example: Example, view: View) -> str:
        picture = figure(Picture(view, example.caption), bundles)
        return f"<h3>{escape(example.title)}</h3>\n{_code(example.code)}{picture}"

    parts = [
        Section(
            f"group-{k}",
            name,
            _code(setup) + "".join(shown(example, view) for example, view in views),
        )
        for k, (name, setup, views) in enumerate(sections)
    ]
    lead = paragraph("Each view stands below the code that makes it: the setup of its group, then its own lines.")
    return report_page("Views of mnemoscope", lead, parts, every, "mnemoscope gallery")


def _code(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>\n"
