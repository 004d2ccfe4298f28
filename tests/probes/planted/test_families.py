"""The mechanism of each family outside the calibration, shown by hooks on the raw model."""

from functools import cache

import pytest
import torch
from torch import Tensor

from interp.tasks import Batch, Role, parity, sample
from probes.planted import ARCHITECTURES_OF, FAMILIES, Dirt, Plan, Planted, plant, prove
from tests.probes.planted.raw_model import blocks, inputs_of_blocks, margins, run

LENGTH, PROMPTS, SHARE = 8, 48, 0.3
DIRTY = Dirt(rotation=True, noise=0.02, superposition=True, layernorm=True)

# Mean absolute changes of the margin, as shares of an edited bit's effect. Trades exchange two steps' input labels: the
# steps' own labels, those before them, or both. "content": residuals of labels from a run with all bits redrawn.
EFFECTS: dict[str, dict[str, float]] = {
    "anchor by the label before": {"own": 0, "before": 1, "both": 1, "content": 0},
    "anchor by two labels": {"own": 0.5, "before": 0.5, "both": 1, "content": 0},
    "anchor by two labels, backup": {"own": 0, "before": 0, "both": 1, "content": 0},
    "unused, dormant anchor": {"own": 0, "before": 0, "both": 0, "content": 0},
    "state by the label before": {"own": 0, "before": 1, "both": 1, "content": 0.5},
    "copied bit with backup": {"own": 0, "before": 0, "both": 0, "content": 0.5},
    "anchor and sink in one head": {"own": 1, "before": 0, "both": 1, "content": 0},
    "counted labels": {"own": 0, "before": 0, "both": 0, "content": 0},
    "known labels": {"own": 0, "before": 0, "both": 0, "content": 0},
    "label after its bit": {"own": 0, "before": 1, "both": 1, "content": 0},
    "A1 + label before": {"own": SHARE, "before": 1 - SHARE, "both": 1, "content": 0},
    "label before + unused": {"own": 0, "before": SHARE, "both": SHARE, "content": 0},
    "two labels + unused": {"own": SHARE / 2, "before": SHARE / 2, "both": SHARE, "content": 0},
    "label before + copied bit": {"own": 0, "before": SHARE, "both": SHARE, "content": (1 - SHARE) / 2},
}
# The same at odd steps and at even steps, counted from 1. A label's content is the state, which is redrawn: it differs
# in half of the prompts.
ANCHORED: dict[str, float] = {"own": 1, "before": 0, "both": 1, "content": 0}
READ: dict[str, float] = {"own": 0, "before": 0, "both": 0, "content": 0.5}
NOTHING: dict[str, float] = {"own": 0, "before": 0, "both": 0, "content": 0}
BY_STEP: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "anchor at odd steps": (ANCHORED, NOTHING),
    "anchor at odd steps, sink at even": (ANCHORED, NOTHING),
    "anchor at odd steps, state at even": (ANCHORED, READ),
    "state at odd steps, sink at even": (READ, NOTHING),
}
# The same at steps after a parity of 1, and of 0.
BY_PARITY: dict[str, tuple[dict[str, float], dict[str, float]]] = {"match or rest": (ANCHORED, NOTHING)}
CASES = [
    pytest.param(name, architecture, marks=[] if architecture == "gpt2" else pytest.mark.slow)
    for name in EFFECTS
    for architecture in ARCHITECTURES_OF[name]
]

EACH_ARCHITECTURE = pytest.mark.parametrize(
    "architecture", ["gpt2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt_neox", "llama"))]
)
# Where one of two labels matches, which of two bits is read depends on how alike the codes of labels are.
TIES = {"anchor by two labels": 0.25, "two labels + unused": 0.25 * SHARE}


@cache
def planted_as(mechanism: str, architecture: str = "gpt2", dirt: Dirt | None = None) -> Planted:
    share = SHARE if " + " in mechanism else 1.0
    return plant(Plan(mechanism, architecture, LENGTH, share, dirt or Dirt()))


