"""`mnemoscope bench`: measure speed, memory and numerical drift, beside TransformerLens where it has the same."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from experiments.support.options import AsJson, Flag, Folder, Number, computed

# Flags that choose a benchmark, and benchmarks that have no rounds.
FLAGS = ("edges", "loops", "grids", "integration", "peak", "drift", "scaling", "bloom")
ONCE = ("memory", "drift")
# Benchmarks that set the number of threads themselves.
OWN_THREADS = (*ONCE, "scaling")


@dataclass(frozen=True)
class BenchCommand:
    """Time patching sweeps against one forward pass per patch, in alternation, and count FLOPs.

    Writes patching.json, or the file of another benchmark. Ratios hold for one run on one machine. One process at a
    time may write a file.
    """

    only: Annotated[str, computed("TEXT")] = ""
    """Run only the cases whose name contains this text, such as 4x128-82-b1-resid_pre; other cases keep their earlier
    results. Default: all."""
    rounds: Number = 5
    """Alternating rounds of each case; medians are reported. Not for --peak and --drift."""
    threads: Number = 1
    """CPU threads. Not for --peak, --drift and --scaling, which set their own."""
    edges: Flag = False
    """Time edge attribution against TransformerLens's attribution_patch instead. Default: time patching."""
    loops: Flag = False
    """Time whole sweeps against the best loop written by hand on plain Hugging Face instead. Default: time
    patching."""
    grids: Flag = False
    """Time every function of interp.patching.grids against transformer_lens.patching instead. Default: time
    patching."""
    integration: Flag = False
    """Measure the integration error of EAP-IG's edge scores at few points instead. Default: time patching."""
    peak: Flag = False
    """Measure the memory of capture, patching and the verdict with 10, 100 and 1000 prompts instead."""
    drift: Flag = False
    """Measure how far numbers of shipped runs differ between 1 and 2 threads, and float32 and float64, instead."""
    scaling: Flag = False
    """Measure a training step and the other stages of a run of the grid instead."""
    device: Annotated[Literal["cpu", "cuda"] | None, computed("{cpu,cuda}")] = None
    """Device of --scaling; rows of other devices are kept. Default: a GPU where there is one."""
    bloom: Flag = False
    """Run the shape of BLOOM-560M instead (24 layers, d=1024, 250880 tokens, random weights); needs 6 GiB."""
    out: Folder = Path("mnemoscope-out")
    """Folder for the results."""
    json: AsJson = False

    def run(self) -> int:
        """Run the cases one by one, and write each result when it is done."""
        from experiments.support.option_checks import check_positive, check_workers

        check_positive(self, "rounds")
        check_workers("threads", self.threads)
        kind = self._kind()
        self._check_used(kind)
        import torch

        from experiments.benchmarks.printing import show
        from experiments.support.console import say, warn
        from experiments.support.progress import progress_bar
        from experiments.support.provenance import provenance_record
        from experiments.support.reading import read_rows
        from experiments.support.results import writable_folder
        from interp.support.writing import alone_in, write_whole

        default = self._cases(kind)
        cases = [c for c in default if self.only in c.name]
        if not cases:
            raise ValueError(f"no case contains {self.only!r}; cases are {', '.join(c.name for c in default)}")
        if kind not in OWN_THREADS:
            torch.set_num_threads(self.threads)
        path = writable_folder(self.out) / f"{kind}.json"
        with alone_in(path.with_name(f".{kind}")):  # each process would write the rows that it had read
            rows = read_rows(path) if path.exists() else {}
            if again := sum(case.name in rows for case in cases):
                warn(f"replacing {again} of {len(rows)} rows in {path}; another --out keeps both")
            bar = progress_bar(cases, unit="case")
            for case in bar:
                bar.set_description(case.name)
                made = provenance_record()
                rows[case.name] = {**self._measured(kind, case), "provenance": made}  # other rows keep theirs
                write_whole(path, json.dumps({"provenance": made, "rows": rows}, indent=1) + "\n")
        shown = {c.name: rows[c.name] for c in cases}
        if self.json:
            print(json.dumps(shown))
            return 0
        show(kind, shown)
        say(path)
        return 0

    def _kind(self) -> str:
        """Return the name of the benchmark, which is also its file's."""
        chosen = [name for name in FLAGS if getattr(self, name)]
        if len(chosen) > 1:
            flags = " and ".join(f"--{name}" for name in chosen)
            raise ValueError(f"{flags} are different benchmarks; run one after the other")
        if self.device and not self.scaling:
            raise ValueError("--device is for --scaling; the other benchmarks use a GPU where there is one")
        kind = chosen[0] if chosen else "bloom"
        return {"peak": "memory", "bloom": "patching"}.get(kind, kind)

    def _check_used(self, kind: str) -> None:
        """Raise `ValueError` for an option that the benchmark does not read."""
        for option, kinds in (("rounds", ONCE), ("threads", OWN_THREADS)):
            if kind in kinds and getattr(self, option) != getattr(type(self), option):
                flag = next(name for name in FLAGS if getattr(self, name))
                raise ValueError(f"--{option} does not apply to --{flag}; leave it out")

    def _cases(self, kind: str) -> tuple[Any, ...]:
        """Return the cases of a benchmark."""
        import torch

        module = _module_of(kind)
        match kind:
            case "scaling":
                return module.cases_of(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
            case "patching" if self.bloom:
                return (module.BLOOM_560M,)
            case _:
                return module.DEFAULT

    def _measured(self, kind: str, case: Any) -> dict:
        """Return the row of a case."""
        run_case = _module_of(kind).run_case
        return run_case(case) if kind in ONCE else run_case(case, self.rounds)


def _module_of(kind: str) -> Any:
    """Return the module of a benchmark, which has its cases and `run_case`."""
    return import_module(f"experiments.benchmarks.{kind}")
