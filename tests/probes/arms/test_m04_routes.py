"""M4 on planted models: identity acts through the planted route only."""

import pytest

from interp.patching import interchange
from interp.patching.interchanges import Interchange
from interp.tasks import sample
from probes.arms.m01_identity import answer_margin
from probes.arms.m04_routes import measure_routes
from probes.trials.parity import choose
from tests.probes.oracle_models import planted


def routes(mechanism: str, architecture: str = "gpt2"):
    model = planted(mechanism, architecture)
    trials = choose(sample("parity-aligned", 240, 10, 0, model.vocabulary), 0, 24)
    return {e.name: e for e in measure_routes(model.model, trials)}


# Q is left out: the label that is asked for stands at the partner's output step too, in the base run.
SITES = ("V at label", "K at label", "V at bit", "K at bit")


@pytest.mark.parametrize(
    ("mechanism", "architecture", "attention", "through"),
    [
        # Labels reach the bit through V at once, and the bit's key is what is matched later.
        ("A1", "gpt2", 1.0, {"V at label, L0": 1.0, "K at bit, L1": 1.0}),
        ("A1", "gpt_neox", 1.0, {"V at label, L0": 1.0, "K at bit, L1": 1.0}),
        ("A2", "gpt2", 1.0, {"K at label, L1": 1.0}),
        ("A2", "gpt_neox", 1.0, {"K at label, L1": 1.0}),
        # The state by the label's own key, the bit by the bit's: each is one answer map.
        (
            "content-addressed placeholder",
            "gpt2",
            1.0,
            {"K at label, L1": 1.0, "V at label, L0": 1.0, "K at bit, L1": 1.0},
        ),
        ("mixture", "gpt2", 0.5, {"V at label, L0": 0.5, "K at bit, L1": 0.5}),
        ("placeholder", "gpt2", 0.0, {}),
        ("unused, identity-matching attention", "gpt2", 0.0, {}),
    ],
)
def test_identity_goes_by_the_route_that_was_built(mechanism, architecture, attention, through):
    found = routes(mechanism, architecture)
    assert found["attention"].value.value == pytest.approx(attention, abs=0.02)
    assert found["attention"].control is not None
    assert found["attention"].control.value == pytest.approx(0, abs=0.02)
    layers = planted(mechanism, architecture).model.config.num_hidden_layers
    for name in (f"{site}, L{layer}" for site in SITES for layer in range(layers)):
        assert found[name].value.value == pytest.approx(through.get(name, 0.0), abs=0.02), name
        assert found[name].control is None


@pytest.mark.parametrize(
    ("mechanism", "moves"), [("A1", True), ("A2", True), ("placeholder", False), ("unused", False)]
)
def test_the_query_side_shows_a_reader(mechanism, moves):
    """Not all of it: in the base run the partner's output step has the same label."""
    value = routes(mechanism)["Q at output label, L1"].value
    assert (value.value > 0.5) if moves else (abs(value.value) < 0.01)


def test_a_query_in_a_layer_before_the_reader_is_no_route():
    assert routes("A1")["Q at output label, L0"].value.value == pytest.approx(0, abs=0.01)


def test_the_margin_is_each_prompts_own():
    model = planted("A1")
    trials = choose(sample("parity-aligned", 240, 10, 0, model.vocabulary), 0, 24)
    metric = answer_margin(trials)
    found = interchange(
        model.model, trials.batch, {"edited": [Interchange("resid_pre", trials.edited, None, (0,))]}, metric
    )
    assert (found.base > 0).all()
    assert (found.values[0] < 0).all()
    assert found.values[0].tolist() == pytest.approx((-found.base).tolist(), rel=1e-3)