def drawn(planted: Planted) -> tuple[Batch, Tensor, Tensor]:
    """Return prompts, and two steps of each, zero-based and not neighbours, that differ in bit and in state."""
    batch = sample(planted.format, 4 * PROMPTS, LENGTH, 3, planted.vocabulary)
    bits = parity.read(batch).bits
    before = parity_before(batch)
    step = torch.randint(1, LENGTH - 1, (len(bits),), generator=torch.Generator().manual_seed(0))
    differs = [x != x.gather(1, step.unsqueeze(1)) for x in (bits, before)]
    number = torch.arange(LENGTH)
    allowed = differs[0] & differs[1] & ((number - step.unsqueeze(1)).abs() > 1) & (number > 0)
    good = allowed.any(dim=1).nonzero().flatten()[:PROMPTS]
    return batch.rows(good), step[good], allowed.float().argmax(dim=1)[good]


def moved(planted: Planted, batch: Batch, step: Tensor, logits: Tensor) -> float:
    """Return the mean absolute change of the step's margin over the mean effect of editing its bit."""
    rows = torch.arange(len(batch))
    base = margins(run(planted.model, batch.tokens), batch)[rows, step]
    at, (zero, one) = batch.at(Role.INPUT)[step], batch.vocabulary.tokens(batch.format.inputs).tolist()
    edited = batch.tokens.clone()
    edited[rows, at] = zero + one - edited[rows, at]
    full = base - margins(run(planted.model, edited), batch)[rows, step]
    return float((margins(logits, batch)[rows, step] - base).abs().mean() / full.mean())


def traded(batch: Batch, step: Tensor, partner: Tensor, offsets: tuple[int, ...]) -> Tensor:
    """Return the tokens after an exchange of two steps' input labels, at each offset."""
    tokens, rows, at = batch.tokens.clone(), torch.arange(len(batch)), batch.at(Role.INPUT_LABEL)
    for offset in offsets:
        a, b = at[step + offset], at[partner + offset]
        tokens[rows, a], tokens[rows, b] = tokens[rows, b], tokens[rows, a]
    return tokens


def parity_before(batch: Batch) -> Tensor:
    """Return the parity before each step: [prompt step]."""
    content = parity.read(batch)
    return (content.parities - content.bits) % 2


def steps_of_kind(mechanism: str, batch: Batch, step: Tensor) -> Tensor:
    """Return which of some steps, one per prompt, are of the first of the family's two kinds."""
    if mechanism in BY_STEP:
        return (step + 1) % 2 == 1
    return parity_before(batch)[torch.arange(len(batch)), step] == 1


def expected_effects(mechanism: str) -> list[tuple[bool | None, dict[str, float]]]:
    """Return the effects of a family: at all steps (None), or at those of the first kind (True) and of the other."""
    if mechanism in EFFECTS:
        return [(None, EFFECTS[mechanism])]
    return list(zip((True, False), {**BY_STEP, **BY_PARITY}[mechanism], strict=True))


def effects(planted: Planted, mechanism: str, kept: bool | None = None) -> dict[str, float]:
    """Return the effects of `EFFECTS`, over all drawn steps or over those of one kind."""
    batch, step, partner = drawn(planted)
    if kept is not None:
        rows = (steps_of_kind(mechanism, batch, step) == kept).nonzero().flatten()
        batch, step, partner = batch.rows(rows), step[rows], partner[rows]
    trades = {"own": (0,), "before": (-1,), "both": (0, -1)}
    found = {
        name: moved(planted, batch, step, run(planted.model, traded(batch, step, partner, offsets)))
        for name, offsets in trades.items()
    }
    bits = batch.vocabulary.tokens(batch.format.inputs)[
        torch.randint(2, (len(batch), LENGTH), generator=torch.Generator().manual_seed(1))
    ]
    redrawn = batch.tokens.clone()
    redrawn[:, batch.at(Role.INPUT)] = bits
    source, labels = inputs_of_blocks(planted.model, redrawn), batch.at(Role.INPUT_LABEL)

    def content(layer: int, x: Tensor) -> Tensor:
        return x.index_copy(1, labels, source[layer][:, labels])

    found["content"] = moved(planted, batch, step, run(planted.model, batch.tokens, content))
    return found


