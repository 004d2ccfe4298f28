"""`mnemoscope bench`: how fast, how large and how exact? Patching and edges are timed beside TransformerLens's."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

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
    drift: bool = False
    """Measure instead how far numbers of shipped runs move between 1 thread and 2, and float32 and float64."""
    bloom: bool = False
    """Run BLOOM-560M's shape (24 layers, d=1024, 250,880 tokens, random weights) instead: takes 6 GiB."""
    out: Path = Path("mnemoscope-out")
    """Folder for patching.json."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Runs the cases one by one; each is on disk as soon as it is done."""
        import torch
        from tqdm import tqdm

        from experiments.benchmarks import drift, edges, memory, patching
        from experiments.provenance import provenance_record
        from experiments.reading import read_rows
        from experiments.results import check_workers, writable_folder
        from interp.writing import write_whole

        if self.rounds < 1:
            raise ValueError(f"--rounds must be at least 1; got {self.rounds}")
        check_workers("threads", self.threads)
        if self.edges + self.bloom + self.peak + self.drift > 1:
            raise ValueError("--edges, --peak, --drift and --bloom are different benchmarks; run one after the other")
        kind = "edges" if self.edges else "memory" if self.peak else "drift" if self.drift else "patching"
        default = {"edges": edges, "memory": memory, "drift": drift, "patching": patching}[kind].DEFAULT
        cases = [patching.BLOOM_560M] if self.bloom else [c for c in default if self.only in c.name]
        if not cases:
            raise ValueError(f"no case contains {self.only!r}; cases are {', '.join(c.name for c in default)}")
        torch.set_num_threads(self.threads)
        path = writable_folder(self.out) / f"{kind}.json"
        rows = read_rows(path) if path.exists() else {}
        bar = tqdm(cases, file=sys.stderr, disable=None)
        for case in bar:
            bar.set_description(case.name)
            match case:
                case edges.EdgeCase():
                    rows[case.name] = edges.run_case(case, self.rounds)
                case memory.MemoryCase():
                    rows[case.name] = memory.run_case(case)
                case drift.DriftCase():
                    rows[case.name] = drift.run_case(case)
                case _:
                    rows[case.name] = patching.run_case(case, self.rounds)
            made = provenance_record()
            rows[case.name]["provenance"] = made  # rows of earlier commands keep theirs
            data = {"provenance": made, "rows": rows}
            write_whole(path, json.dumps(data, indent=1) + "\n")
        if self.json:
            print(json.dumps({c.name: rows[c.name] for c in cases}))
            return 0
        shown = [(c.name, rows[c.name]) for c in cases]
        by_kind = {"edges": self.show_edges, "memory": self.show_peaks, "drift": self.show_drift, "patching": self.show}
        by_kind[kind](shown)
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

    def show_drift(self, rows: list[tuple[str, dict]]) -> None:
        """Prints the table of differences."""
        from experiments.results import print_table

        met = {True: "yes", False: "NO"}
        cells = []
        for name, row in rows:
            for pair, found in row["compared"].items():
                for what, x in found.items():
                    if what == "answers":
                        off = ["-", f"{x['differ']} of {x['of']}", str(x["allowed"])]
                    else:
                        off = [f"{x['absolute']:.1e}", f"{x['relative']:.1e}", f"{x['allowed']:.1e}"]
                    cells.append([name, pair, what, *off, met[x["met"]]])
        columns = ["case", "compared", "what", "difference", "of the largest", "allowed", "met"]
        print_table("largest differences", columns, cells)
