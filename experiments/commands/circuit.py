"""`mnemoscope circuit`: which parts of a model do the work, how much of it, and what is each part's job?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    import networkx

    from interp.circuits import Circuit as Parts
    from interp.models import Run

FILES = ("circuit.json", "circuit.graphml", "circuit.svg", "circuit.html", "circuit-curve.svg", "circuit-heads.parquet")


@dataclass(frozen=True)
class CircuitCommand:
    """Searches a circuit, weighs it on fresh prompts, at other lengths too, and describes its heads.

    Edges are scored by gradients, the best are chosen, and of those ACDC keeps what is needed, by exact runs. Writes
    circuit.json, .graphml, .svg and .html (interactive), circuit-curve.svg, and circuit-heads.parquet (what each
    head was measured to do). The same command goes on where a killed one stopped.
    """

    name: Annotated[str, tyro.conf.Positional]
    """A run by name, such as parity-aligned-alibi, or a folder that save_pretrained wrote."""
    length: int = 20
    """Bits, or digits of both operands for addition, of the prompts that the circuit is searched on."""
    lengths: tuple[int, ...] = ()
    """Lengths at which the same circuit is tried; default the length, one and a half of it, and twice it."""
    method: Literal["eap", "eap-clean", "eap-ig-inputs", "eap-ig-activations", "exact-noise", "exact-denoise"] = (
        "eap-ig-inputs"
    )
    """How edges are scored; the exact ones take a run an edge."""
    points: int = 16
    """Points between the two runs, for the integrated methods."""
    reorder: Literal["auto", "yes", "no"] = "auto"
    """Give the corrupted prompts their input labels in another order, so that addresses differ too; by default where
    labels can be told apart."""
    places: Literal["role", "anywhere"] = "role"
    """Whether an edge is told apart by the role of its positions."""
    select: Literal["greedy", "top"] = "greedy"
    """From the logits up, or by score alone."""
    share: float = 0.1
    """Edges that are chosen by their scores, as a share of all."""
    prune: float = 0.003
    """ACDC's threshold: what an edge must be worth, as a share of the whole margin; 0 prunes nothing."""
    repeats: int = 1
    """How often the search is done again on other prompts, to see how much of the circuit is found again."""
    prompts: int = 32
    """Prompts of the search, and as many of the weighing; pruning takes 16 of them."""
    seed: int = 0
    """Seed of the prompts."""
    format: str | None = None
    """Task to pose to a model that has no run.json, such as parity-aligned."""
    memory: int = 1024
    """MiB that one pass may take beyond the model; prompts run in chunks that fit."""
    out: Path | None = None
    """Folder for the results; default mnemoscope-out/<run>."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> int:
        """Searches, weighs, writes and prints; status 0."""
        from experiments import load
        from experiments.support.results import check_seed, result_folder, work_folder

        self._check()
        check_seed(self.seed)
        run = load(self.name, self.format)
        length = (self.length, self.length) if run.format.task == "addition" else self.length
        lengths = self.lengths or (self.length, self.length * 3 // 2, self.length * 2)
        run.check_length(length)
        folder = result_folder(run, self.out)
        kept = {k: str(v) for k, v in self._options().items() if k not in ("lengths", "repeats")}
        with work_folder(folder, run, "circuit", kept) as work:
            written, circuit = self._made(run, length, lengths, work, folder)
        if self.json:
            print(json.dumps(written))
        else:
            self._report(run, circuit, written, folder)
        return 0

    def _made(
        self, run: Run, length: int | tuple[int, int], lengths: tuple[int, ...], work: Path, folder: Path
    ) -> tuple[dict, Parts]:
        """Searches, weighs and writes; what circuit.json says, and the circuit."""
        from experiments.circuit_search import FURTHER, at_length, gap_of, search, weigh
        from experiments.support.results import as_parquet, write_result
        from interp.circuits import describe_heads, overlap

        found = search(run, self, length, self.seed, work)
        if not len(found.circuit):
            raise ValueError(f"no edge is worth --prune {self.prune}: does the model do length {self.length} at all?")
        others = [search(run, self, length, self.seed + FURTHER + i, work).circuit for i in range(self.repeats)]
        weighed = weigh(run, found, self, length)
        spoken = describe_heads(run.raw, run.sample(self.prompts, length, self.seed))
        names = {f"L{layer}H{head}": spoken.name(layer, head) for layer, head in found.circuit.heads()}
        at = {n: at_length(run, found.circuit, self, (n, n) if isinstance(length, tuple) else n) for n in lengths}
        data = {
            "options": self._options(),
            "possible_edges": len(found.circuit.graph),
            "circuit": found.circuit.to_json(),
            "gap": gap_of(found.scores),
            "heads": names,
            "lengths": {str(n): worth for n, worth in at.items()},
            "again": [{"edges": len(c), "overlap": overlap(found.circuit, c)} for c in others],
            **weighed,
        }
        others = {**self._drawn(run, found.circuit, data), "circuit-heads.parquet": as_parquet(spoken.table())}
        files = [(folder / name, text) for name, text in others.items()]
        return write_result(folder / "circuit.json", run, self.seed, data, others=files), found.circuit

    def _options(self) -> dict:
        """The options that what is found depends on."""
        return {k: v for k, v in asdict(self).items() if k not in ("out", "json", "memory")}

    def _check(self) -> None:
        for name in ("length", "points", "prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1; got {getattr(self, name)}")
        if self.prompts < 2:
            raise ValueError("--prompts must be at least 2: intervals are over prompts")
        if not 0 < self.share <= 1:
            raise ValueError(f"--share must be above 0 and at most 1; got {self.share}")
        for name in ("prune", "repeats"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
        if any(n < 1 for n in self.lengths):
            raise ValueError(f"--lengths must be at least 1; got {' '.join(map(str, self.lengths))}")

    def _drawn(self, run: Run, circuit: Parts, data: dict) -> dict[str, str]:
        """The pictures and the graph, by the name of the file."""
        import networkx

        from experiments.support.results import as_svg
        from interp.views.circuit import circuit_page, draw_circuit
        from interp.views.curve import faithfulness_by_size

        graph = self.graph(run, circuit, data)
        title = f"{run.name}, length {self.length}: {data['circuit']['details']['metric']}"
        return {
            "circuit.graphml": "\n".join(networkx.generate_graphml(graph)) + "\n",
            "circuit.svg": draw_circuit(graph),
            "circuit.html": circuit_page(graph),
            "circuit-curve.svg": as_svg(faithfulness_by_size(lines_of(data), data["possible_edges"], title)),
        }

    def graph(self, run: Run, circuit: Parts, data: dict) -> networkx.MultiDiGraph:
        """The circuit as it is drawn: heads with their names, and what it is worth; `data` is its circuit.json."""
        worth = data["ablations"]["corrupted"]
        graph = circuit.to_networkx()
        graph.graph["n_layers"] = run.raw.config.num_hidden_layers
        for node, name in data["heads"].items():
            graph.nodes[node]["label"] = name
        graph.graph["title"] = f"{run.name}: a circuit of {len(circuit)} of {data['possible_edges']} edges"
        graph.graph["subtitle"] = (
            f"length {self.length}; faithfulness {worth['values']:.3f} [{worth['low']:.3f}, {worth['high']:.3f}], "
            f"step accuracy {worth['accuracy']:.3f}"
        )
        return graph

    def _report(self, run: Run, circuit: Parts, data: dict, folder: Path) -> None:
        from experiments.support.console import print_table

        possible, length = data["possible_edges"], self.length
        print(f"{run.name}: {len(circuit)} of {possible} edges ({circuit.share:.1%}), searched at length {length}")

        def row(name: str, worth: dict) -> list[str]:
            return [
                name,
                f"{worth['values']:.3f} [{worth['low']:.3f}, {worth['high']:.3f}]",
                f"{worth['accuracy']:.3f}",
                f"{worth['accuracy_full']:.3f}",
            ]

        rows = [row(f"{kind}, n={length}", worth) for kind, worth in data["ablations"].items()]
        rows += [row(f"corrupted, n={n}", worth) for n, worth in data["lengths"].items() if n != str(length)]
        columns = ["edges outside of it", "faithfulness", "step accuracy", "of the full model"]
        print_table("how faithful it is on fresh prompts", columns, rows)
        print_table("its heads", ["head", "what it was measured to do"], [[h, n] for h, n in data["heads"].items()])
        edges = [[str(e), f"{score:+.3f}"] for e, score in circuit.edges()[:12] if score is not None]
        print_table("its strongest edges", ["edge", "score"], edges)
        drawn, whole = data["random"], data["completeness"]
        print(f"random circuits of its size: largest {drawn['largest']:.3f}, p {drawn['p']:.3f} of {drawn['n']}")
        print(
            f"the model without it: {whole['complement']:.3f}; without a random half of it, circuit and model differ "
            f"by {whole['mean_gap']:.3f} on average"
        )
        if gap := data["gap"]:
            print(f"the integral over the way between the prompts misses {abs(gap):.1%} of the difference")
        for again in data["again"]:
            print(f"searched again on other prompts: {again['edges']} edges, overlap (Jaccard) {again['overlap']:.2f}")
        for name in FILES:
            print(folder / name)


def lines_of(data: dict) -> dict[str, Any]:
    """The curves of a circuit.json, and its circuit as a line of one point, as `interp.views.curve` takes them."""
    worth = data["ablations"]["corrupted"]
    one = {"sizes": [data["circuit"]["size"]], **{k: [worth[k]] for k in ("values", "low", "high")}}
    return {name: SimpleNamespace(**line) for name, line in {**data["curves"], "this circuit": one}.items()}
