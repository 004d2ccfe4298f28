"""NaN or infinity in a metric is an error that names the prompt, from every entry that yields one."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from experiments.cli import main
from experiments.training.recipe import Recipe
from experiments.training.state import beginning
from interp import attribution, capturing, forward, reducers
from interp.circuits import (
    Ablation,
    Circuit,
    acdc,
    against_random,
    describe_heads,
    direct_logit_attribution,
    edge_scores,
    exact_edge_scores,
    faithfulness,
    logit_lens,
    node_scores,
)
from interp.circuits.pairs import prepare
from interp.das import everything, join, swapped_answers
from interp.erasure import answers_without, residuals
from interp.models import ModelConfig, boot_bridge, build_model, save_run
from interp.models.run import run_in_memory
from interp.patching import (
    Interchange,
    Knockout,
    Metric,
    Receiver,
    Sender,
    interchange,
    knock_out,
    logit_diff,
    patch,
    path_patch,
)
from interp.support.budget import within
from interp.support.finite import NotFinite
from interp.tasks import Role, counterfactual, default_vocabulary, sample
from probes import battery
from probes.arms.m06_heads import sort_heads
from probes.arms.m06_removal import measure_removal
from probes.arms.m07_attention import measure_attention
from probes.arms.m08_decoding import measure_decoding
from probes.arms.m08_erasing import measure_erasure
from probes.arms.m09_pairs import ResidualSite, pairs_for
from probes.arms.m10_mistakes import measure_mistakes
from probes.arms.m11_offsets import offsets_read
from probes.arms.m12_backups import measure_backups
from probes.batteries import ARMS
from probes.competence import accuracies
from probes.intervals import mean, ratio

BAD, LENGTH, PROMPTS = 3, 5, 6


def built(family: str = "alibi"):
    config = ModelConfig(family, n_layers=2, d_model=32, n_heads=2, initializer_range=0.3)
    return build_model(config, len(default_vocabulary().ids), seed=0).eval()


@contextmanager
def spoilt(model, batch, row: int = BAD) -> Iterator[None]:
    """Inside the block one prompt's embeddings are NaN, by whatever way they are asked for."""
    bad = batch.tokens[row]

    def hook(_, args, out):
        (tokens,) = args
        if tokens.ndim != 2 or tokens.shape[1] > len(bad):
            return out
        same = (tokens == bad[: tokens.shape[1]]).all(dim=1) & (tokens.shape[1] > 1)
        return out.masked_fill(same.view(-1, 1, 1), torch.nan)

    handle = model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


CLEAN = sample("parity-aligned", PROMPTS, LENGTH, seed=0)
CORRUPTED = counterfactual.redraw(CLEAN, seed=1)
METRIC = logit_diff(CLEAN)


def whole(model, metric):
    graph = prepare(model, CLEAN, CLEAN, METRIC, "anywhere").edge_model.graph
    return Circuit(graph, graph.possible)


