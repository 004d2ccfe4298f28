"""The battery: run all arms on one model at each length (probes/README.md, Battery)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from interp.support.exactness import Inexact
from interp.support.finite import NotFinite
from probes.arms.inputs import COMPETENCE, ArmInputs, draw
from probes.arms.m09_subspaces import Searches
from probes.arms.registry import ARMS, DECIDING, Arm, left_out_of
from probes.competence import accuracies_in, modes_of
from probes.evidence import Accuracy, Evidence
from probes.limits import check_asked, check_shortest
from probes.trials.parity import refuse

if TYPE_CHECKING:
    from interp.models import Run

# Returns the evidence of a piece of work by its name: stored by an earlier process, or measured now.
Recall = Callable[[str, Callable[[], Sequence[Evidence]]], Sequence[Evidence]]
# Measures some of the pieces of work, in any order; returns the names of those that `recall` then finds.
Prepare = Callable[[Sequence["Piece"]], Collection[str]]
# Fewest prompts that decide competence: with fewer, even a perfect model's interval reaches below the gate.
GATE = 128


@dataclass(frozen=True)
class Measured:
    """The measurements at one length.

    `refusal` is the reason why labels cannot be tested there, `no_address` why not as addresses; the corresponding
    evidence is then missing. `left_out` has the reason for each requested arm that does not apply to the task, or that
    only describes and fails its own check on this model.
    """

    length: int | tuple[int, int]
    accuracy: tuple[Accuracy, ...]
    evidence: tuple[Evidence, ...]
    refusal: str | None = None
    no_address: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Battery:
    """All measurements on one model, length by length, from prompts drawn with `seed`."""

    name: str
    format: str
    prompts: int
    seed: int
    measured: tuple[Measured, ...]


@dataclass(frozen=True, eq=False)
class Piece:
    """A piece of work: arms that are measured together at one length."""

    rows: tuple[Arm, ...]
    inputs: ArmInputs

    @property
    def name(self) -> str:
        """The length and the codes, such as "length 20: M1 M2 M3"."""
        return f"length {self.inputs.length}: {' '.join(row.code for row in self.rows)}"

    @property
    def title(self) -> str:
        """The arms with their short names."""
        return ", ".join(row.title for row in self.rows)

    def measure(self) -> Sequence[Evidence]:
        """Return the evidence of the arms."""
        return self.rows[0].measure(self.inputs)


@dataclass(frozen=True)
class _Options:
    seed: int
    prompts: int
    forced: bool
    codes: frozenset[str]
    competence: float | None
    step: Callable[[str], object]
    recall: Recall
    prepare: Prepare
    registry: Mapping[str, Arm]
    searches: Searches = field(default_factory=dict)


def battery(
    run: Run,
    lengths: Sequence[int] = (20, 40),
    seed: int = 0,
    prompts: int = 128,
    forced: bool = False,
    arms: Collection[str] = DECIDING,
    competence: float | None = 0.9,
    step: Callable[[str], object] = lambda _: None,
    recall: Recall = lambda name, measure: measure(),
    prepare: Prepare = lambda pieces: (),
    registry: Mapping[str, Arm] = ARMS,
) -> Battery:
    """Run the arms on a run (`interp.models.Run`) at each length. `probes.verdict` decides on the result.

    Trials, discovery and description have prompts of their own; other arms read those of competence. In addition a
    length is the digits of both operands; arms that do not apply to the task are left out (`Measured.left_out`).

    - `forced`: measure competence only with labels that are given.
    - `arms`: codes of `registry`. By default the arms that decide.
    - `competence`: lengths with a step accuracy below this value get no arms; None runs them at every length.
    - `step`: called with the name of each piece of work as it starts.
    - `recall`: returns the evidence of a piece of work by its name, either stored by an earlier process or measured.
      Stored evidence must come from the same run, seed and prompts.
    - `prepare`: called once with all pieces of work. It may measure and store them in any order and in other processes
      (see `inputs_of`), and returns the names of those that `recall` then finds.

    Raises `ValueError` for a run with the task recall, an unknown arm, fewer than 24 prompts, or a length that the run
    cannot take.
    """
    check_battery(run, lengths, prompts, arms, registry)
    options = _Options(
        seed=seed,
        prompts=prompts,
        forced=forced,
        codes=frozenset(arms),
        competence=competence,
        step=step,
        recall=recall,
        prepare=prepare,
        registry=registry,
    )
    begun = [_begin(run, length, options) for length in lengths]
    prepared = frozenset(prepare([piece for _, pieces in begun for piece in pieces]))
    measured = tuple(_measure(found, pieces, prepared, options) for found, pieces in begun)
    return Battery(name=run.name, format=str(run.format), prompts=prompts, seed=seed, measured=measured)


def check_battery(
    run: Run, lengths: Sequence[int], prompts: int, arms: Collection[str], registry: Mapping[str, Arm] = ARMS
) -> None:
    """Raise `ValueError` for what `battery` refuses, without running the model."""
    if run.format.task == "recall":
        call = (
            'binding_verdict(run.name, measure_binding(run, trials_of(run, "recall", items, prompts, seed), "recall"))'
        )
        raise ValueError(f"battery judges parity and addition; for recall call {call} of probes.binding")
    check_asked(lengths, prompts, arms, registry)
    if not lengths:
        raise ValueError("name one or more different lengths; got []")
    for length in lengths:
        run.check_length(length)
        check_shortest(length, run.format.task)


def inputs_of(
    run: Run,
    length: int | tuple[int, int],
    seed: int,
    prompts: int,
    searches: Searches,
    report: Callable[[str], object] = lambda _: None,
) -> ArmInputs:
    """Return the inputs of a battery's arms at one length.

    `searches`: finished searches of M9 for this run, seed and prompts, which all lengths share. `report`: as `step` of
    `battery`, for work that several arms share.
    """
    plain = draw(run, max(prompts, GATE), length, seed, COMPETENCE).rows(slice(prompts))
    return ArmInputs(run, length, seed, prompts, plain, report, searches)


def _begin(run: Run, length: int, options: _Options) -> tuple[Measured, list[Piece]]:
    """Measure competence at a length; return it, or the reason why there are no pieces of work, and the pieces."""

    def report(text: str) -> None:
        options.step(f"length {length}: {text}")

    report("competence")
    many = draw(run, max(options.prompts, GATE), length, options.seed, COMPETENCE)
    plain = many.rows(slice(options.prompts))
    modes = ("forced",) if options.forced else modes_of(plain)
    accuracy = tuple(accuracies_in(run.raw, many, modes))
    left_out = left_out_of(run.format, options.codes, options.registry)
    best = max(a.estimate.value for a in accuracy if a.metric == "step")
    refusal = refuse(plain)
    if refusal or (options.competence is not None and best < options.competence):
        return Measured(length, accuracy, (), refusal, left_out=left_out), []
    inputs = ArmInputs(run, length, options.seed, options.prompts, plain, report, options.searches)
    try:
        _ = inputs.trials  # a format without trials is refused, whatever the arms are
    except NotFinite:
        raise
    except ValueError as error:  # there are too few trials
        return Measured(length, accuracy, (), str(error), left_out=left_out), []
    groups = _groups(inputs, options.codes - set(left_out), options.registry)
    found = Measured(length, accuracy, (), None, inputs.no_address, left_out)
    return found, [Piece(rows, inputs) for rows in groups]


def _measure(begun: Measured, pieces: Sequence[Piece], prepared: Collection[str], options: _Options) -> Measured:
    """Return what `_begin` returned, with the evidence of the pieces."""
    evidence: list[Evidence] = []
    left_out = dict(begun.left_out)

    def measure(piece: Piece) -> None:
        if piece.name not in prepared:
            piece.inputs.report(piece.title)
        try:
            found = options.recall(piece.name, piece.measure)
            evidence.extend(replace(e, length=begun.length) for e in found)  # addition's arms count output steps
        except Inexact as error:
            if any(row.decides for row in piece.rows):
                raise
            left_out.update({row.code: str(error) for row in piece.rows})

    try:
        for piece in pieces:
            if piece.rows[0].on_trials:
                measure(piece)
    except NotFinite:
        raise
    except ValueError as error:  # the margin is too small to normalise by
        return replace(begun, refusal=str(error), no_address=None)
    for piece in pieces:
        if piece.rows[0].on_trials:
            continue
        try:
            measure(piece)
        except NotFinite:
            raise
        except ValueError as error:
            if options.competence is not None:
                raise
            left_out.update({row.code: str(error) for row in piece.rows})  # a model that cannot do the task
    return replace(begun, evidence=tuple(evidence), left_out=left_out)


def _groups(inputs: ArmInputs, codes: Collection[str], registry: Mapping[str, Arm]) -> Iterator[tuple[Arm, ...]]:
    """Yield the rows that are measured together, where at least one of them was requested and applies."""
    for _, group in groupby(registry.values(), key=lambda row: row.measure):
        rows = tuple(group)
        possible = inputs.no_address is None or not rows[0].needs_address
        if possible and set(codes) & {row.code for row in rows}:
            yield rows
