"""Training: what is learned from what, and that nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.commands.train import TrainCommand
from experiments.training import loop
from experiments.training import state as standing
from experiments.training.gradients import loss_of, position_ids, predicted, use_attention
from experiments.training.loop import train_run
from experiments.training.recipe import Pretrained, Recipe, parts
from experiments.training.state import beginning
from interp.models import FAMILIES, ModelConfig, build_model, load_run
from interp.support import writing
from interp.tasks import parse_format, sample
from tests.interp.tasks.test_fitting import tokenizer_of

TINY = ModelConfig("alibi", n_layers=1, d_model=16, n_heads=2)
RECIPE = Recipe(
    "parity-aligned",
    TINY,
    seed=0,
    steps=24,
    longest=4,
    ramp=5,
    rehearsal_longest=6,
    rehearsal_ramp=5,
    tokens=256,
    warmup=4,
    cooldown=8,
)
SCRIPT = """
import sys, torch
from pathlib import Path
from experiments.training import loop
from tests.experiments.test_training import RECIPE
torch.set_num_threads(1)
loop.CHECK_EVERY = 4
loop.train_run(RECIPE, Path(sys.argv[1]), save_every=0)
"""


@pytest.fixture(autouse=True)
def frequent_checks(monkeypatch):
    monkeypatch.setattr(loop, "CHECK_EVERY", 4)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(tmp_path):
    whole = train_run(RECIPE, tmp_path / "whole", save_every=0)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    script = SCRIPT.replace("set_num_threads(1)", f"set_num_threads({torch.get_num_threads()})")
    command[2] = script
    work = tmp_path / "killed" / f"{RECIPE.name}.training"
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.DEVNULL)
    while not list(work.glob("step-*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / RECIPE.name).exists()
    subprocess.run(command, env=environment, cwd=root, check=True, stderr=subprocess.DEVNULL)
    resumed = tmp_path / "killed" / RECIPE.name
    assert weights(resumed) == weights(whole.folder)
    lines = [lines_of(resumed), lines_of(whole.folder)]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == list(range(4, 25, 4))
    assert sorted(p.name for p in resumed.parent.iterdir()) == [RECIPE.name]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_goes_on_to_the_same_bytes(family, tmp_path, monkeypatch):
    recipe = replace(RECIPE, format="parity-scratchpad", model=replace(TINY, family=family), steps=2)
    monkeypatch.setattr(loop, "CHECK_EVERY", 1)
    whole = train_run(recipe, tmp_path / "whole")
    save = loop.save_checkpoint

    def killed(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        train_run(recipe, tmp_path / "killed", save_every=0)
    monkeypatch.setattr(loop, "save_checkpoint", save)
    work = tmp_path / "killed" / f"{recipe.name}.training"
    assert [p.name for p in work.glob("step-*")] == ["step-00000001"]
    resumed = train_run(recipe, tmp_path / "killed")
    assert weights(resumed.folder) == weights(whole.folder)
    sinks = [w for name, w in load_file(whole.folder / "model.safetensors").items() if name.endswith("sink_key")]
    assert len(sinks) == (family == "alibi_sink")
    assert all(w.any() for w in sinks)  # zero at the start: it was trained


def lines_of(folder: Path) -> list[dict]:
    """The metrics of a run, without its times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_ctrl_c_saves_the_step_at_which_it_came(tmp_path, monkeypatch, capsys):
    recipe = replace(RECIPE, steps=10)
    whole = train_run(recipe, tmp_path / "whole")
    assert "resuming" not in capsys.readouterr().err
    taking, begun = loop._taking, []

    def interrupted(*arguments):
        take = taking(*arguments)

        def step(number, batches):
            begun.append(number)
            if number == 5:  # between two checks, in the middle of a step
                signal.raise_signal(signal.SIGINT)
            return take(number, batches)

        return step

    monkeypatch.setattr(loop, "_taking", interrupted)
    before = signal.getsignal(signal.SIGINT)
    # A process that a shell starts in the background ignores SIGINT, and so do its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_run(recipe, tmp_path / "stopped")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert begun == list(range(6))
    work = tmp_path / "stopped" / f"{recipe.name}.training"
    assert [p.name for p in work.glob("step-*")] == ["step-00000006"]
    monkeypatch.setattr(loop, "_taking", taking)
    capsys.readouterr()
    resumed = train_run(recipe, tmp_path / "stopped")
    assert f"{recipe.name}: resuming after step 6" in capsys.readouterr().err
    assert weights(resumed.folder) == weights(whole.folder)
    assert lines_of(resumed.folder) == lines_of(whole.folder)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_run_that_stops_between_two_checks_is_checked_once_more(interrupted, tmp_path, monkeypatch):
    """Competent at step 8, it stops at 14; the checks before it have the numbers that they had."""
    recipe, steps, save = replace(RECIPE, cooldown=6), [], loop.save_checkpoint
    real = loop.accuracies_of

    def accuracies(model, checks):
        steps.append(real(model, checks))
        return dict.fromkeys(checks, 1.0 - len(steps) / 10_000)

    def last(work, step, *rest):  # Ctrl-C after the last step
        save(work, step, *rest)
        if step == 14:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "accuracies_of", accuracies)
    if interrupted:
        monkeypatch.setattr(loop, "save_checkpoint", last)
        taking = loop._taking

        def signalled(*arguments):
            take = taking(*arguments)
            return lambda step, batches: (step == 13 and signal.raise_signal(signal.SIGINT)) or take(step, batches)

        monkeypatch.setattr(loop, "_taking", signalled)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                train_run(recipe, tmp_path)
        finally:
            signal.signal(signal.SIGINT, before)
        monkeypatch.setattr(loop, "_taking", taking)
    trained = train_run(recipe, tmp_path)
    lines = lines_of(trained.folder)
    assert [(line["step"], line["accuracy_task"]) for line in lines] == [
        (4, 0.9999),
        (8, 0.9998),
        (12, 0.9997),
        (14, 0.9996),
    ]
    rates = [recipe.lr * loop.schedule(recipe, 8, line["step"] - 1) for line in lines[1:]]
    assert [line["lr"] for line in lines[1:]] == rates
    assert all(set(line) == set(lines[0]) for line in lines)  # losses of both parts too
    outcome = load_run(trained.folder).record["outcome"]
    assert (outcome["steps"], outcome["token_accuracy"]["task"]) == (14, 0.9996)