# Entries that take a metric: (raw model, metric) -> anything.
MEASURED = {
    "patch": lambda m, metric: patch(m, CLEAN, CORRUPTED, "resid_pre", metric),
    "patch z": lambda m, metric: patch(m, CLEAN, CORRUPTED, "z", metric, direction="noise"),
    "path_patch": lambda m, metric: path_patch(m, CLEAN, CORRUPTED, Sender("head", 0, 0), Receiver("mlp", 1), metric),
    "knock_out": lambda m, metric: knock_out(m, CLEAN, Knockout(Role.INPUT, Role.OUTPUT, mode="mean"), metric),
    "interchange": lambda m, metric: interchange(m, CLEAN, {"scores": [Interchange("attn_scores", CORRUPTED)]}, metric),
    "edge_scores eap": lambda m, metric: edge_scores(m, CLEAN, CORRUPTED, metric, "eap"),
    "edge_scores inputs": lambda m, metric: edge_scores(m, CLEAN, CORRUPTED, metric, "eap-ig-inputs", 2),
    "edge_scores activations": lambda m, metric: edge_scores(m, CLEAN, CORRUPTED, metric, "eap-ig-activations", 2),
    "edge_scores writers": lambda m, metric: edge_scores(m, CLEAN, CORRUPTED, metric, "eap-ig-writers", 2),
    "exact_edge_scores": lambda m, metric: exact_edge_scores(m, CLEAN, CORRUPTED, metric),
    "node_scores": lambda m, metric: node_scores(m, CLEAN, CORRUPTED, metric),
    "faithfulness": lambda m, metric: faithfulness(m, CLEAN, CORRUPTED, metric, whole(m, metric)),
    "against_random": lambda m, metric: against_random(m, CLEAN, CORRUPTED, metric, whole(m, metric), n=1),
    "acdc": lambda m, metric: acdc(m, CLEAN, CORRUPTED, metric, 0.1, whole(m, metric)),
    "answers_without": lambda m, metric: answers_without(
        m, CLEAN, Role.INPUT, {"nothing": {0: lambda x: x.clone()}}, [metric]
    ),
}
# Entries that choose what they measure: raw model -> anything.
CHOSEN = {
    "predict": lambda m: forward.predict(m, CLEAN, CLEAN.predicted()),
    "readout": lambda m: forward.readout(m, CLEAN, CLEAN.predicted()),
    "correct": lambda m: forward.correct(m, CLEAN, CLEAN.predicted()),
    "generate": lambda m: forward.generate(m, CLEAN),
    "generate labels": lambda m: forward.generate(m, CLEAN, forced=False),
    "gradient_x_input": lambda m: attribution.gradient_x_input(m, CLEAN),
    "integrated_gradients": lambda m: attribution.integrated_gradients(m, CLEAN, CORRUPTED, n=2),
    "describe_heads": lambda m: describe_heads(m, CLEAN),
    "residuals": lambda m: residuals(m, CLEAN, Role.INPUT),
    "direct_logit_attribution": lambda m: direct_logit_attribution(m, CLEAN),
    "logit_lens": lambda m: logit_lens(m, CLEAN),
    "join": lambda m: join(m, 1, pairs_for("state", CLEAN, ResidualSite(1, Role.INPUT_LABEL), seed=0)),
    "measure_attention": lambda m: measure_attention(m, CLEAN),
    "accuracies": lambda m: accuracies(m, CLEAN, "forced"),
    "accuracies, written": lambda m: accuracies(m, CLEAN, "written"),
    "offsets_read": lambda m: offsets_read(m, CLEAN),
    "measure_mistakes": lambda m: measure_mistakes(m, CLEAN),
    "sort_heads": lambda m: sort_heads(m, CLEAN, CLEAN),
    "measure_backups": lambda m: measure_backups(m, CLEAN),
}
# Entries that take a bridge.
BRIDGED = {
    "capture": lambda m: capturing.capture(m, CLEAN, pattern=True),
    "capture logits": lambda m: capturing.capture(m, CLEAN, logits=True),
    "reduce heads": lambda m: capturing.reduce(m, [CLEAN], [reducers.HeadStatistics()]),
    "reduce mean": lambda m: capturing.reduce(m, [CLEAN], [reducers.Mean("resid_pre", 1)]),
}
NAMED = f"prompt {BAD}( |:|$)"


@pytest.fixture(scope="module")
def model():
    return built()


@pytest.fixture(scope="module")
def bridge(model):
    return boot_bridge(copy.deepcopy(model))


def nan_in(metric: Metric, row: int, value: float = torch.nan) -> Metric:
    def compute(logits, rows):
        found = metric.compute(logits, rows)
        return found + torch.where(rows == row, value, 0.0).to(found)

    return Metric("spoilt metric", metric.positions, compute)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("entry", MEASURED.values(), ids=MEASURED)
def test_a_metric_that_is_no_number(model, entry, value):
    with pytest.raises(NotFinite, match=NAMED):
        entry(model, nan_in(METRIC, BAD, value))


@pytest.mark.parametrize("entry", MEASURED.values(), ids=MEASURED)
def test_a_prompt_of_nan_under_a_metric(model, entry):
    with spoilt(model, CLEAN), pytest.raises(NotFinite, match=NAMED):
        entry(model, METRIC)


