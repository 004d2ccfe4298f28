"""The battery: which arms run at which length, on which prompts, and what is left out and why."""

from dataclasses import replace

import pytest

from experiments import load
from interp.support.exactness import Inexact
from probes import batteries
from probes.arms.registry import ARMS, DECIDING
from probes.batteries import battery
from probes.trials.parity import OVERSAMPLE
from tests.probes.oracle_models import MemoryRun, planted_run, random_run

CHEAP = ("M5",)


def of(found) -> set[str]:
    return {e.arm for e in found.evidence}


def test_only_the_arms_that_were_asked_for():
    run = planted_run("A1")
    for chosen in (("M4",), ("M10", "M11"), ("M6", "M12")):
        (found,) = battery(run, (8,), prompts=24, arms=chosen).measured
        # A model that makes no mistakes gives M10 no occasion.
        assert of(found) == set(chosen) - {"M10"}
    (found,) = battery(run, (8,), prompts=24, arms=()).measured
    assert found.evidence == ()
    assert found.refusal is None


def test_the_deciding_arms_are_the_default():
    (found,) = battery(planted_run("A1"), (8,), prompts=24).measured
    assert of(found) == set(DECIDING)
    assert {e.length for e in found.evidence} == {8}
    keys = [e.key for e in found.evidence]
    assert len(set(keys)) == len(keys)


def test_each_purpose_has_prompts_of_its_own(monkeypatch: pytest.MonkeyPatch):
    drawn = []

    class Watched(MemoryRun):
        def sample(self, batch_size, length, seed):
            batch = super().sample(batch_size, length, seed)
            drawn.append((batch_size, length, seed, batch))
            return batch

    base = planted_run("A1")
    run = Watched("x", "", base.format, base.vocabulary, made=base.made)
    battery(run, (8, 9), seed=3, prompts=24, arms=("M5", "M6", "M11"))
    seeds = [(length, seed) for _, length, seed, _ in drawn]
    # Competence, trials, discovery (twice) and description, at each length.
    assert len(set(seeds)) == 10
    assert [size for size, *_ in drawn[:2]] == [batteries.GATE, 24 * OVERSAMPLE]
    distinct = {(length, seed): {tuple(r) for r in batch.tokens.tolist()} for _, length, seed, batch in drawn}
    for length in (8, 9):
        sets = [rows for (n, _), rows in distinct.items() if n == length]
        assert all(not a & b for i, a in enumerate(sets) for b in sets[:i])
    before = [batch.tokens.tolist() for *_, batch in drawn]
    drawn.clear()
    battery(run, (8, 9), seed=4, prompts=24, arms=("M5", "M6", "M11"))
    assert not {tuple(map(tuple, b)) for b in before} & {tuple(map(tuple, d[3].tokens.tolist())) for d in drawn}