def test_a_killed_run_goes_on_after_its_first_check(tmp_path, monkeypatch):
    save, steps = loop.save_checkpoint, []
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda work, step, *rest: (steps.append(step), save(work, step, *rest))
    )
    train_run(replace(RECIPE, steps=12), tmp_path, save_every=1000)
    assert steps == [4]


@pytest.mark.slow
def test_another_seed_gives_other_weights(tmp_path):
    first = train_run(RECIPE, tmp_path)
    second = train_run(replace(RECIPE, seed=1), tmp_path)
    assert weights(first.folder) != weights(second.folder)


def test_a_run_is_loadable_and_says_how_it_was_made(tmp_path):
    trained = train_run(RECIPE, tmp_path)
    run = load_run(trained.folder)
    assert str(run.format) == "parity-aligned"
    assert Recipe.from_json(run.record["recipe"]) == RECIPE
    assert run.record["outcome"]["competent"] is trained.competent is False
    assert run.record["provenance"]["versions"]["torch"] == torch.__version__
    stored = load_file(trained.folder / "model.safetensors")
    assert all(torch.isfinite(v).all() for v in stored.values())


def test_training_is_refused_where_a_run_or_another_recipe_is(tmp_path):
    trained = train_run(RECIPE, tmp_path)
    before = weights(trained.folder)
    with pytest.raises(ValueError, match=r"exists, trained by another recipe \(lr 0.002 there, 0.1 now\); remove it"):
        train_run(replace(RECIPE, lr=0.1), tmp_path)
    left = tmp_path / f"{RECIPE.name}.training"
    left.mkdir()  # by one that was killed before it had cleared up
    assert train_run(RECIPE, tmp_path) == trained
    assert weights(trained.folder) == before
    assert not left.exists()
    work = tmp_path / "other" / f"{RECIPE.name}.training"
    loop.claim(work, RECIPE, "no")
    with pytest.raises(ValueError, match=r"another recipe .*lr 0.002 there, 0.1 now"):
        train_run(replace(RECIPE, lr=0.1), tmp_path / "other")


