"""What do all arms of the battery find in one model? (science 2.1)"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from interp.support.finite import NotFinite
from interp.tasks import Batch, Format
from probes.arms.m01_identity import follow_the_label
from probes.arms.m04_routes import trace_identity
from probes.arms.m05_history import read_stored_results
from probes.arms.m06_removal import discover, remove_labels
from probes.arms.m07_attention import look_at_labels
from probes.arms.m08_decoding import decode_labels
from probes.arms.m08_erasing import erase_labels
from probes.arms.m09_subspaces import search_labels
from probes.arms.m10_mistakes import learn_from_mistakes
from probes.arms.m11_offsets import follow_offsets
from probes.arms.m12_backups import cut_routes
from probes.arms.shares import divide_margin
from probes.competence import accuracies, modes_of
from probes.evidence import Accuracy, Evidence
from probes.trials.addition import choose_sums
from probes.trials.parity import BOTH_DIFFER, OVERSAMPLE, Trials, check_shortest, choose, refuse, refuse_address

if TYPE_CHECKING:
    from interp.models import Run

DECIDING = ("M1", "M2", "M3", "M4", "M5", "M6", "shares")
DESCRIBING = ("M7", "M8", "M9", "M10", "M11", "M12")
ARMS = (*DECIDING, *DESCRIBING)
# The evidence of a piece of work, by its name: kept from an earlier process, or measured.
Recall = Callable[[str, Callable[[], Sequence[Evidence]]], Sequence[Evidence]]
# Arms that are parity's alone, and why. None of them decides a role.
NOT_OF_ADDITION = {
    "M8": "its controls are prefix parities and bits, which addition does not have",
    "M9": "its pointer and state are parity's: two-valued answers that an exclusive or composes",
    "M10": "the answer that a wrong label leads to is written as an exclusive or of bits",
    "M11": "a digit's edit changes the answers of higher places too, so no single input decides a step",
}
# Prompts for arms whose cost grows with heads or steps, and for the discovery of idle heads.
FEW = 24
# Prompts that decide competence, at least: with fewer, not even a perfect model is surely above the gate.
GATE = 128
# Prompts for probes and for DAS, which learn, and the length at which DAS learns; it is tried at the others.
SOME, MANY, DAS_LENGTH = 256, 900, 10


@dataclass(frozen=True)
class Measured:
    """What was found at one length. `refusal` says why labels cannot be tested there, `no_address` why not as
    addresses; evidence is then missing accordingly. `left_out` has the reason for each arm that was asked for and
    is not the task's."""

    length: int | tuple[int, int]
    accuracy: tuple[Accuracy, ...]
    evidence: tuple[Evidence, ...]
    refusal: str | None = None
    no_address: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Battery:
    """Everything measured on one model, length by length, from prompts drawn with `seed`."""

    name: str
    format: str
    prompts: int
    seed: int
    measured: tuple[Measured, ...]


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
) -> Battery:
    """Runs the arms on a run (`interp.models.Run`) at each length; `probes.verdict` decides what follows.

    Prompts of different purposes (competence, trials, discovery, description) are drawn with seeds of their own.
    `forced`: competence is measured with labels put there from outside alone. Lengths at which step accuracy is
    below `competence` by far get no arms, because they could not count (None: all lengths do). `step` is called
    with the name of each piece of work as it begins. `recall` gives the evidence of a piece by its name, of this or of
    an earlier process that was stopped, or measures it: what it gives must have been measured on the same run with the
    same seed and prompts. In addition a length is the digits of both operands; arms that are parity's alone are left
    out, and `Measured.left_out` says why.

    Raises `ValueError` for an unknown arm, fewer than 24 prompts, or a length that the run cannot take.
    """
    if unknown := sorted(set(arms) - set(ARMS)):
        raise ValueError(f"unknown arms {', '.join(unknown)}; arms are {', '.join(ARMS)}")
    if prompts < 24:
        raise ValueError(f"at least 24 prompts are needed; got {prompts}")
    if not lengths or len(set(lengths)) < len(lengths):
        raise ValueError(f"name one or more different lengths; got {list(lengths)}")
    for length in lengths:
        run.check_length(length)
        check_shortest(length, run.format.task)
    measured = []
    for length in lengths:

        def draw(size: int, purpose: int, length: int = length) -> Batch:
            return run.sample(size, length, seed=1_000_000 * purpose + 1000 * seed + length)

        measured.append(_measure(run, draw, length, seed, prompts, forced, frozenset(arms), competence, step, recall))
    return Battery(run.name, str(run.format), prompts, seed, tuple(measured))


