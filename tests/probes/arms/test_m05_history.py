"""M5 on planted models: stored results are found where they are read; a decodable one without a reader is not."""

import pytest
import torch

from interp.patching import interchange
from interp.tasks import LABEL_ROLES, Role, sample
from probes import keys
from probes.arms import m01_identity, m05_history
from probes.arms.m05_history import measure_history
from probes.planted import Plan, plant
from probes.trials.parity import choose
from tests.probes.oracle_models import planted


def stored(mechanism: str, architecture: str = "gpt2", fmt: str = "parity-aligned"):
    return {e.name.removeprefix("history in V at "): e for e in read_all(mechanism, architecture, fmt)}


def read_all(mechanism: str, architecture: str = "gpt2", fmt: str = "parity-aligned"):
    model = planted(mechanism, architecture)
    trials = choose(sample(fmt, 240, 10, 0, model.vocabulary), 0, 24)
    return measure_history(model.model, trials)


@pytest.mark.parametrize(
    ("mechanism", "architecture", "share"),
    [
        ("placeholder", "gpt2", 1.0),
        ("placeholder", "gpt_neox", 1.0),
        ("content-addressed placeholder", "gpt2", 1.0),
        ("mixture", "gpt2", 0.5),
        ("placeholder + unused", "gpt2", 0.5),
        ("A1", "gpt2", 0.0),
        ("A2", "gpt2", 0.0),  # its values at labels are pointers: identity, not history
        ("sink", "gpt2", 0.0),
        ("bias sink", "gpt2", 0.0),
        ("unused, decodable", "gpt2", 0.0),
        ("unused, dormant direction", "gpt2", 0.0),
    ],
)
def test_what_is_stored_at_labels_is_found_at_the_reader(mechanism, architecture, share):
    found = stored(mechanism, architecture)
    layers = planted(mechanism, architecture).model.config.num_hidden_layers
    for name in ("labels", "input labels", f"labels, L{layers - 1}"):
        assert found[name].value.value == pytest.approx(share, abs=0.02), name
    for name in ("output labels", *(f"labels, L{layer}" for layer in range(layers - 1))):
        assert found[name].value.value == pytest.approx(0, abs=0.02), name
    assert found["labels"].control is not None
    assert found["labels"].control.value == pytest.approx(0, abs=0.02)
    assert found["input labels"].control is None


HISTORY = {
    "history in K at labels": "other_history",
    m05_history.FUTURE_K: "other_future",
    "the step's own bit in K at labels": "edited",
}


@pytest.mark.parametrize("mechanism", ["placeholder", "A1", "unused, decodable"])
def test_what_is_read_by_value_is_not_read_by_key(mechanism):
    by_key = {e.name: e for e in read_all(mechanism)}["history in K at labels"]
    assert by_key.value.value == pytest.approx(0, abs=0.02)
    assert by_key.control is not None
    assert by_key.control.value == pytest.approx(0, abs=0.02)


def test_attention_is_frozen_in_every_entry(monkeypatch: pytest.MonkeyPatch):
    """All scores come from the base, in all layers, so that only values can act."""
    model = planted("placeholder")
    trials = choose(sample("parity-aligned", 240, 10, 0, model.vocabulary), 0, 24)
    seen = {}

    def watched(raw, base, entries, metric):
        seen.update(entries)
        return interchange(raw, base, entries, metric)

    monkeypatch.setattr(m01_identity, "interchange", watched)
    measure_history(model.model, trials)
    assert len(seen) == 10
    # One run each of the base, the history, the future and the edited bit, however many entries there are.
    assert len({id(part.source) for parts in seen.values() for part in parts}) == 4
    for name in HISTORY:
        (alone,) = seen.pop(name)  # with nothing frozen: keys act through attention
        assert (alone.site, alone.layers) == ("k", None)
        assert torch.equal(alone.at, trials.labels)
        assert torch.equal(alone.source.tokens, getattr(trials, HISTORY[name]).tokens)
    for frozen, taken in seen.values():
        assert (frozen.site, frozen.source, frozen.at, frozen.layers) == ("attn_scores", trials.batch, None, None)
        assert taken.site == "v"
        assert (taken.source.tokens != trials.batch.tokens).sum() == len(trials)


@pytest.mark.parametrize(
    ("mechanism", "share"), [("copied bit with backup", 1.0), ("placeholder", 0.0), ("A1", 0.0), ("A2", 0.0)]
)
def test_a_copy_of_the_steps_own_bit_is_found(mechanism, share):
    model = plant(Plan(mechanism, "gpt2", 10)) if share else planted(mechanism)
    trials = choose(sample("parity-aligned", 240, 10, 0, model.vocabulary), 0, 24)
    found = {e.key: e for e in measure_history(model.model, trials)}
    assert found[keys.STEP_BIT_V].value.value == pytest.approx(share, abs=0.02)
    assert found[keys.STEP_BIT_K].value.value == pytest.approx(0, abs=0.02)
    control = found[keys.STEP_BIT_V].control
    assert control is not None
    assert control.value == pytest.approx(0, abs=0.02)


def test_the_label_at_which_the_answer_is_predicted_keeps_its_values():
    trials = choose(sample("parity-suffix", 240, 10, 0), 0, 24)
    predicting = trials.batch.at(Role.OUTPUT)[trials.step - 1] - 1
    assert torch.isin(trials.batch.role[predicting], torch.tensor(LABEL_ROLES)).all()
    assert not trials.labels[torch.arange(len(trials)), predicting].any()


def test_constant_labels_store_as_well():
    """M5 swaps no labels, so they need not differ."""
    assert stored("placeholder", fmt="parity-constant")["labels"].value.value == pytest.approx(1, abs=0.02)