@pytest.mark.parametrize("name", [n for n in MEASURED if n not in ("knock_out", "answers_without")])
def test_a_corrupted_prompt_of_nan_under_a_metric(model, name):
    with spoilt(model, CORRUPTED), pytest.raises(NotFinite, match=NAMED):
        MEASURED[name](model, METRIC)


@pytest.mark.parametrize("entry", CHOSEN.values(), ids=CHOSEN)
def test_a_prompt_of_nan(model, entry):
    with spoilt(model, CLEAN), pytest.raises(NotFinite, match=NAMED):
        entry(model)


@pytest.mark.parametrize("entry", BRIDGED.values(), ids=BRIDGED)
def test_a_prompt_of_nan_in_a_bridge(bridge, entry):
    with spoilt(bridge.original_model, CLEAN), pytest.raises(NotFinite, match=NAMED):
        entry(bridge)


MANY = sample("parity-aligned", 70, LENGTH, seed=2)
LATE = 66  # in the third slice of a sweep
CHUNKED = {
    "patch": lambda m: patch(m, MANY, counterfactual.redraw(MANY, 3), "resid_pre", logit_diff(MANY), layers=0),
    "path_patch": lambda m: path_patch(
        m, MANY, counterfactual.redraw(MANY, 3), Sender("head", 0, 0), Receiver("mlp", 1), logit_diff(MANY)
    ),
    "knock_out": lambda m: knock_out(m, MANY, Knockout(Role.INPUT, Role.OUTPUT), logit_diff(MANY)),
    "edge_scores": lambda m: edge_scores(m, MANY, counterfactual.redraw(MANY, 3), logit_diff(MANY), "eap"),
    "readout": lambda m: forward.readout(m, MANY, MANY.predicted()),
    "generate": lambda m: forward.generate(m, MANY),
    "gradient_x_input": lambda m: attribution.gradient_x_input(m, MANY),
    "describe_heads": lambda m: describe_heads(m, MANY),
    "residuals": lambda m: residuals(m, MANY, Role.INPUT),
    "measure_decoding": lambda m: measure_decoding(m, MANY, seed=0),
    "measure_erasure": lambda m: measure_erasure(m, MANY, CLEAN, seed=0),
}


@pytest.mark.parametrize("entry", CHUNKED.values(), ids=CHUNKED)
def test_a_late_prompt_has_its_own_number_whatever_the_chunks_are(model, entry, monkeypatch):
    monkeypatch.setattr(forward, "CHUNK_TOKENS", 8 * MANY.n_pos)
    with within(2**21), spoilt(model, MANY, LATE), pytest.raises(NotFinite, match=f"prompt {LATE}( |:|$)"):
        entry(model)


def test_erasing_where_the_tried_prompts_are_spoilt(model):
    with spoilt(model, CLEAN), pytest.raises(NotFinite, match=NAMED):
        measure_erasure(model, MANY, CLEAN, seed=0)


def test_the_mean_over_another_set_of_prompts_is_not_spoilt_for_all(model):
    reference = counterfactual.redraw(CLEAN, seed=9)
    for kind in ("mean", "resample"):
        with spoilt(model, reference), pytest.raises(NotFinite, match="prompt"):
            faithfulness(model, CLEAN, Ablation(kind, reference), METRIC, whole(model, METRIC))


def test_an_interchange_that_gives_no_number(model):
    pairs = pairs_for("state", CLEAN, ResidualSite(1, Role.INPUT_LABEL), seed=0)
    joined = join(model, 1, pairs)
    directions = everything(joined)
    directions[0, 0] = torch.nan
    with pytest.raises(NotFinite, match="a logit after the interchange is NaN or infinite, first in prompt 0"):
        swapped_answers(joined, directions)


def test_removals(model):
    heads = sort_heads(model, CLEAN, CORRUPTED)
    with spoilt(model, CLEAN), pytest.raises(NotFinite, match=NAMED):
        measure_removal(model, CLEAN, heads)


