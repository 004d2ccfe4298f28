"""`mnemoscope bench`: how fast, how large and how exact? Patching and edges are timed beside TransformerLens's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class BenchCommand:
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

        from experiments.benchmarks.printing import SHOWN
        from experiments.support.progress import progress_bar
        from experiments.support.provenance import provenance_record
        from experiments.support.reading import read_rows
        from experiments.support.results import check_workers, writable_folder
        from interp.support.writing import write_whole

        if self.rounds < 1:
            raise ValueError(f"--rounds must be at least 1; got {self.rounds}")
        check_workers("threads", self.threads)
        kind = self._kind()
        default = self._cases(kind)
        cases = [c for c in default if self.only in c.name]
        if not cases:
            raise ValueError(f"no case contains {self.only!r}; cases are {', '.join(c.name for c in default)}")
        torch.set_num_threads(self.threads)
        path = writable_folder(self.out) / f"{kind}.json"
        rows = read_rows(path) if path.exists() else {}
        bar = progress_bar(cases, unit="case")
        for case in bar:
            bar.set_description(case.name)
            made = provenance_record()
            rows[case.name] = {**self._measured(case), "provenance": made}  # rows of earlier commands keep theirs
            write_whole(path, json.dumps({"provenance": made, "rows": rows}, indent=1) + "\n")
        shown = {c.name: rows[c.name] for c in cases}
        if self.json:
            print(json.dumps(shown))
            return 0
        SHOWN[kind](rows if self.scaling else shown)  # estimates are made of several rows
        print(path)
        return 0

    def _kind(self) -> str:
        """Which benchmark was asked for."""
        kinds = {
            "edges": self.edges,
            "peak": self.peak,
            "drift": self.drift,
            "scaling": self.scaling,
            "bloom": self.bloom,
        }
        asked = [name for name, wanted in kinds.items() if wanted]
        if len(asked) > 1:
            flags = " and ".join(f"--{name}" for name in asked)
            raise ValueError(f"{flags} are different benchmarks; run one after the other")
        if self.device and not self.scaling:
            raise ValueError("--device is for --scaling; the other benchmarks take a GPU where there is one")
        kind = asked[0] if asked else "bloom"
        return {"peak": "memory", "bloom": "patching"}.get(kind, kind)

    def _cases(self, kind: str) -> tuple[Any, ...]:
        """The cases of a benchmark."""
        import torch

        from experiments.benchmarks import drift, edges, memory, patching, scaling

        match kind:
            case "scaling":
                return scaling.cases_of(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
            case "patching":
                return (patching.BLOOM_560M,) if self.bloom else patching.DEFAULT
            case _:
                return {"drift": drift, "edges": edges, "memory": memory}[kind].DEFAULT

    def _measured(self, case: Any) -> dict:
        """The row of a case."""
        from experiments.benchmarks import drift, edges, memory, patching, scaling

        match case:
            case edges.EdgeCase():
                return edges.run_case(case, self.rounds)
            case memory.MemoryCase():
                return memory.run_case(case)
            case drift.DriftCase():
                return drift.run_case(case)
            case scaling.StepCase() | scaling.StageCase():
                return scaling.run_case(case, self.rounds)
            case _:
                return patching.run_case(case, self.rounds)