def test_a_finished_run_is_not_reported_for_other_kernels(tmp_path):
    recipe = replace(RECIPE, model=replace(TINY, family="rotary"), steps=4)
    trained = train_run(recipe, tmp_path)
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"attention": "sdpa"}, "attention None there, sdpa now"),
        ({"compile": True}, "compile None there, True now"),
        ({"cuda_graphs": True}, "cuda_graphs None there, True now"),
    )
    for options, said in cases:
        with pytest.raises(ValueError, match=rf"exists, trained by another recipe \({said}\)"):
            train_run(recipe, tmp_path, **options)
    assert train_run(recipe, tmp_path) == trained
    other = train_run(recipe, tmp_path / "fused", attention="sdpa")
    assert train_run(recipe, tmp_path / "fused", attention="sdpa") == other
    with pytest.raises(ValueError, match=r"attention sdpa there, None now"):
        train_run(recipe, tmp_path / "fused")


def test_two_processes_do_not_train_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "PATIENCE_SECONDS", 0.1)
    work = tmp_path / f"{RECIPE.name}.training"
    with writing.alone_in(work), pytest.raises(ValueError, match=r"another process is at work in .*\.training; wait"):
        train_run(RECIPE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_number_of_processes_does_not_go_on(tmp_path):
    """Each has its own data: the rest of the run would be another run's."""
    loop.claim(tmp_path, RECIPE, "no", processes=2)
    with pytest.raises(ValueError, match=r"another recipe \(processes 2 there, None now\)"):
        loop.claim(tmp_path, RECIPE, "no")


def test_competence_starts_the_cooldown_and_ends_training_early(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "accuracies_of", lambda model, checks: dict.fromkeys(checks, 1.0))
    monkeypatch.setattr(standing, "steps_right", lambda model, batch, mode: torch.ones(4, 4, dtype=torch.bool))
    trained = train_run(RECIPE, tmp_path)
    assert (trained.competent, trained.steps, trained.step_accuracy) == (True, 8 + RECIPE.cooldown, 1.0)
    rates = [json.loads(line)["lr"] for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    assert rates[-1] < rates[-2]


def test_competence_late_in_training_does_not_raise_the_learning_rate_again(tmp_path, monkeypatch):
    """A cool-down that has begun goes on to its end, whenever the checks turn good."""
    seen = []

    def late(model, checks):
        seen.append(1)
        return dict.fromkeys(checks, float(len(seen) >= 5))  # at step 20 of 24, the cool-down began at 16

    monkeypatch.setattr(loop, "accuracies_of", late)
    trained = train_run(RECIPE, tmp_path)
    rates = [json.loads(line)["lr"] for line in (trained.folder / "metrics.jsonl").read_text().splitlines()]
    warm = rates[rates.index(max(rates)) :]
    assert trained.steps == RECIPE.steps
    assert all(later <= earlier for earlier, later in pairwise(warm))
    assert rates[-1] < 0.2 * max(rates)


def test_data_is_a_pure_function_of_recipe_step_and_process():
    a, b = (parts(RECIPE, 7)[0].batch.tokens for _ in range(2))
    assert torch.equal(a, b)
    others = [parts(RECIPE, 8)[0].batch.tokens, parts(RECIPE, 7, process=1)[0].batch.tokens]
    assert all(a.shape != o.shape or not torch.equal(a, o) for o in others)


def test_lengths_start_short_and_reach_the_longest():
    recipe = Recipe("parity-aligned", TINY, seed=0)
    lengths = {step: [int(parts(recipe, s)[0].batch.step.max()) for s in range(step, step + 60)] for step in (0, 2000)}
    assert max(lengths[0]) <= 2
    assert max(lengths[2000]) == 20
    assert min(lengths[2000]) <= 3
    assert np.mean(lengths[2000]) == pytest.approx(10.5, abs=2.5)


def test_no_length_is_below_the_shortest():
    recipe = Recipe("parity-aligned", TINY, seed=0, shortest=10, ramp=100)
    lengths = {step: {int(parts(recipe, s)[0].batch.step.max()) for s in range(step, step + 60)} for step in (0, 200)}
    assert min(lengths[0]) == 10
    assert max(lengths[0]) < 17  # the ramp begins at the shortest
    assert lengths[200] == set(range(10, 21))
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.name == "parity-aligned-alibi_1x16x2+from10-seed0"


def test_rehearsal_is_alike_for_every_format_and_can_be_left_out():
    names = ("parity-aligned", "parity-scratchpad", "addition-none")
    found = [[p.name for p in parts(Recipe(n, TINY, seed=0), 3)] for n in names]
    assert found == [["task", "rehearsal"]] * 3
    assert [p.name for p in parts(Recipe("parity-aligned", TINY, seed=0, rehearsal=0.0), 3)] == ["task"]


def test_loss_is_on_predicted_tokens_only(monkeypatch):
    """The loss of a model that knows every predicted token and nothing else is zero."""
    part = parts(RECIPE, 3)[0]
    at = predicted(part.batch)

    def model(tokens, use_cache, logits_to_keep):
        assert torch.equal(logits_to_keep, at - 1)
        logits = torch.nn.functional.one_hot(tokens[:, at], 1000).float() * 100
        from types import SimpleNamespace

        return SimpleNamespace(logits=logits)

    assert float(loss_of(model, part, RECIPE, 3, torch.device("cpu"))) == pytest.approx(0.0, abs=1e-6)
    assert at.min() > part.batch.n_pos // 2


@pytest.mark.parametrize("kind", ["start", "jump"])
def test_position_augmentation(kind):
    model = ModelConfig("rotary", n_layers=1, d_model=16, n_heads=2, n_ctx=200)
    recipe = Recipe("parity-aligned", model, seed=0, positions=kind, position_ramp=10)
    batch = sample("parity-aligned", 200, 5, seed=0)
    ids = position_ids(recipe, batch, step=10)
    steps = ids.diff(dim=1)
    assert ids.min() >= 0
    assert 150 < ids.max() < 200
    first = int(batch.predicted(False)[0])
    if kind == "start":
        assert (steps == 1).all()
        assert len(set(ids[:, 0].tolist())) > 50
    else:
        assert (ids[:, : first + 1] == torch.arange(first + 1)).all()
        assert len(set(steps[:, first].tolist())) > 50
        assert (steps[:, first + 1 :] == 1).all()
        assert (position_ids(recipe, batch, step=0).diff(dim=1) == 1).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": "jump"}, "no position ids"),
        ({"positions": "sideways"}, "plain, start, jump"),
        ({"format": "parity-alined"}, "nearest: parity-aligned"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"rehearsal": 1.0}, "share"),
        ({"shortest": 0}, "shortest must be at least 1"),
        ({"shortest": 21}, "at most longest, 20; got 21"),
    ],
)
def test_a_bad_recipe_is_an_error(change, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**{"format": "parity-aligned", "model": TINY, "seed": 0, **change})


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """A small GPT-2 of somebody else's: no run.json, and a tokenizer with words in the places of labels."""
    words = [*"+=#_~", *"abcdefghij", *(f"{a}{b}y" for a in "abcdefghijklmnopqr" for b in "aeioulmn")]
    tokenizer = tokenizer_of(words)
    folder = tmp_path_factory.mktemp("pretrained") / "their-gpt2"
    config = ModelConfig("absolute", n_layers=1, d_model=16, n_heads=2, n_ctx=64)
    build_model(config, len(tokenizer), seed=7).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_training_goes_on_from_any_folder(foreign, tmp_path):
    recipe = replace(RECIPE, model=Pretrained(str(foreign)), rehearsal=0.0, steps=1, lr=1e-3)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    trained = load_run(train_run(recipe, tmp_path).folder)
    assert trained.name == "parity-aligned-their-gpt2-seed0"
    theirs = load_run(foreign, "parity-aligned")
    assert trained.vocabulary.ids == theirs.vocabulary.ids
    assert (trained.sample(2, 4, 0).tokens == theirs.sample(2, 4, 0).tokens).all()
    assert trained.raw.config.model_type == "gpt2"
    before, after = theirs.raw.state_dict(), trained.raw.state_dict()
    moved = [float((after[name] - before[name]).abs().max()) for name in before]
    assert 0 < max(moved) < 2e-3  # one step of that size away from what they had, not a fresh model


