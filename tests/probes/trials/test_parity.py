"""Trials of parity: the order of the steps, and the cell of each trial from its parities."""

import pytest
import torch

from interp.tasks import Role, parity, sample
from probes.trials.parity import BOTH_DIFFER, CELLS, Trials, choose, refuse, refuse_address

SIZE = 240


def trials_of(length: int, seed: int = 2, size: int | None = None, fmt: str = "parity-aligned") -> Trials:
    return choose(sample(fmt, SIZE * (6 if length < 7 else 1), length, seed=1), seed, size)


def at(values, step):
    return values.gather(1, step.unsqueeze(1) - 1).squeeze(1)


@pytest.mark.parametrize("length", [5, 9, 30])
def test_steps_are_in_order_and_reach_every_place(length):
    t = trials_of(length)
    assert (t.partner >= 1).all()
    assert (t.partner < t.earlier).all()
    assert (t.earlier < t.step).all()
    assert (t.step < t.later).all()
    assert (t.later <= length).all()
    assert t.length == length
    if length < 30:
        assert set(t.step.tolist()) == set(range(4, length))
        assert set(t.partner.tolist()) == set(range(1, length - 2))
        assert set(t.later.tolist()) == set(range(5, length + 1))


@pytest.mark.parametrize("length", [5, 9, 30])
def test_cells_are_what_the_bits_and_parities_say(length):
    """Recomputed from the tokens, one prompt after the other."""
    t = trials_of(length)
    x = t.batch
    _, one = x.vocabulary.tokens(x.format.inputs).tolist()
    for row in range(len(t)):
        bits = (x.tokens[row, x.at(Role.INPUT)] == one).tolist()
        i, j = int(t.step[row]), int(t.partner[row])
        bit_differs = bits[i - 1] != bits[j - 1]
        state_differs = sum(bits[:i]) % 2 != sum(bits[:j]) % 2
        table = {(True, False): 0, (False, True): 1, (True, True): 2, (False, False): 3}
        assert int(t.cell[row]) == table[bit_differs, state_differs]
        first, second = (int(b[row]) for b in t.bystanders)
        assert bits[first - 1] != bits[second - 1]
        assert first < i
        assert second < i
        assert j not in (first, second)


@pytest.mark.parametrize("length", [5, 12])
def test_cells_are_balanced(length):
    counts = trials_of(length).cell.bincount(minlength=4)
    assert counts.min() == counts.max() >= 20
    assert trials_of(length, size=40).cell.tolist().count(3) == 10
    assert trials_of(length, size=40).cell.bincount(minlength=4).tolist() == [10, 10, 10, 10]
    assert trials_of(length, size=41).cell.bincount(minlength=4).tolist() == [11, 11, 11, 11]  # about 41