def accuracy_without(planted: Planted, queries: tuple[Role, ...], keys: slice = slice(None)) -> float:
    """Return the share of right answers where queries of some roles cannot attend to (some) input labels."""
    batch, *_ = drawn(planted)
    hidden = torch.zeros(batch.n_pos, batch.n_pos, dtype=torch.bool)
    for role in queries:
        hidden[batch.at(role)[:, None], batch.at(Role.INPUT_LABEL)[keys]] = True
    return float((margins(run(planted.model, batch.tokens, hidden=hidden), batch) > 0).float().mean())


def test_every_family_has_expected_effects():
    assert {*EFFECTS, *BY_STEP, *BY_PARITY} == set(FAMILIES)


@pytest.mark.parametrize(("mechanism", "architecture"), CASES)
def test_hooks_find_what_the_family_says(mechanism, architecture):
    planted, family = planted_as(mechanism, architecture), FAMILIES[mechanism]
    assert min(prove(planted, prompts=24).values()) == 1
    found, expected = effects(planted, mechanism), EFFECTS[mechanism]
    tie = TIES.get(mechanism, 0.03)
    within = {"own": tie, "before": tie, "both": 0.03, "content": 0.12 if expected["content"] else 0.03}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=within[name]), name
    # The declared truth agrees with what was found.
    assert ("anchor" in family.present) == (found["both"] > 0.1)
    assert ("placeholder" in family.present) == (found["content"] > 0.1)
    if family.routes:
        assert planted.truth.shares["address"] == pytest.approx(found["both"], abs=0.03)


@EACH_ARCHITECTURE
@pytest.mark.parametrize("mechanism", [*BY_STEP, *BY_PARITY])
def test_two_kinds_of_step_use_labels_as_the_family_says(mechanism, architecture):
    planted, family = planted_as(mechanism, architecture), FAMILIES[mechanism]
    assert min(prove(planted, prompts=24).values()) == 1
    both = expected_effects(mechanism)
    for kept, expected in both:
        found = effects(planted, mechanism, kept)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=0.15 if name == "content" and value else 0.03), (kept, name)
    named = {"anchor": "own", "placeholder": "content"}
    used = {role for role, name in named.items() if any(expected[name] for _, expected in both)}
    assert used == {*family.present} - {"sink"}


@EACH_ARCHITECTURE
def test_a_head_rests_on_labels_after_a_parity_of_0(architecture):
    """Nothing that labels carry matters there (`BY_PARITY`)."""
    planted = planted_as("match or rest", architecture)
    batch, *_ = drawn(planted)
    hidden = torch.zeros(batch.n_pos, batch.n_pos, dtype=torch.bool)
    hidden[batch.at(Role.OUTPUT_LABEL)[:, None], batch.at(Role.INPUT_LABEL)] = True
    right = margins(run(planted.model, batch.tokens, hidden=hidden), batch) > 0
    assert float(right[parity_before(batch) == 0].float().mean()) < 0.8


@EACH_ARCHITECTURE
@pytest.mark.parametrize("mechanism", BY_STEP)
def test_labels_are_a_sink_at_even_steps_only_where_the_family_says_so(mechanism, architecture):
    planted = planted_as(mechanism, architecture)
    batch, *_ = drawn(planted)
    hidden = torch.zeros(batch.n_pos, batch.n_pos, dtype=torch.bool)
    even = batch.at(Role.OUTPUT_LABEL)[1::2]
    hidden[even[:, None], batch.at(Role.INPUT_LABEL)] = True
    right = (margins(run(planted.model, batch.tokens, hidden=hidden), batch) > 0).float().mean(dim=0)
    assert (right[::2] == 1).all()
    needed = "sink" in FAMILIES[mechanism].present or "state at even" in mechanism
    assert (float(right[1::2].mean()) < 0.8) == needed


