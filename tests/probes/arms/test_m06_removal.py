"""M6 on planted models: the cost of removal, the heads that carry nothing, and the effect of a sink."""

from functools import cache

import pytest

from interp.forward import readout
from interp.patching import Knockout, accuracy, knock_out
from interp.tasks import Batch, Role, sample
from probes.arms.idle_heads import HARMLESS, LABELS, IdleHeads, sides_of
from probes.arms.m06_heads import SortedHeads, find_counting_heads, find_heads_that_need, find_idle_heads, sort_heads
from probes.arms.m06_removal import MODES, measure_removal
from tests.probes.oracle_models import planted


def batch_of(mechanism: str, architecture: str = "gpt2", size: int = 48, seed: int = 0) -> Batch:
    return sample("parity-aligned", size, 10, seed, planted(mechanism, architecture).vocabulary)


@cache
def idle_of(mechanism: str, architecture: str = "gpt2") -> IdleHeads:
    return find_idle_heads(planted(mechanism, architecture).model, batch_of(mechanism, architecture, 24, 7), LABELS)


@cache
def needing_of(mechanism: str, architecture: str = "gpt2") -> IdleHeads:
    model, batch = planted(mechanism, architecture).model, batch_of(mechanism, architecture, 24, 7)
    return find_heads_that_need(model, batch, idle_of(mechanism, architecture))


@cache
def sorted_of(mechanism: str, architecture: str = "gpt2") -> SortedHeads:
    first, other = (batch_of(mechanism, architecture, 24, seed) for seed in (7, 8))
    return sort_heads(planted(mechanism, architecture).model, first, other)


@cache
def removed(mechanism: str, architecture: str = "gpt2"):
    model, batch = planted(mechanism, architecture).model, batch_of(mechanism, architecture)
    return {e.name: e for e in measure_removal(model, batch, sorted_of(mechanism, architecture))}


def every_head(mechanism: str, architecture: str = "gpt2") -> int:
    config = planted(mechanism, architecture).model.config
    return config.num_hidden_layers * config.num_attention_heads


def test_two_sides_meet_at_the_separator():
    batch = batch_of("A1")
    first, second = sides_of(batch)
    assert first + second == tuple(range(batch.n_pos))
    assert batch.role[second[0]] == Role.SEPARATOR
    assert set(batch.role[list(second[1:])].tolist()) == {Role.OUTPUT, Role.OUTPUT_LABEL}


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("mechanism", ["sink", "bias sink"])
def test_all_heads_of_a_sink_are_idle_and_the_model_needs_labels(mechanism, architecture):
    """Values at labels are zero or constant everywhere; removing labels from the softmax still hurts."""
    idle = idle_of(mechanism, architecture)
    assert len(idle.input_side) == len(idle.output_side) == every_head(mechanism, architecture)
    assert idle.renormalise_loss > 0.3


@pytest.mark.parametrize("mechanism", ["unused", "unused, massive attention", "A1-backup"])
def test_all_heads_are_idle_where_nothing_is_lost(mechanism):
    idle = idle_of(mechanism)
    assert len(idle.input_side) == len(idle.output_side) == every_head(mechanism)
    assert idle.renormalise_loss <= HARMLESS


def test_heads_that_carry_identity_are_not_idle():
    """A1: the head that copies labels onto bits, on the input side; A2: the head that computes a pointer."""
    first = idle_of("A1")
    (carrier,) = {(i, j) for i in range(2) for j in range(4)} - set(first.input_side)
    assert carrier[0] == 0
    assert len(first.output_side) == every_head("A1")
    second = idle_of("A2")
    assert len(second.input_side) == every_head("A2")
    config = planted("A2").model.config
    (reader,) = {(i, j) for i in range(3) for j in range(config.num_attention_heads)} - set(second.output_side)
    assert reader[0] == 1
    assert first.renormalise_loss <= HARMLESS
    assert second.renormalise_loss <= HARMLESS


def test_the_head_that_reads_a_stored_state_is_not_idle():
    idle = idle_of("placeholder")
    config = planted("placeholder").model.config
    heads = {(i, j) for i in range(2) for j in range(config.num_attention_heads)}
    (reader,) = heads - set(idle.output_side)
    assert reader[0] == 1
    assert len(idle.input_side) == every_head("placeholder")


def test_what_idle_heads_lose_together_is_bounded():
    """Checked by a separate run: the joint replacement, on the prompts of the discovery."""
    for mechanism in ("A1", "placeholder", "sink"):
        model, batch = planted(mechanism).model, batch_of(mechanism, size=24, seed=7)
        entry = idle_of(mechanism).knockouts(batch, "mean")
        metric = accuracy(batch, among_answers=True)
        assert knock_out(model, batch, {"x": entry}, metric).change.mean() == pytest.approx(0, abs=HARMLESS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "architecture", "terms"),
    [
        ("sink", "gpt2", {"N": 0.5}),
        ("sink", "gpt_neox", {"N": 0.45}),
        ("bias sink", "gpt2", {"B": 0.5}),
        ("A1", "gpt2", {"C": 0.45}),
        ("A2", "gpt2", {"C": 0.45}),
        ("content-addressed placeholder", "gpt2", {"C": 0.5}),
        ("A1-backup", "gpt2", {}),
        ("unused", "gpt2", {}),
        ("unused, massive attention", "gpt2", {}),
    ],
)
def test_losses_are_denominator_bias_and_value(mechanism, architecture, terms):
    found = removed(mechanism, architecture)
    details = found["denominator, bias, value"].details
    lost = {mode: found[f"remove labels, all heads: {mode}"].value.value for mode in MODES}
    for term in ("N", "B", "C"):
        assert details[term]["value"] == pytest.approx(terms.get(term, 0.0), abs=0.1 if terms else 1e-6), term
    assert found["denominator, all heads"].value.to_json() == details["N"]
    # They telescope: their sum is the loss of masking.
    assert sum(details[t]["value"] for t in ("N", "B", "C")) == pytest.approx(lost["renormalise"], abs=1e-6)
    assert details["C"]["value"] == pytest.approx(lost["mean"], abs=1e-6)
    assert found["denominator, bias, value"].value.value == pytest.approx(lost["renormalise"] - lost["mean"], abs=1e-6)
    assert (details["KL"]["renormalise"] > 0.3) == bool(terms)
    assert (details["mean |change in margin|"]["renormalise"] > 1) == bool(terms)