def test_some_cells_alone():
    batch = sample("parity-aligned", SIZE, 12, seed=1)
    for cells in ((BOTH_DIFFER,), (3, 0)):
        found = choose(batch, 2, 40, cells)
        assert found.cell.bincount(minlength=4).tolist() == [(c in cells) * 40 // len(cells) for c in CELLS]
        tables = (getattr(parity.read(found.batch), name) for name in ("bits", "parities"))
        bit, state = (at(table, found.step) != at(table, found.partner) for table in tables)
        assert torch.equal(2 * bit + state, torch.tensor([2, 1, 3, 0])[found.cell])


def test_answers_are_the_right_one_and_the_wrong_one():
    t = trials_of(9)
    symbols = t.batch.vocabulary.tokens(t.batch.format.outputs)
    right = at(parity.read(t.batch).parities, t.step)
    assert torch.equal(t.answer, symbols[right])
    assert torch.equal(t.other, symbols[1 - right])
    # The prompt itself says so, and the edited one has the other as its true answer.
    assert torch.equal(at(t.batch.tokens[:, t.batch.at(Role.OUTPUT)], t.step), t.answer)
    assert torch.equal(symbols[at(parity.read(t.edited).parities, t.step)], t.other)


def test_each_intervention_changes_what_it_names_and_nothing_else():
    t = trials_of(9)
    x = t.batch

    def changed(do):
        found = (do.tokens != x.tokens).nonzero().tolist()
        return [[(Role(int(x.role[p])), int(x.step[p])) for row, p in found if row == r] for r in range(len(t))]

    pairs = zip(t.partner.tolist(), t.step.tolist(), strict=True)
    assert [sorted(steps) for steps in changed(t.swapped_inputs)] == [
        [(Role.INPUT_LABEL, j), (Role.INPUT_LABEL, i)] for j, i in pairs
    ]
    pairs = zip(t.partner.tolist(), t.step.tolist(), strict=True)
    assert [sorted(steps) for steps in changed(t.swapped_outputs)] == [
        [(Role.OUTPUT_LABEL, j), (Role.OUTPUT_LABEL, i)] for j, i in pairs
    ]
    for batch, steps in ((t.edited, t.step), (t.other_history, t.earlier), (t.other_future, t.later)):
        assert changed(batch) == [[(Role.INPUT, s)] for s in steps.tolist()]
    for role in (Role.INPUT_LABEL, Role.OUTPUT_LABEL):
        both = torch.stack(t.bystanders, dim=1).sort(dim=1).values.tolist()
        assert changed(t.swapped_bystanders(role)) == [[(role, a), (role, b)] for a, b in both]


def test_masks_name_the_positions():
    t = trials_of(9, size=12)
    x = t.batch
    for row in range(len(t)):
        own = int(x.at(Role.OUTPUT_LABEL, int(t.step[row]))[0])
        every = [*x.at(Role.INPUT_LABEL).tolist(), *x.at(Role.OUTPUT_LABEL).tolist()]
        assert t.labels[row].nonzero().flatten().tolist() == [p for p in every if p != own]
        pair = t.positions(Role.INPUT, (t.step, t.partner))[row].nonzero().flatten().tolist()
        assert pair == sorted(int(x.at(Role.INPUT, int(s[row]))[0]) for s in (t.step, t.partner))


def test_rows_keep_everything_together():
    t = trials_of(9)
    some = t.rows(t.cell == 2)
    assert len(some) == len(t) // 4
    assert set(some.cell.tolist()) == {2}
    kept = (t.cell == 2).nonzero().flatten()
    for name in ("step", "partner", "earlier", "later", "answer", "other"):
        assert torch.equal(getattr(some, name), getattr(t, name)[kept])
    assert torch.equal(some.bystanders[1], t.bystanders[1][kept])
    assert torch.equal(some.batch.tokens, t.batch.tokens[kept])


def test_a_seed_decides_and_another_differs():
    first, again, other = (trials_of(12, seed) for seed in (2, 2, 3))
    assert torch.equal(first.step, again.step)
    assert torch.equal(first.earlier, again.earlier)
    assert len(first) != len(other) or not torch.equal(first.step, other.step)


@pytest.mark.parametrize(
    ("fmt", "length", "words"),
    [
        ("parity-scratchpad", 10, "no labels"),
        ("parity-direct", 10, "no labels"),
        ("parity-interleaved", 10, "no labels"),
        ("addition-none", 6, "no labels"),
        ("recall-ordered", 6, "neither parity nor addition"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(fmt, length, words):
    batch = sample(fmt, 4, length, seed=0)
    assert words in (refuse(batch) or "")
    with pytest.raises(ValueError, match=words):
        choose(batch, seed=0)


def test_a_length_without_room_for_the_steps_is_an_error():
    batch = sample("parity-aligned", 100, 4, seed=0)
    assert refuse(batch) is None  # the format is not to blame
    with pytest.raises(ValueError, match=r"at least 5 is needed .* got 4"):
        choose(batch, seed=0)
    assert len(choose(sample("parity-aligned", 100, 5, seed=0), seed=0)) >= 6


def test_labels_that_repeat_are_no_addresses_but_can_store():
    """Constant labels cannot be keys, but a placeholder can use them, so trials exist."""
    for fmt, length, repeats in (
        ("parity-constant", 10, True),
        ("parity-cyclic", 9, True),
        ("parity-cyclic", 8, False),
        ("parity-numeric", 10, False),
        ("parity-aligned", 10, False),
    ):
        batch = sample(fmt, 100, length, seed=0)
        assert refuse(batch) is None
        assert bool(refuse_address(batch)) == repeats
        assert len(choose(batch, seed=0)) >= 6
    assert "repeats labels" in (refuse_address(sample("parity-constant", 1, 10, seed=0)) or "")


def test_too_few_prompts_are_an_error():
    with pytest.raises(ValueError, match="ask for more prompts"):
        choose(sample("parity-aligned", 3, 5, seed=0), seed=0)