@pytest.mark.parametrize(
    "architecture", ["gpt2", *(pytest.param(a, marks=pytest.mark.slow) for a in ("gpt_neox", "llama"))]
)
def test_a_head_is_a_sink_for_values_only(architecture):
    both, alone = planted_as("anchor and sink in one head", architecture), planted_as("A1 + label before", architecture)
    rest = (Role.OUTPUT, Role.SEPARATOR)
    assert accuracy_without(both, rest) < 0.8
    assert accuracy_without(both, (Role.OUTPUT_LABEL,)) == 1
    assert accuracy_without(alone, rest) == 1


@pytest.mark.parametrize(
    "architecture", ["gpt2", *(pytest.param(a, marks=pytest.mark.slow) for a in ("gpt_neox", "llama"))]
)
def test_counted_labels_are_counted(architecture):
    """One label less shifts every answer by a step; a model by index does not notice."""
    counted, unused = planted_as("counted labels", architecture), planted_as("unused, dormant anchor", architecture)
    one = slice(2, 3)
    assert accuracy_without(counted, (Role.OUTPUT_LABEL,), one) < 0.8
    assert accuracy_without(unused, (Role.OUTPUT_LABEL,), one) == 1
    assert accuracy_without(unused, (Role.OUTPUT_LABEL, Role.OUTPUT, Role.SEPARATOR)) == 1


@EACH_ARCHITECTURE
def test_known_labels_decide_by_their_set_alone(architecture):
    """Labels that the input does not have make every answer 1; the input's own in another order change nothing."""
    planted = planted_as("known labels", architecture)
    batch, *_ = drawn(planted)
    right = margins(run(planted.model, batch.tokens), batch)
    at, pool = batch.at(Role.OUTPUT_LABEL), planted.vocabulary.pool
    other = torch.stack([pool[~torch.isin(pool, row)][: len(at)] for row in batch.tokens])
    for labels, kept in ((batch.tokens[:, at].flip(1), True), (other, False)):
        tokens = batch.tokens.index_copy(1, at, labels)
        found = margins(run(planted.model, tokens), batch)
        assert ((found > 0).float().mean() == 1) == kept
        assert float((found > 0).float().mean()) > 0.3
        assert torch.allclose(found, right, atol=0.05 * float(right.mean())) == kept


@pytest.mark.parametrize(
    "architecture", ["gpt2", *(pytest.param(a, marks=pytest.mark.slow) for a in ("gpt_neox", "llama"))]
)
def test_the_copied_bit_has_a_backup(architecture):
    planted = planted_as("copied bit with backup", architecture)
    assert accuracy_without(planted, (Role.OUTPUT_LABEL, Role.OUTPUT, Role.SEPARATOR)) == 1


@pytest.mark.parametrize(
    "architecture", ["gpt2", *(pytest.param(a, marks=pytest.mark.slow) for a in ("gpt_neox", "llama"))]
)
def test_the_dormant_anchor_answers_where_the_index_fails(architecture):
    planted = planted_as("unused, dormant anchor", architecture)
    batch, step, partner = drawn(planted)
    wanted, reader = planted.directions["target"], len(blocks(planted.model)) - 1

    def erase(layer: int, x: Tensor) -> Tensor:
        return x - (x @ wanted.T) @ wanted if layer == reader else x

    erased = run(planted.model, batch.tokens, erase)
    assert (margins(erased, batch) > 0).all()
    swapped = run(planted.model, traded(batch, step, partner, (0,)), erase)
    assert moved(planted, batch, step, swapped) == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "llama"])
@pytest.mark.parametrize("mechanism", FAMILIES)
def test_dirt_leaves_the_family_true(mechanism, architecture):
    planted = planted_as(mechanism, architecture, DIRTY)
    assert min(prove(planted, prompts=64).values()) >= 0.98
    for kept, expected in expected_effects(mechanism):
        found = effects(planted, mechanism, kept)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=0.25), (kept, name)
