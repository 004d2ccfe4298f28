"""The types of a verdict: thresholds, findings per length, and what may be claimed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from probes import keys
from probes.claims import LARGEST, NO_MARGIN, SETTLED, WITHOUT, accuracies, listed
from probes.evidence import MODELS, Accuracy, Evidence, EvidenceKey, Interval, find_evidence
from probes.statuses import RoleFinding, Status
from probes.trials.parity import steps_read

SCHEMA = 1
ROLES = ("anchor", "placeholder", "sink")
SHARE_KEYS = {
    key.name: key
    for key in (
        keys.SHARE_ADDRESS,
        keys.SHARE_CONTENT,
        keys.SHARE_NORMALISATION,
        keys.SHARE_INTERACTION,
        keys.SHARE_REMAINDER,
    )
}


@dataclass(frozen=True)
class Margins:
    """Every threshold of the decision, fixed before the first measurement and versioned together.

    See probes/README.md, Decision.
    """

    version: str = "2026-11k"
    rho: float = 0.10
    accuracy: float = 0.05
    competence: float = 0.95
    alpha: float = 0.05
    # Ways to a finding at one length, each by an interval: the anchor by M1, M2 and M4 and by five addresses (6), the
    # placeholder by V, K and both for the step's own bit (4), the sink by M6, by presence and by answers that labels do
    # not inform (3), each of these roles absent, the sink also by all heads (4), and the sink on margins (2). Where a
    # finding needs several intervals together, such as ABSENT, its error is at most that of one (intersection-union
    # test: Berger, Technometrics 1982).
    intervals: int = 19

    def to_json(self) -> dict:
        """Return the thresholds, as they are written beside every finding."""
        return asdict(self)

    def level(self, lengths: int) -> float:
        """Return the level of each interval at which all findings hold together (Bonferroni over ways to them)."""
        return 1 - self.alpha / (self.intervals * max(1, lengths))


MARGINS = Margins()


@dataclass(frozen=True)
class LengthFinding:
    """The roles at one length.

    `mode` is the mode in which the model is competent: "written" (it writes the labels), "forced" (they are given) or
    None. `left_out`: requested arms that do not apply to the task, each with the reason. `unexplained`: by role that is
    PRESENT, what the largest intervention moves beyond what the role predicts; the label is then "unresolved".
    """

    length: int | tuple[int, int]
    label: str
    mode: str | None
    roles: dict[str, RoleFinding]
    accuracy: tuple[Accuracy, ...]
    evidence: tuple[Evidence, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    unexplained: dict[str, str] = field(default_factory=dict)

    def share(self, name: str) -> Interval | None:
        """Return a Shapley share by its name, such as "address" or "remainder"; None where it was not measured."""
        share = find_evidence(self.evidence, SHARE_KEYS[name])
        return None if share is None else share.value

    def to_json(self) -> dict:
        """Return a nested plain dictionary without the evidence, which the verdict lists."""
        shares = {name: s.to_json() for name in SHARE_KEYS if (s := self.share(name))}
        return {
            "length": self.length,
            "verdict": self.label,
            "mode": self.mode,
            "roles": {name: role.to_json() for name, role in self.roles.items()},
            "shares": shares or None,
            "accuracy": [a.to_json() for a in self.accuracy],
            "left_out": self.left_out,
            **({"unexplained": self.unexplained} if self.unexplained else {}),
        }


@dataclass(frozen=True)
class Verdict:
    """The roles of the labels: over all lengths at which the model is competent, and length by length.

    `replication` is "prompts" for one model and "models" for several.
    """

    label: str
    roles: dict[str, RoleFinding]
    lengths: tuple[LengthFinding, ...]
    names: tuple[str, ...]
    format: str
    replication: str
    margins: Margins = MARGINS

    @property
    def remainder(self) -> float | None:
        """The share of the margin that no role explains, as the mean over competent lengths; None: not measured."""
        remainders = [r.value for f in self.lengths if f.mode and (r := f.share("remainder"))]
        return sum(remainders) / len(remainders) if remainders else None

    @property
    def may_claim(self) -> str:
        """The strongest claim that this verdict supports, with the steps that the specific arms (M1 to M5) read."""
        who = "this one model" if self.replication == "prompts" else f"models trained like {self._counted()}"
        steps = self._lengths_and_steps()
        where = f"in {who}, at length{'s' * (len(steps) > 1)} {listed(steps)}, with labels and earlier answers given"
        match self.label:
            case "not-applicable":
                return f"nothing: {self.lengths[0].roles['anchor'].reason}"
            case "undecided" | "unresolved":
                settled = [f"{r} {f.status}" for r, f in self.roles.items() if f.status in SETTLED]
                settled += [reason for f in self.lengths if f.mode for reason in f.unexplained.values()]
                none = "none of the three roles is shown or excluded"
                return f"{where}: {'; '.join(settled) or none}; so the verdict names no role"
            case "unused":
                absent = [role for role, f in self.roles.items() if f.status is Status.ABSENT]
                what = f"none of {listed(absent)}" if len(absent) > 1 else f"no {absent[0]}"
                text = f"{where}: labels are {what}, within +-{self.margins.rho} of rho"
                return text + self._on_margins()
            case label:
                by, holds = self.roles["anchor"].by, self.roles["placeholder"].by
                text = f"{where}: the role of the labels is {label}{f', addressed by {by}' if by else ''}"
                text += f", which hold {holds}" if holds else ""
                return text + self._on_margins()

    @property
    def may_not_claim(self) -> str:
        """What this verdict does not support."""
        limits = ["what labels of other formats do", "what happens at other lengths"]
        if self.replication == "prompts":
            limits.insert(0, "that models trained from another seed do the same")
        if self.roles["sink"].status is Status.ABSENT:
            limits.append("that heads that read something from labels do not use them as a sink too")
        if self.label not in ("not-applicable", "undecided", "unresolved"):
            untested = [(role, f) for role, f in self.roles.items() if f.status is Status.NOT_APPLICABLE]
            limits += [f"that labels are no {role}, which was not tested: {f.reason}" for role, f in untested]
        lacking = {
            role: name
            for role, (name, key) in LARGEST.items()
            if self.roles[role].status is Status.ABSENT and self._lacks(key)
        }
        if lacking:
            effects = f"effect{'s' * (len(lacking) > 1)} of {listed([*lacking.values()])}"
            limits.append(f"no {listed([*lacking])} of another kind (largest {effects} not measured)")
        on_margins = self.roles["sink"].margins
        # Where the sink is PRESENT on margins, the claim says so.
        if on_margins and on_margins.status is not Status.PRESENT:
            held = [
                f"{value} of the margin at length {length}"
                for length, value in self._margins_held()
                if value.high > self.margins.rho
            ]
            if held:
                limits.append(f"{NO_MARGIN}: {listed(held)} may depend on it")
        return "; ".join(limits)

    def _counted(self) -> str:
        """Return the models in words, with how many of them can do the task where not all can."""
        counts = [e.n for f in self.lengths if f.mode for e in f.evidence if e.unit == MODELS]
        some = counts and min(counts) < len(self.names)
        return f"these {len(self.names)}" + (f", of which {min(counts)} can do the task and count" if some else "")

    def _lacks(self, key: EvidenceKey) -> bool:
        """Return whether evidence is missing at a length at which the model is competent."""
        return any(find_evidence(f.evidence, key) is None for f in self.lengths if f.mode)

    def _on_margins(self) -> str:
        """Return the sink's status on answers and on margins, where these were measured and differ, and in words."""
        sink = self.roles["sink"]
        if sink.margins is None or sink.margins.status is sink.status or sink.status not in SETTLED:
            return ""
        answers, margins = WITHOUT[sink.status, "answers"], WITHOUT[sink.margins.status, "margins"]
        return (
            f"; sink {sink.status} on answers and {sink.margins.status} on margins (share {sink.margins.share}): "
            f"without attention to labels, heads that read nothing from them {answers}, {margins}"
        )

    def _lengths_and_steps(self) -> list[str]:
        """Return each competent length with the steps that swaps of labels and edits of history read."""
        task = "addition" if self.format.startswith("addition") else "parity"
        steps = [(f.length, *steps_read(task, f.length)) for f in self.lengths if f.mode]
        return [f"{length} (steps {first} to {last})" for length, first, last in steps]

    def _margins_held(self) -> list[tuple[int | tuple[int, int], Interval]]:
        """Return the share of the margin that depends on labels where they carry nothing, at each competent length."""
        found = [(f.length, f.roles["sink"].margins) for f in self.lengths if f.mode]
        return [(length, m.share) for length, m in found if m is not None and m.share is not None]

    def to_json(self) -> dict:
        """Return the verdict with its evidence, by schema 1."""
        return {
            "schema": SCHEMA,
            "verdict": self.label,
            "roles": {name: role.to_json() for name, role in self.roles.items()},
            "remainder": self.remainder,
            "competence": {
                "gate": self.margins.competence,
                "lengths": [
                    {
                        "length": f.length,
                        "competent": f.mode is not None,
                        "mode": f.mode,
                        **accuracies(f.accuracy),
                    }
                    for f in self.lengths
                ],
            },
            "evidence": [e.to_json() for f in self.lengths for e in f.evidence],
            "replication": self.replication,
            "n_models": len(self.names),
            "models": list(self.names),
            "format": self.format,
            "may_claim": self.may_claim,
            "may_not_claim": self.may_not_claim,
            "by_length": [f.to_json() for f in self.lengths],
            "margins": self.margins.to_json(),
        }
