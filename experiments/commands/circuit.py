"""`mnemoscope circuit`: search a circuit, evaluate it on fresh prompts, and describe its heads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from experiments.circuit_printing import print_report, say_files, with_interval
from experiments.support.console import warn
from experiments.support.options import (
    AsJson,
    Device,
    Dtype,
    FormatName,
    Length,
    Lengths,
    Memory,
    Number,
    OneModel,
    ResultFolder,
    Seed,
    Share,
    Texts,
)
from experiments.support.run_checks import check_posed, check_runs, or_else
from experiments.support.text_prompts import GIVE_TEXT, OF_TEXT, TakesText

if TYPE_CHECKING:
    import networkx

    from experiments.circuit_search import SearchOptions
    from interp.circuits import Circuit, Validity
    from interp.models import Run

FILES = ("circuit.json", "circuit.graphml", "circuit.svg", "circuit.html", "circuit-curve.svg", "circuit-heads.parquet")
# Options that do not change the numbers, or that provenance records.
NOT_RECORDED = ("out", "json", "memory", "device", "dtype")


@dataclass(frozen=True)
class CircuitCommand(TakesText):
    """Search a circuit on a task or on text, and measure how faithful it is on other prompts.

    Edges are scored by gradients, the best are selected, and ACDC removes those that are not needed, by exact runs.
    Results of a model that cannot do the task are marked as invalid. Writes circuit.json, .graphml, .svg and .html.
    On a task, also circuit-curve.svg and circuit-heads.parquet. The same command resumes after an interruption.
    On text: mnemoscope circuit gpt2 --clean "..." --corrupted "..." --answer " Mary" --other " John".
    """

    name: OneModel
    clean: Texts = ()
    """Clean prompts, one or more texts with the same number of tokens; from four on, half of them are for measuring.
    Default: prompts of the task."""
    corrupted: Texts = ()
    """Corrupted prompts, as many as clean ones and of as many tokens. Default: made from the task's."""
    answer: Texts = ()
    """Answer to text prompts: one token, usually with its leading space, for all prompts or one per prompt. Needed with
    --clean."""
    other: Texts = ()
    """Wrong answer to text prompts, one token for all or one per prompt. Needed with --clean."""
    length: Length = 20
    """Length of the prompts on which the circuit is searched: bits, or digits of both operands."""
    lengths: Lengths = ()
    """Lengths at which the circuit is evaluated. Default: the length, one and a half times it, and twice it, where they
    fit the model's positions and labels."""
    method: Literal[
        "eap", "eap-clean", "eap-ig-inputs", "eap-ig-activations", "eap-ig-writers", "exact-noise", "exact-denoise"
    ] = "eap-ig-inputs"
    """How edges are scored. The exact methods take one forward pass per edge."""
    points: Number = 16
    """Points between the corrupted and the clean run, for the integrated methods."""
    reorder: Literal["auto", "yes", "no"] = "auto"
    """Shuffle the input labels of corrupted prompts, so that addresses differ too; auto does so where labels differ."""
    places: Literal["role", "anywhere"] = "role"
    """Tell edges apart by the role of their positions (role), or not by position at all (anywhere). Text has no roles:
    anywhere."""
    select: Literal["greedy", "top"] = "greedy"
    """Select edges from the logits up (greedy), or by score alone (top)."""
    share: Share = 0.1
    """Edges that are selected by their scores, as a share of all."""
    prune: Share = 0.003
    """ACDC's threshold: the least effect of an edge, as a share of the whole margin; 0 prunes nothing."""
    repeats: Number = 1
    """How often the search is repeated on other prompts, to measure how much of the circuit is found again."""
    prompts: Number = 32
    """Prompts of the search, and of the evaluation, at least 2; pruning uses 16 of them."""
    seed: Seed = 0
    memory: Memory = None
    format: FormatName = None
    device: Device = "auto"
    dtype: Dtype = None
    out: ResultFolder = None
    json: AsJson = False

    def run(self) -> int:
        """Search, evaluate, write and print; status 0."""
        self._check()
        if self.is_text:
            from experiments.circuit_text import run_on_text

            return run_on_text(self)
        from experiments.circuit_search import measure_validity
        from experiments.support.loading import load_posed
        from experiments.support.results import result_folder, work_folder
        from experiments.support.verdict_defaults import fitting

        with or_else(GIVE_TEXT):
            run = load_posed(self.name, self.format, device=self.device, dtype=self.dtype)
        length = (self.length, self.length) if run.format.task == "addition" else self.length
        for one in (self.length, *self.lengths):
            run.check_length(one)
        lengths = self.lengths or fitting(run, (self.length, self.length * 3 // 2, self.length * 2))
        folder = result_folder(run, self.out, FILES)
        validity = measure_validity(run, self.search_options(), length)
        if not validity.valid:
            warn(f"warning: the circuit will be invalid: {validity.reason}")
        recorded = {k: str(v) for k, v in self._options().items() if k not in ("lengths", "repeats")}
        with work_folder(folder, run, "circuit", recorded) as work:
            written, circuit = self._compute(run, length, lengths, work, folder, validity)
        if self.json:
            print(json.dumps(written))
        else:
            print_report(run, circuit, written, self.length)
            say_files(folder, FILES)
        return 0

    def search_options(self) -> SearchOptions:
        """Return the options of the search."""
        from experiments.circuit_search import SearchOptions

        return SearchOptions(**{field.name: getattr(self, field.name) for field in fields(SearchOptions)})

    def _compute(
        self,
        run: Run,
        length: int | tuple[int, int],
        lengths: tuple[int, ...],
        work: Path,
        folder: Path,
        validity: Validity,
    ) -> tuple[dict, Circuit]:
        """Search, evaluate and write; return the content of circuit.json, and the circuit."""
        from experiments.circuit_search import REPEATS, at_length, evaluate, integration_gap, search
        from experiments.support.finished import warn_replaced, why_other_result
        from experiments.support.results import as_parquet, write_result
        from interp.circuits import describe_heads, overlap

        options = self.search_options()
        found = search(run, options, length, self.seed, work)
        if not len(found.circuit):
            raise ValueError(f"no edge has an effect of --prune {self.prune}: can the model do length {self.length}?")
        warn_replaced(folder / FILES[0], partial(why_other_result, run, self.seed, self._options()))
        again = [search(run, options, length, self.seed + REPEATS + i, work).circuit for i in range(self.repeats)]
        evaluated = evaluate(run, found, options, length)
        heads = describe_heads(run, run.sample(self.prompts, length, self.seed))
        names = {f"L{layer}H{head}": heads.name(layer, head) for layer, head in found.circuit.heads()}
        tuples = isinstance(length, tuple)
        by_length = {n: at_length(run, found.circuit, options, (n, n) if tuples else n) for n in lengths}
        data = {
            "options": self._options(),
            "valid": validity.valid,
            "reason": validity.reason,
            "competence": validity.to_json(),
            "possible_edges": len(found.circuit.graph),
            "circuit": found.circuit.to_json(),
            "gap": integration_gap(found.scores),
            "heads": names,
            "lengths": {str(n): numbers for n, numbers in by_length.items()},
            "again": [{"edges": len(c), "overlap": overlap(found.circuit, c)} for c in again],
            **evaluated,
        }
        pictures = {**self._drawn(run, found.circuit, data), "circuit-heads.parquet": as_parquet(heads.to_dataframe())}
        files = [(folder / name, content) for name, content in pictures.items()]
        return write_result(folder / "circuit.json", run, self.seed, data, others=files), found.circuit

    def _options(self) -> dict:
        """Return the options on which the numbers of a task depend."""
        return {k: v for k, v in asdict(self).items() if k not in (*NOT_RECORDED, *OF_TEXT)}

    def _check(self) -> None:
        """Raise `ValueError` for options that are wrong whatever the model is; imports no library."""
        from experiments.support.option_checks import check_least, check_positive, check_seed

        check_positive(self, "length", "points", "prompts")
        if self.prompts < 2:
            raise ValueError("--prompts must be at least 2: intervals are over prompts")
        if not 0 < self.share <= 1:
            raise ValueError(f"--share must be above 0 and at most 1; got {self.share}")
        for name in ("prune", "repeats"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
        check_least(self, "lengths")
        check_seed(self.seed)
        check_runs([self.name], self.format)
        if self.is_text:
            from experiments.circuit_text import check_text_options

            check_text_options(self)
        else:
            with or_else(GIVE_TEXT):
                check_posed([self.name], self.format)

    def _drawn(self, run: Run, circuit: Circuit, data: dict) -> dict[str, str]:
        """Return the pictures and the graph, by file name."""
        import networkx

        from experiments.support.results import as_svg
        from interp.views.circuit import circuit_page, draw_circuit
        from interp.views.curve import faithfulness_by_size

        graph = self.graph(run, circuit, data)
        where = f"{run.name}, length {self.length}: {data['circuit']['details']['metric']}"
        title = f"How much of the model do circuits of each size keep?\n{where}"
        return {
            "circuit.graphml": "\n".join(networkx.generate_graphml(graph)) + "\n",
            "circuit.svg": draw_circuit(graph),
            "circuit.html": circuit_page(graph),
            "circuit-curve.svg": as_svg(faithfulness_by_size(lines_of(data), data["possible_edges"], title)),
        }

    def graph(self, run: Run, circuit: Circuit, data: dict) -> networkx.MultiDiGraph:
        """Return the circuit as it is drawn: heads with names, and its faithfulness; `data` is its circuit.json."""
        numbers = data["ablations"]["corrupted"]
        graph = circuit.to_networkx()
        graph.graph["n_layers"] = run.raw.config.num_hidden_layers
        for node, name in data["heads"].items():
            graph.nodes[node]["label"] = name
        size = f"{len(circuit)} of {data['possible_edges']} edges"
        graph.graph["title"] = f"Which edges carry the answer? {run.name}, {size}"
        graph.graph["subtitle"] = (
            f"{invalid(data)}length {self.length}; faithfulness {with_interval(numbers)}, "
            f"step accuracy {numbers['accuracy']:.3f}"
        )
        return graph


def invalid(data: dict) -> str:
    """Return a prefix for the numbers of an invalid circuit.json; "" for valid ones and for those without the field."""
    return f"INVALID ({data['reason']}); " if data.get("valid", True) is False else ""


def lines_of(data: dict) -> dict[str, Any]:
    """Return the curves of a circuit.json, and its circuit as a line of one point, for `interp.views.curve`."""
    numbers = data["ablations"]["corrupted"]
    one = {"sizes": [data["circuit"]["size"]], **{k: [numbers[k]] for k in ("values", "low", "high")}}
    return {name: SimpleNamespace(**line) for name, line in {**data["curves"], "this circuit": one}.items()}
