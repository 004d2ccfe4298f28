"""A battery in several processes: the same evidence, each shared search once, and errors where they belong."""

import json
import subprocess
import sys
import textwrap
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from experiments.cli import main
from experiments.support import pieces, verdict_defaults
from experiments.support.pieces import RunOptions, helpers, importing, measured_by
from experiments.support.results import resume_arms
from experiments.support.sharing import share_out
from experiments.support.verdict_defaults import is_unmeasured
from interp.models import names
from probes.batteries import battery
from tests.probes.oracle_models import planted_run

ARMS = ("M5", "M6", "shares")
LENGTHS = (6, 5)
SOURCE = RunOptions("A1")


class OneOther:
    """An executor of one other process, which is a thread here."""

    workers = 1

    def __init__(self) -> None:
        self.jobs: list = []

    def submit(self, job):
        self.jobs.append(job)
        return job

    def result(self, job):
        return job.work(*job.args)


@pytest.fixture(scope="module")
def alone() -> list[dict]:
    """The evidence of one process."""
    return evidence_of(planted_run("A1"), None)


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch):
    run = planted_run("A1")
    monkeypatch.setattr(pieces, "_run", lambda source: (run, {}))
    pieces._inputs.cache_clear()
    yield run
    pieces._inputs.cache_clear()


def evidence_of(run: Any, work: Any, executor: Any = None) -> list[dict]:
    options: dict[str, Any] = {} if work is None else {"recall": resume_arms(work)}
    if executor is not None:
        assert work is not None
        options["prepare"] = measured_by(executor, SOURCE, work, lambda _: None)
    found = battery(run, LENGTHS, 0, 24, True, ARMS, **options)
    return [json.loads(json.dumps(e.to_json())) for measured in found.measured for e in measured.evidence]


def test_two_processes_find_what_one_finds(planted, alone, tmp_path):
    other = OneOther()
    both = evidence_of(planted, tmp_path, other)
    assert [(e["name"], e["length"]) for e in both] == [(e["name"], e["length"]) for e in alone]
    for ours, theirs in zip(alone, both, strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], abs=1e-6)
    assert other.jobs  # the other process has measured


def test_pieces_that_share_work_are_one_job(planted):
    prepared, codes = [], (*ARMS, "M4", "M8", "M9", "presence")
    battery(planted, LENGTHS, 0, 24, True, codes, recall=lambda *_: (), prepare=lambda p: prepared.extend(p) or ())
    jobs = [[(piece.inputs.length, piece.rows[0].code) for piece in job] for job in pieces._jobs(prepared)]
    assert [(6, "M6"), (6, "shares")] in jobs
    assert [(6, "M4"), (6, "M5")] in jobs
    # Those of all lengths are first, then the longest pieces, then those of the longest prompts.
    assert jobs[:2] == [[(6, "M8"), (5, "M8")], [(6, "M9"), (5, "M9")]]
    assert jobs[2:4] == [[(6, "presence")], [(5, "presence")]]
    assert [job[0][0] for job in jobs[4:]] == [6, 6, 5, 5]


def test_what_another_process_cannot_measure_is_measured_here(planted, alone, tmp_path):
    class Lost(OneOther):
        def result(self, job):
            raise RuntimeError("lost")

    with pytest.warns(match="jobs failed in another process and are done in this one; the last by RuntimeError: lost"):
        found = evidence_of(planted, tmp_path, Lost())
    assert found == alone


def test_a_length_without_a_margin_is_refused_as_by_one_process(planted, tmp_path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object):
        raise ValueError("too little to normalise by")

    monkeypatch.setattr("probes.arms.measuring.measure_history", refuse)
    (found,) = battery(
        planted,
        (6,),
        0,
        24,
        True,
        ("M5", "M12"),
        recall=resume_arms(tmp_path),
        prepare=measured_by(cast(Any, OneOther()), SOURCE, tmp_path, lambda _: None),
    ).measured
    assert found.refusal == "too little to normalise by"
    assert found.evidence == ()