def test_weights_drawn_anew_are_those_of_the_seed_and_not_the_pretrained_ones(foreign, tmp_path):
    model = Pretrained(str(foreign), scratch=True)
    recipe = replace(RECIPE, model=model, rehearsal=0.0, steps=1, lr=1e-6)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    trained = load_run(train_run(recipe, tmp_path).folder)
    assert trained.name == "parity-aligned-their-gpt2-scratch-seed0"
    theirs = load_run(foreign, "parity-aligned")
    assert trained.vocabulary.ids == theirs.vocabulary.ids
    again, other = (beginning(replace(recipe, seed=seed)).model.state_dict() for seed in (0, 1))
    for name, weight in trained.raw.state_dict().items():
        if name.endswith("c_attn.weight"):
            torch.testing.assert_close(weight, again[name], rtol=0, atol=1e-5)  # one small step away
            assert float((weight - other[name]).abs().max()) > 1e-3
            assert float((weight - theirs.raw.state_dict()[name]).abs().max()) > 1e-3


def test_going_on_from_a_run_of_ours_keeps_its_symbols(tmp_path):
    first = train_run(replace(RECIPE, steps=1), tmp_path / "first").folder
    recipe = replace(RECIPE, model=Pretrained(str(first)), steps=1)  # with rehearsal: it knows the symbols
    again = train_run(recipe, tmp_path / "again").folder
    assert again.name == f"parity-aligned-{first.name}-seed0"
    assert load_run(again).vocabulary.ids == load_run(first).vocabulary.ids


