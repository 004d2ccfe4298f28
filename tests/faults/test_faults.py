"""Nothing is lost: verbs are struck at random moments, run again, and end as if nothing had happened."""

import json

import pytest

from tests.faults.trials import FAULTS, Lab, add_counts, attempt, can_mount, count, draw, lab
from tests.faults.work import ARGV


@pytest.fixture(scope="module")
def here():
    with lab() as found:
        yield found


def test_counts_name_every_command_that_made_some_of_them(tmp_path, monkeypatch):
    path, all_survived = tmp_path / "faults.json", {"kill": {"injected": 2, "survived": 2}}

    def commands(*argv: str) -> tuple[str, list[str]]:
        monkeypatch.setattr("sys.argv", ["trials.py", *argv])
        add_counts(path, "faults", {verb: all_survived for verb in argv}, ["kill"])
        made = json.loads(path.read_text())
        assert list(made["faults"]) == [verb for verb in ARGV if verb in ("train", "patch")]
        return made["provenance"]["command"], [record["command"] for record in made["earlier"]]

    both, part = (f"python -m tests.faults.trials {verbs}" for verbs in ("train patch", "patch"))
    assert commands("train", "patch") == (both, [])
    assert commands("patch") == (part, [both])
    assert commands("train", "patch") == (both, [])


@pytest.mark.slow
def test_a_handful_of_each_fault_is_survived(here: Lab):
    for fault in ("kill", "interrupt", "full"):
        table, failed = count(here, 3, ("train", "patch", "evaluate"), (fault,))
        assert not failed
        assert sum(row[fault]["injected"] for row in table.values() if row) == 3


@pytest.mark.slow
def test_a_lost_worker_is_replaced(here: Lab):
    table, failed = count(here, 1, ("sweep",), ("lost",))
    assert not failed
    assert table == {"sweep": {"lost": {"injected": 1, "survived": 1}}}


@pytest.mark.slow
@pytest.mark.parametrize("fault", [pytest.param("kill", marks=pytest.mark.slow), "full"])
def test_a_careless_writer_is_found_out(here: Lab, fault: str):
    """Otherwise the counts would say nothing: a verb that writes in place must fail its trials."""
    wrong = [attempt(here, "careless", fault, seed, mounts=False) for seed in range(12)]
    said = " ".join(w for trial in wrong if trial for w in trial)
    assert "after the fault out/result.json is not what it shall be" in said
    assert fault == "kill" or "a full disk was not one line" in said


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_fifty_of_each_fault_are_survived(here: Lab, fault: str):
    table, failed = count(here, 50, tuple(ARGV), (fault,))
    print(json.dumps(table))
    assert not failed
    assert sum(row[fault]["injected"] for row in table.values() if row) >= 50


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a small disk can be mounted by root alone")
@pytest.mark.parametrize("verb", ARGV)
def test_a_disk_that_is_really_full(here: Lab, verb: str):
    reference = here.reference(verb)
    sizes = {seed: draw(verb, "full", seed, reference)["kilobytes"] for seed in range(40)}
    seeds = sorted((seed for seed in sizes if sizes[seed] is not None), key=lambda seed: sizes[seed])
    tried = [attempt(here, verb, "full", seed, mounts=True) for seed in (seeds[0], seeds[len(seeds) // 3])]
    assert not [wrong for wrong in tried if wrong]
    assert tried != [None, None], "the disk was never full"