def test_an_error_here_stops_the_handing_over(planted, tmp_path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object):
        raise KeyboardInterrupt

    other = OneOther()
    other.submit = lambda job: SimpleNamespace(work=lambda *_: None, args=())
    monkeypatch.setattr("experiments.support.results.load_or_make", stop)
    with pytest.raises(KeyboardInterrupt):
        evidence_of(planted, tmp_path, other)


@pytest.mark.slow
def test_the_verb_gives_the_same_with_two_processes(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    found = []
    for workers in ("1", "2"):
        argv = ["verdict", "parity-aligned-alibi", "--lengths", "8", "9", "--prompts", "24", "--arms", "M4", "M5", "M6"]
        assert main([*argv, "--workers", workers, "--out", workers, "--json", f"{workers}.json"]) == 0
        found.append(json.loads((tmp_path / f"{workers}.json").read_text())["evidence"])
    assert [e["key"] for e in found[0]] == [e["key"] for e in found[1]] if "key" in found[0][0] else True
    for one, two in zip(*found, strict=True):
        assert one["value"] == pytest.approx(two["value"], abs=1e-6)


@pytest.mark.parametrize(("one_thread", "expected"), [(True, 1), (False, 2)])
def test_one_process_has_one_thread_as_the_others_unless_the_model_is_large(one_thread, expected):
    """DAS amplifies rounding, which differs between one thread and two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with helpers(1, [], one_thread=one_thread) as processes:
            assert processes is None
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_processes_that_began_to_import_are_taken_if_they_are_as_many():
    with importing(2) as begun:
        assert begun is not None
        with helpers(2, [], begun=begun) as processes:
            assert processes is begun
        with helpers(3, [], begun=begun) as processes:
            assert processes is not None
            assert (processes is begun, processes.workers) == (False, 2)


def test_processes_begin_to_import_before_this_one_does():
    script = textwrap.dedent("""
        import sys
        import experiments.support.pieces as pieces
        from experiments.cli import main

        def begin(workers):
            print([name for name in ("torch", "transformers", "numpy") if name in sys.modules])
            sys.exit()

        pieces.importing = begin
        main(["verdict", "parity-aligned-alibi", "--fresh"])
    """)
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "[]\n"


@pytest.mark.parametrize(("workers", "threads"), [(1, "4"), (None, "1")])
def test_one_worker_imports_for_itself(workers, threads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with importing(workers) as begun:
        assert begun is None


def test_a_finished_verdict_is_looked_for_where_it_may_be(tmp_path, monkeypatch: pytest.MonkeyPatch):
    assert (verdict_defaults.SHIPPED, verdict_defaults.OUT) == (names.SHIPPED, names.OUT)
    monkeypatch.chdir(tmp_path)
    assert not is_unmeasured(["parity-aligned-alibi"], None)  # it is shipped with its verdict
    assert is_unmeasured(["models/mine"], None)
    for folder in (tmp_path / "out", tmp_path / "mnemoscope-out" / "mine"):
        folder.mkdir(parents=True)
        (folder / "verdict.json").touch()
    assert not is_unmeasured(["models/mine"], None)
    assert not is_unmeasured(["other"], tmp_path / "out")
    assert is_unmeasured(["other"], None)
    assert not is_unmeasured(["mine"], tmp_path / "elsewhere")  # it would be copied


@pytest.mark.parametrize("one_thread", [True, False])
def test_all_threads_compute_until_work_is_shared_out(one_thread: bool, monkeypatch: pytest.MonkeyPatch):
    """With one thread from the start only where operators are short."""
    others: Any = OneOther()
    monkeypatch.setattr(others, "stop", lambda at_once: None, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with helpers(2, [SOURCE], one_thread, others) as executor:
            assert executor is others
            assert torch.get_num_threads() == (1 if one_thread else 2)
            share_out(others, [1], lambda job: None, lambda job: None, lambda job: None)
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
