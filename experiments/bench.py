"""`mnemoscope bench`: how fast is patching, side by side with others; what do memory and training take?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PEERS = ("transformer_lens", "hook loop", "nnsight")


@dataclass(frozen=True)
class Bench:
    """Times whole sweeps against one forward a patch, alternating, and counts FLOPs. Writes patching.json.

    Ratios of one run on one machine; `--only` takes a part of a case's name, such as 4x128-82-b1-resid_pre.
    """

    only: str = ""
    """Run the cases whose name contains this; others keep their earlier result in the file."""
    rounds: int = 5
    """Alternating rounds of each case; medians are reported."""
    threads: int = 1
    """CPU threads."""
    edges: bool = False
    """Time edge attribution instead, against TransformerLens's `attribution_patch`."""
    peak: bool = False
    """Measure instead how much memory capture, patching and the verdict take, for 10, 100 and 1,000 prompts."""
    scaling: bool = False
    """Measure instead what a training step and a run of the grid take, and estimate what 1, 8 and 64 devices buy."""
    device: Literal["cpu", "cuda"] | None = None
    """With --scaling: what to measure on; default a GPU where there is one. Rows of other devices are kept."""
    bloom: bool = False
    """Run BLOOM-560M's shape (24 layers, d=1024, 250,880 tokens, random weights) instead: takes 6 GiB."""
    out: Path = Path("mnemoscope-out")
    """Folder for patching.json."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Runs the cases one by one; each is on disk as soon as it is done."""
        import torch

        from experiments.benchmarks import edges, memory, patching, scaling
        from experiments.progress import progress_bar
        from experiments.provenance import provenance_record
        from experiments.results import check_workers, writable_folder
        from interp.writing import write_whole

        if self.rounds < 1:
            raise ValueError(f"--rounds must be at least 1; got {self.rounds}")
        check_workers("threads", self.threads)
        if self.edges + self.bloom + self.peak + self.scaling > 1:
            raise ValueError("--edges, --peak, --scaling and --bloom are different benchmarks; run one after the other")
        if self.device and not self.scaling:
            raise ValueError("--device is for --scaling; the other benchmarks take a GPU where there is one")
        default = edges.DEFAULT if self.edges else memory.DEFAULT if self.peak else patching.DEFAULT
        if self.scaling:
            default = scaling.cases_of(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        cases = [patching.BLOOM_560M] if self.bloom else [c for c in default if self.only in c.name]
        if not cases:
            raise ValueError(f"no case contains {self.only!r}; cases are {', '.join(c.name for c in default)}")
        torch.set_num_threads(self.threads)
        kind = "edges" if self.edges else "memory" if self.peak else "scaling" if self.scaling else "patching"
        path = writable_folder(self.out) / f"{kind}.json"
        rows = _earlier(path) if path.exists() else {}
        bar = progress_bar(cases, unit="case")
        for case in bar:
            bar.set_description(case.name)
            match case:
                case edges.EdgeCase():
                    rows[case.name] = edges.run_case(case, self.rounds)
                case memory.MemoryCase():
                    rows[case.name] = memory.run_case(case)
                case scaling.StepCase() | scaling.StageCase():
                    rows[case.name] = scaling.run_case(case, self.rounds)
                case _:
                    rows[case.name] = patching.run_case(case, self.rounds)
            data = {"provenance": provenance_record(), "rows": rows}
            write_whole(path, json.dumps(data, indent=1) + "\n")
        if self.json:
            print(json.dumps({c.name: rows[c.name] for c in cases}))
            return 0
        shown = [(c.name, rows[c.name]) for c in cases]
        if self.edges:
            self.show_edges(shown)
        elif self.peak:
            self.show_peaks(shown)
        elif self.scaling:
            self.show_scaling(rows)
        else:
            self.show(shown)
        print(path)
        return 0

    def show(self, rows: list[tuple[str, dict]]) -> None:
        """Prints the table."""
        from experiments.results import print_table

        columns = ["case", "ours ms", "TransformerLens ms", "hooks ms", "x TL", "x hooks", "x nnsight", "x fewer FLOPs",
                   "of bound", "skipped", "difference"]  # fmt: skip
        cells = [
            [name, *(f"{row['ms_a_patch'][k]:.3f}" for k in ("ours", "transformer_lens", "hook loop")),
             *(f"{row['ratio'][k]:.1f}" if k in row["ratio"] else "-" for k in PEERS),
             f"{row['flops']['times_fewer']:.1f}", f"{row['flops']['of_lower_bound']:.2f}",
             f"{row['skipped'] / row['patches']:.0%}", f"{max(row['difference'].values()):.1e}"]
            for name, row in rows
        ]  # fmt: skip
        print_table("milliseconds a patch, medians", columns, cells)

    def show_edges(self, rows: list[tuple[str, dict]]) -> None:
        """Prints the table of edge attribution."""
        from experiments.results import print_table

        columns = ["case", "edges", "ours ms", "TransformerLens ms", "x TL", "difference"]
        cells = [
            [name, str(row["edges"]), *(f"{row['ms_a_pair'][k]:.1f}" for k in ("ours", "transformer_lens")),
             f"{row['ratio']:.1f}", f"{row['difference']:.1e}"]
            for name, row in rows
        ]  # fmt: skip
        print_table("milliseconds a pair of prompts, medians", columns, cells)

    def show_peaks(self, rows: list[tuple[str, dict]]) -> None:
        """Prints the table of memory."""
        from experiments.results import print_table

        cells = [[n, str(r["prompts"]), str(r["budget_mib"]), f"{r['peak_mib']:.0f}"] for n, r in rows]
        print_table("MiB beyond what was held before", ["case", "prompts", "budget", "peak"], cells)

    def show_scaling(self, rows: dict[str, dict]) -> None:
        """Prints what all devices in the file take, and the estimates for more of them."""
        from experiments.benchmarks import showing
        from experiments.results import print_table

        print_table("measured on one device", *showing.measured_steps(rows))
        print_table("ESTIMATED: the grid on several devices", *showing.estimated_grid(rows))
        print_table("ESTIMATED: one model on several devices, links assumed", *showing.estimated_parallel(rows))
        print_table("ESTIMATED: one model on several GPUs, links assumed", *showing.estimated_links(rows))


def _earlier(path: Path) -> dict:
    """The rows of an earlier result. Raises `ValueError` for another file of that name, which is left alone."""
    from interp.models import read_json

    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("rows"), dict):
        raise ValueError(f"{path} is no result of this verb; move it, or choose another --out")
    return found["rows"]