def test_the_same_seed_gives_the_same_numbers_and_another_others():
    run = planted_run("placeholder")
    first, again, other = (
        [e.to_json() for e in battery(run, (8,), seed=s, prompts=24, arms=("M6",)).measured[0].evidence]
        for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_length_at_which_the_model_fails_gets_no_arms():
    (found,) = battery(random_run(), (8,), prompts=24, arms=CHEAP).measured
    assert found.evidence == ()
    assert found.refusal is None
    assert {a.metric for a in found.accuracy} == {"step", "exact", "final", "free step"}
    (tried,) = battery(random_run(), (8,), prompts=24, arms=CHEAP, competence=None).measured
    # It does not read the bit, so there may be nothing to normalise by; then the reason is given.
    assert tried.evidence or "too little to normalise" in (tried.refusal or "")


@pytest.mark.parametrize(
    ("fmt", "length", "words"), [("parity-scratchpad", 8, "no labels"), ("parity-direct", 8, "no labels")]
)
def test_where_labels_cannot_be_tested_there_is_a_reason_and_no_evidence(fmt, length, words):
    (found,) = battery(random_run(fmt), (length,), prompts=24, competence=None).measured
    assert words in (found.refusal or "")
    assert found.evidence == ()
    assert found.accuracy


def test_labels_that_repeat_get_the_other_arms():
    (found,) = battery(planted_run("placeholder", fmt="parity-constant"), (8,), prompts=24, forced=True).measured
    assert "repeats labels" in (found.no_address or "")
    assert of(found) == {"M5", "content", "M6", "presence", "shares"}
    assert next(e for e in found.evidence if e.name == "address").value.value == 0


def test_modes_are_forced_and_written_unless_asked_otherwise():
    run = planted_run("A1 written")
    assert {a.mode for a in battery(run, (8,), prompts=24, arms=()).measured[0].accuracy} == {"forced", "written"}
    assert {a.mode for a in battery(run, (8,), prompts=24, arms=(), forced=True).measured[0].accuracy} == {"forced"}


def test_progress_is_reported_with_short_names():
    steps: list[str] = []
    battery(planted_run("A1"), (8,), prompts=24, arms=("M1", "M5", "M6"), step=steps.append)
    assert steps == [
        "length 8: competence",
        "length 8: M1 input swap, M2 output swap, M3 renaming",
        "length 8: M5 history",
        "length 8: M6 removal",
        "length 8: which heads carry nothing from labels",
    ]


def test_a_battery_states_what_was_measured():
    found = battery(planted_run("A1"), (8, 6), seed=2, prompts=24, arms=())
    assert (found.name, found.format, found.prompts, found.seed) == ("A1", "parity-aligned", 24, 2)
    assert [m.length for m in found.measured] == [8, 6]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arms": ("M1", "M99")}, "unknown arms M99; arms are M1, M2"),
        ({"prompts": 23}, "at least 24 prompts are needed; got 23"),
        ({"lengths": ()}, "one or more different lengths"),
        ({"lengths": (8, 8)}, "one or more different lengths"),
        ({"lengths": (8, 80)}, "takes .* positions"),
        ({"lengths": (8, 400)}, "needs 400 different labels"),
        ({"lengths": (8, 4)}, "at least 5 is needed"),
    ],
)
def test_mistakes_are_named_before_work_starts(options, words, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batteries, "_measure", lambda *_: pytest.fail("work started"))
    with pytest.raises(ValueError, match=words):
        battery(planted_run("A1"), **{"lengths": (8,), "prompts": 24, **options})


# M10 needs a model that makes mistakes; M9 trains, and has its own tests.
@pytest.mark.parametrize(
    "arm", [*(a for a in ARMS if a not in ("M9", "M10")), pytest.param("M9", marks=pytest.mark.slow)]
)
def test_each_arm_by_name_measures_something(arm):
    (found,) = battery(planted_run("A1"), (8,), prompts=24, arms=(arm,)).measured
    assert arm in of(found)


@pytest.mark.slow
def test_m8_where_labels_are_embedded_alike():
    """`#` without positions: the embedding of a label is constant, and is neither probed nor erased."""
    run = load("parity-constant-alibi")
    (found,) = battery(run, (10,), prompts=24, arms=("M8",)).measured
    decoded, erased = found.evidence
    assert {p["layer"] for p in decoded.details["probes"]} == {1, 2, 3}
    assert [e["layers"] for e in erased.details["erasures"]][:2] == [[1], [2]]


def test_an_arm_that_fails_its_own_check_is_left_out_where_it_only_describes():
    def fails(_):
        raise Inexact("it differs from the whole model")

    def without(code: str):
        registry = {**ARMS, code: replace(ARMS[code], measure=fails)}
        return battery(planted_run("A1"), (8,), prompts=24, arms=("M5", code), registry=registry).measured[0]

    found = without("M11")
    assert of(found) == {"M5"}
    assert found.left_out == {"M11": "it differs from the whole model"}
    with pytest.raises(Inexact, match="differs from the whole model"):
        without("M3")