def test_means_and_ratios_over_prompts():
    values = torch.ones(9)
    values[BAD] = torch.nan
    with pytest.raises(NotFinite, match=NAMED):
        mean(values)
    for pair in ((values, torch.ones(9)), (torch.ones(9), values)):
        with pytest.raises(NotFinite, match=NAMED):
            ratio(*pair)


@pytest.mark.parametrize("arm", ARMS)
def test_no_arm_of_the_battery_makes_a_refusal_of_it(arm):
    """What cannot be tested is a reason and no error; what is no number is an error."""
    vocabulary = default_vocabulary()
    model: Any = built()
    run = run_in_memory("tiny", model, "parity-aligned", vocabulary)

    def broken(_, args, out):  # sound while competence is measured, which has 128 prompts
        return out if broken.passes < 1 else out * torch.nan

    broken.passes = 0
    started = []

    def step(what: str) -> None:
        started.append(what)
        broken.passes += "competence" not in what

    handle = model.get_output_embeddings().register_forward_hook(broken)
    try:
        if arm in ("M7", "M8"):  # these read what is inside
            handle.remove()
            handle = model.get_input_embeddings().register_forward_hook(broken)
        with pytest.raises(ValueError, match="NaN or infinite"):
            battery(run, (LENGTH,), 0, 24, True, (arm,), competence=None, step=step)
    finally:
        handle.remove()
    assert len(started) > 1


OVERFLOWS = {
    "MLP in": (("mlp.dense_h_to_4h.weight", "mlp.c_fc.weight"), 1e30),
    "MLP out": (("dense_4h_to_h.weight", "mlp.c_proj.weight"), 1e38),
    "attention": (("query_key_value.weight", "c_attn.weight"), 1e30),
}


def overflowing(family: str, which: str):
    """Finite weights whose products are not."""
    model, (names, factor) = built(family), OVERFLOWS[which]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".0." in name and name.endswith(names):
                weight.mul_(factor)
    assert all(weight.isfinite().all() for weight in model.parameters())
    return model


@pytest.mark.parametrize("which", OVERFLOWS)
@pytest.mark.parametrize("family", ["alibi", "absolute"])
def test_finite_weights_that_overflow(family, which):
    model = overflowing(family, which)
    entries = {**{name: lambda m, e=e: e(m, METRIC) for name, e in MEASURED.items()}, **CHOSEN}
    for entry in entries.values():
        with pytest.raises(NotFinite, match="prompt 0"):
            entry(model)
    try:
        bridge = boot_bridge(copy.deepcopy(model))
    except NotFinite:  # where TransformerLens's norm hides what the model's own does not
        return
    for entry in BRIDGED.values():
        with pytest.raises(NotFinite, match="prompt 0"):
            entry(bridge)


@pytest.mark.parametrize(
    "verb",
    [
        ["evaluate", "RUN", "--lengths", "5", "--prompts", "4"],
        ["patch", "RUN", "--length", "5", "--step", "3", "--prompts", "2"],
        ["circuit", "RUN", "--length", "5", "--prompts", "2"],
        ["verdict", "RUN", "--lengths", "5", "--prompts", "24"],
        ["report", "RUN", "--quick", "--length", "5", "--map-length", "5"],
    ],
    ids=lambda verb: verb[0],
)
def test_a_verb_says_it_in_one_line(verb, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe("parity-aligned", ModelConfig("alibi", 2, 32, 2), seed=0)
    tokenizer = beginning(recipe).tokenizer
    record = {"format": "parity-aligned", "vocabulary": default_vocabulary().to_json(), "recipe": recipe.to_json()}
    save_run(tmp_path / "broken", overflowing("alibi", "MLP out"), tokenizer, record)
    out = tmp_path / ("page.html" if verb[0] == "report" else "out")
    assert main([*(str(tmp_path / "broken") if word == "RUN" else word for word in verb), "--out", str(out)]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "NaN or infinite, first in prompt 0" in said
    assert not list(tmp_path.rglob("*.html"))
    assert not list(tmp_path.rglob("evaluation.json"))