def test_a_pretrained_model_resumes_to_the_same_bytes(foreign, tmp_path, monkeypatch):
    recipe = replace(RECIPE, model=Pretrained(str(foreign)), rehearsal=0.0, steps=12)
    whole = train_run(recipe, tmp_path / "whole").folder
    real, calls = loop.save_checkpoint, []

    def save_and_die(*args):
        real(*args)
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train_run(recipe, tmp_path / "killed", save_every=0)
    monkeypatch.setattr(loop, "save_checkpoint", real)
    assert calls
    assert weights(train_run(recipe, tmp_path / "killed").folder) == weights(whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rehearsal": 0.5}, "symbols that their-gpt2 has no tokens for"),
        ({"longest": 30}, "length 30 of parity-aligned takes 122 positions; their-gpt2 has 64"),
        ({"model": Pretrained("no/where/at-all")}, "no-where|cannot|no folder|No|no "),
        ({"positions": "start"}, "no position ids"),
        ({"model": Pretrained("any", lora=2, scratch=True)}, "adapters need pretrained weights"),
    ],
)
def test_a_pretrained_model_that_cannot_take_the_recipe_is_an_error(change, words, foreign, tmp_path):
    with pytest.raises(ValueError, match=words):
        train_run(replace(RECIPE, **{"model": Pretrained(str(foreign)), "rehearsal": 0.0, **change}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_format_and_family_trains_a_step(tmp_path):
    formats = ("parity-direct", "parity-interleaved", "parity-nonaligned", "addition-nonaligned", "parity-scratchpad")
    for fmt, family in zip(formats, FAMILIES, strict=True):
        recipe = Recipe(fmt, ModelConfig(family, 1, 16, 2), seed=0, steps=1, longest=3, tokens=64)
        assert load_run(train_run(recipe, tmp_path).folder).family == family
        assert parse_format(fmt).name in str(recipe.name)


@pytest.mark.parametrize("family", ["rotary", "absolute", "none"])
def test_fused_attention_gives_the_same_losses(family: str):
    config = replace(TINY, family=family)
    recipe = replace(RECIPE, model=config)
    part = parts(recipe, step=3)[0]
    model = build_model(config, 416, seed=0)
    eager = loss_of(model, part, recipe, 3, torch.device("cpu"))
    use_attention(model, "sdpa")
    assert model.config._attn_implementation == "sdpa"
    assert loss_of(model, part, recipe, 3, torch.device("cpu")).item() == pytest.approx(eager.item(), abs=1e-5)


def test_fused_attention_is_refused_where_there_is_none():
    with pytest.raises(ValueError, match="bloom has no fused attention"):
        use_attention(build_model(TINY, 416, seed=0), "sdpa")


def test_a_run_with_fused_attention_is_saved_as_any_other(tmp_path):
    recipe = replace(RECIPE, model=replace(TINY, family="rotary"), steps=4)
    trained = train_run(recipe, tmp_path, attention="sdpa")
    assert load_run(trained.folder).raw.config._attn_implementation == "eager"
    assert "sdpa" not in (trained.folder / "config.json").read_text()


def test_more_tokens_per_step_take_a_higher_rate():
    usual, wide = (TrainCommand("parity-aligned-alibi", tokens=n).recipe() for n in (None, 16_384))
    assert (usual.tokens, wide.tokens) == (4096, 16_384)
    assert wide.lr == pytest.approx(2 * usual.lr)
    assert TrainCommand("parity-aligned-alibi", tokens=16_384, lr=1e-3).recipe().lr == 1e-3
    with pytest.raises(ValueError, match="--tokens must be at least 1"):
        TrainCommand("parity-aligned-alibi", tokens=0).recipe()
