"""`mnemoscope verdict`: what do the labels do inside a run?"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Verdict:
    """Whether label identity is used as an address, at lengths inside and past training.

    Competence first, then M1 and M2 (labels trade places: does the answer follow?) and M3 (labels are
    renamed consistently: does anything change?), with matched controls. These arms alone cannot tell a
    placeholder from a sink from an unused label. Writes verdict.json.
    """

    name: Annotated[str, tyro.conf.Positional]
    """A run by name, such as parity-aligned-alibi, or a folder that save_pretrained wrote."""
    format: str | None = None
    """Task to pose to a model that has no run.json, such as parity-aligned."""
    lengths: tuple[int, ...] = (10, 20, 30, 40, 60)
    """Bits."""
    prompts: int = 256
    """Prompts at each length."""
    seed: int = 0
    """Seed of the prompts and of the choice of steps."""
    out: Path | None = None
    """Folder for the result; default mnemoscope-out/<run>."""
    json: bool = False
    """Print JSON instead of tables."""

    def run(self) -> int:
        """Computes, writes and prints; status 0 whatever the finding is."""
        from tqdm import tqdm

        from experiments import load
        from experiments.results import check_seed, print_table, result_folder, write_result
        from probes.competence import accuracies, modes_of
        from probes.decision import MARGINS, find_address
        from probes.identity import follow_the_label, refuse

        if not self.lengths:
            raise ValueError("name at least one length")
        check_seed(self.seed)
        if self.prompts < 16:
            raise ValueError(f"--prompts must be at least 16; got {self.prompts}")
        run = load(self.name, self.format)
        batches = [run.sample(self.prompts, n, seed=1000 * self.seed + n) for n in self.lengths]
        folder = result_folder(run, self.out)
        level = MARGINS.level(len(batches))
        findings = []
        for batch in tqdm(batches, desc=run.name, unit="length", file=sys.stderr, disable=None):
            assert isinstance(batch.length, int)
            accuracy = [row for mode in modes_of(batch) for row in accuracies(run.raw, batch, mode)]
            refusal = refuse(batch)
            evidence = []
            if refusal is None:
                try:
                    evidence = follow_the_label(run.raw, batch, self.seed, level)
                except ValueError as error:
                    refusal = str(error)
            findings.append(find_address(batch.length, accuracy, evidence, refusal))

        data = {"prompts": self.prompts, "unit": "prompts of one model", "margins": MARGINS.to_json()}
        data["findings"] = [f.to_json() for f in findings]
        written = write_result(folder / "verdict.json", run, self.seed, data)
        if self.json:
            print(json.dumps(written))
            return 0
        trained = run.record.get("recipe", {}).get("longest")
        title = f"{run.name}: competence, {self.prompts} prompts a length, 95 % intervals"
        table = []
        for finding in findings:
            for mode in dict.fromkeys(a.mode for a in finding.accuracy):
                by_metric = {a.metric: str(a.estimate) for a in finding.accuracy if a.mode == mode}
                where = "past training" if trained and finding.length > trained else "trained" if trained else ""
                cells = [by_metric[m] for m in ("step", "exact", "final")]
                table.append([str(finding.length), where, mode, *cells])
        columns = ["length", "", "labels", "step accuracy", "exact match", "final"]
        print_table(title, columns, table)
        if any(f.evidence for f in findings):
            title = (
                f"does the answer follow the label? rho: share of the margin moved; follows: share of prompts; "
                f"{100 * level:.1f} % intervals (95 % for all that decide, at once)"
            )
            table = [
                [str(e.length), e.name, str(e.effect), str(e.control or "-"), str(e.follows),
                 str(e.control_follows or "-"), str(e.n)]
                for f in findings for e in f.evidence
            ]  # fmt: skip
            columns = ["length", "arm", "rho", "rho, control", "follows", "follows, control", "prompts"]
            print_table(title, columns, table)
        for finding in findings:
            print(f"length {finding.length}: {finding.status} - {finding.sentence}")
        if share := run.record.get("recipe", {}).get("rehearsal"):
            pairs = run.record["recipe"]["rehearsal_longest"]
            print(
                f"Trained with rehearsal: {share:.0%} of its tokens were in-context recall of up to {pairs} pairs, "
                "which also knows the held-out labels; 'past training' means past the lengths of parity."
            )
        print(
            "A statement about this one model, inferred over prompts. These arms cannot tell a placeholder "
            "from a sink from an unused label."
        )
        print(folder / "verdict.json")
        return 0