def test_accuracies_lost_are_those_of_the_intact_and_the_masked_model():
    """Computed independently: right answers among the two, before and after every edge to labels is removed."""
    model, batch = planted("A1"), batch_of("A1")
    logits = readout(model.model, batch, batch.at(Role.OUTPUT)).logits
    symbols = batch.vocabulary.tokens(batch.format.outputs)
    assert (symbols[logits.argmax(dim=-1)] == batch.tokens[:, batch.at(Role.OUTPUT)]).all()
    cut = Knockout(LABELS, None, mode="null")
    kept = knock_out(model.model, batch, cut, accuracy(batch, among_answers=True)).values.mean()
    assert removed("A1")["remove labels, all heads: null"].value.value == pytest.approx(1 - float(kept), abs=1e-6)
    assert 0.3 < 1 - kept < 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mechanism", "architecture", "value"),
    [
        ("sink", "gpt2", 1.0),
        ("sink", "gpt_neox", 0.9),
        ("bias sink", "gpt2", 1.0),
        ("bias sink", "gpt_neox", 0.95),
        ("A1", "gpt2", 0.0),
        ("A2", "gpt2", 0.0),
        ("placeholder", "gpt2", 0.0),
        ("content-addressed placeholder", "gpt2", 0.0),
        ("unused, massive attention", "gpt2", 0.0),
    ],
)
def test_a_sink_is_what_idle_heads_lose_without_labels(mechanism, architecture, value):
    sink = removed(mechanism, architecture)["sink"]
    assert sink.value.value == pytest.approx(value, abs=0.15 if value else 1e-6)
    assert sink.quantity == "share of accuracy above chance"


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
@pytest.mark.parametrize("mechanism", ["sink", "bias sink"])
def test_the_control_of_a_sink_is_nothing(mechanism, architecture):
    """As many digits are removed from the heads that need labels; other heads count digits."""
    control = removed(mechanism, architecture)["sink"].control
    assert control is not None
    assert control.value == pytest.approx(0, abs=0.05)


def test_where_no_head_needs_labels_there_is_no_control():
    assert removed("unused")["sink"].control is None


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_one_head_needs_labels(architecture):
    """The planted sink head is in the last layer, on the output side; without one, all idle heads are returned."""
    needing = needing_of("sink", architecture)
    ((layer, _),) = needing.output_side
    assert layer == planted("sink", architecture).model.config.num_hidden_layers - 1
    assert needing.input_side == ()
    assert needing.renormalise_loss == idle_of("sink", architecture).renormalise_loss
    assert needing_of("unused") == idle_of("unused")


@pytest.mark.parametrize(("architecture", "count"), [("gpt2", 0), ("gpt_neox", 1)])
@pytest.mark.parametrize("mechanism", ["sink", "unused"])
def test_heads_that_count_are_found(mechanism, architecture, count):
    """In layer 0 no head reads a value. One GPT-NeoX head computes 1 / (number of values), the place."""
    model, batch = planted(mechanism, architecture).model, batch_of(mechanism, architecture, 24, 7)
    first = tuple((0, j) for j in range(model.config.num_attention_heads))
    counting = find_counting_heads(model, batch, IdleHeads(LABELS, first, ()))
    assert counting.src == LABELS
    assert (len(counting.input_side), counting.output_side) == (count, ())


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_a_sink_does_not_count(architecture):
    """It needs labels and no digits."""
    model, batch = planted("sink", architecture).model, batch_of("sink", architecture, 24, 7)
    counting = find_counting_heads(model, batch, needing_of("sink", architecture))
    assert counting.input_side == counting.output_side == ()


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox"])
def test_discovery_combines_the_searches(architecture):
    sink, unused = sorted_of("sink", architecture), sorted_of("unused", architecture)
    assert sink.idle == idle_of("sink", architecture)
    assert sink.counting.input_side == sink.counting.output_side == ()
    assert sink.control is not None
    assert sink.control.output_side == needing_of("sink", architecture).output_side
    assert unused.idle == idle_of("unused", architecture)
    assert unused.control is None


def test_idle_heads_can_be_subtracted():
    some = IdleHeads(LABELS, ((0, 0), (1, 1)), ((0, 1), (1, 1)))
    assert some.without(IdleHeads(LABELS, ((1, 1),), ((0, 1), (5, 5)))) == IdleHeads(LABELS, ((0, 0),), ((1, 1),))


def test_without_idle_heads_there_is_no_sink_to_measure():
    none = IdleHeads(LABELS, (), ())
    found = measure_removal(planted("A1").model, batch_of("A1"), SortedHeads(none, none, None))
    assert [e.name for e in found] == [
        *(f"remove labels, all heads: {mode}" for mode in MODES),
        "denominator, bias, value",
        "denominator, all heads",
    ]
    assert none.knockouts(batch_of("A1"), "mean") == ()
    some = measure_removal(planted("A1").model, batch_of("A1"), SortedHeads(idle_of("A1"), none, none))
    assert {e.name: e.control for e in some}["sink"] is None