def _measure(
    run: Run,
    draw: Callable[[int, int], Batch],
    length: int,
    seed: int,
    prompts: int,
    forced: bool,
    arms: frozenset[str],
    competence: float | None,
    step: Callable[[str], object],
    recall: Recall,
) -> Measured:
    step(f"length {length}: competence")
    many = draw(max(prompts, GATE), 0)
    plain = many.rows(slice(prompts))
    modes = ("forced",) if forced else modes_of(plain)
    accuracy = tuple(row for mode in modes for row in accuracies(run.raw, many, mode))
    best = max(a.estimate.value for a in accuracy if a.metric == "step")
    refusal, left_out = refuse(plain), left_out_of(run.format, arms)
    arms = arms - set(left_out)
    if refusal or (competence is not None and best < competence):
        return Measured(length, accuracy, (), refusal, left_out=left_out)
    model, no_address, found = run.raw, refuse_address(plain), []

    def arm(names: Collection[str], work: Callable[[], Sequence[Evidence]]) -> None:
        if arms & set(names):
            step(f"length {length}: {', '.join(names)}")
            found.extend(recall(f"length {length}: {' '.join(names)}", work))

    try:
        trials = draw_trials(run.format, draw, 1, seed, prompts)
        if no_address is None:
            arm(("M1", "M2", "M3"), lambda: follow_the_label(model, trials, seed))
            arm(("M4",), lambda: trace_identity(model, trials))
        arm(("M5",), lambda: read_stored_results(model, trials))
    except NotFinite:
        raise
    except ValueError as error:  # too small a margin to normalise by, or too few trials
        return Measured(length, accuracy, (), str(error), left_out=left_out)
    if arms & {"M6", "shares"}:
        step(f"length {length}: which heads carry nothing from labels")
        rest = discover(model, draw(FEW, 2), draw(FEW, 8))
        arm(("M6",), lambda: remove_labels(model, plain, rest))
        if "shares" in arms:
            both = draw_trials(run.format, draw, 7, seed, prompts, all_differ=True)
            arm(("shares",), lambda: divide_margin(model, both, rest.idle, address=no_address is None))
    few = draw(FEW, 3)
    arm(("M7",), lambda: look_at_labels(model, few))
    arm(("M8",), lambda: [*decode_labels(model, draw(SOME, 4), seed), *erase_labels(model, draw(SOME, 4), few, seed)])
    if "M9" in arms:
        learnt = run.sample(MANY, min(DAS_LENGTH, length), seed=1_000_000 * 5 + 1000 * seed)
        arm(("M9",), lambda: search_labels(model, learnt, draw(SOME, 6), seed, pointer=no_address is None))
    arm(("M10",), lambda: learn_from_mistakes(model, plain))
    arm(("M11",), lambda: follow_offsets(model, few))
    arm(("M12",), lambda: cut_routes(model, few))
    return Measured(length, accuracy, tuple(found), None, no_address, left_out)


def draw_trials(
    fmt: Format, draw: Callable[[int, int], Batch], purpose: int, seed: int, prompts: int, all_differ: bool = False
) -> Trials:
    """About `prompts` trials of a format that `draw` poses; half as many where they must be those that `all_differ`."""
    if fmt.task == "addition":
        batch = draw(prompts, purpose)  # every prompt serves
        return choose_sums(batch, seed, prompts // 2, cells=(0,)) if all_differ else choose_sums(batch, seed, prompts)
    batch = draw(prompts * OVERSAMPLE, purpose)
    return choose(batch, seed, prompts // 2, cells=(BOTH_DIFFER,)) if all_differ else choose(batch, seed, prompts)


def left_out_of(fmt: Format, arms: Collection[str]) -> dict[str, str]:
    """Which of the arms do not apply to a format's task, and why."""
    if fmt.task != "addition":
        return {}
    return {name: f"left out for addition: {why}" for name, why in NOT_OF_ADDITION.items() if name in arms}
