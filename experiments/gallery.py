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
RUN = """import json
import experiments
from pathlib import Path
from experiments import load
from interp import Role, capture, describe_heads, edge_scores, gradient_x_input, logit_diff, patch, views
from interp.circuits import greedy
from interp.tasks import counterfactual
run = load("parity-aligned-alibi")
folder = Path(experiments.__file__).parent / "runs" / run.name
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
        "Faithfulness by circuit size",
        "from experiments.commands.circuit import lines_of\n"
        'data = json.loads((folder / "circuit.json").read_text())\n'
        'views.faithfulness(lines_of(data), data["possible_edges"])',
        "Circuits of growing size beside random ones, from the shipped result of `mnemoscope circuit`; 1 is the full "
        "model.",
    ),
    Example(
        "Accuracy by length",
        "import probes.views\n"
        "from experiments.reporting.stored import points_of\n"
        'points = points_of(json.loads((folder / "evaluation.json").read_text()))\n'
        "probes.views.by_length({run.name: points}, trained=20)",
        "Steps, whole solutions and last answers, with labels given and with labels that the model writes.",
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
        'probes.views.verdict(json.loads((folder / "verdict.json").read_text()))',
        "Each role's effect with its interval and control, from the shipped result of `mnemoscope verdict`.",
    ),
    Example(
        "Verdicts on planted mechanisms",
        'counted = json.loads((folder.parents[1] / "results" / "calibration.json").read_text())\n'
        'probes.views.confusion(counted["confusion"], counted["never_tuned"], counted["expected"])',
        "How often models that were built by hand get each verdict; outlined is the right one.",
    ),
    Example(
        "Roles of several models",
        'names = ("parity-aligned-alibi", "parity-constant-alibi")\n'
        'found = {n: json.loads((folder.parent / n / "verdict.json").read_text())["roles"] for n in names}\n'
        "probes.views.roles({n: {r: (x['rho'], *x['ci']) for r, x in f.items() if x['ci']} for n, f in found.items()})",
        "One row per model, one panel per role.",
    ),
    Example(
        "Any heat map",
        "from interp.views import Axis, Panel\n"
        'axes = Axis("row", ("a", "b")), Axis("column", ("c", "d", "e"))\n'
        'views.draw_grid([Panel("numbers", [[0.0, 1.0, -1.0], [0.5, -0.5, 0.0]], *axes, "unit")], "Six numbers")',
        "`draw_grid` draws panels of numbers with named rows and columns.",
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
    groups: Sequence[tuple[str, str, Sequence[Example]]],
    step: Callable[[str], object] = lambda name: None,
    done: Callable[[], object] = lambda: None,
) -> str:
    """Return the page of all examples, one section per group: name, setup code and examples.

    `step` is called with the title of each example before it is made, and `done` afterwards.
    """
    sections, every = [], []
    for name, setup, examples in groups:
        namespace: dict[str, Any] = {}
        exec(setup, namespace)
        views: list[tuple[Example, View]] = []
        for example in examples:
            step(example.title)
            views.append((example, evaluate(example.code, namespace)))
            done()
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
