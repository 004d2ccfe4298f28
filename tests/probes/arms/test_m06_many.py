"""M6 among many heads: what is found in first order, and the runs that it shares, against `knock_out`."""

from __future__ import annotations

import pytest
import torch

from interp.patching import Interchange, interchange, knock_out, probability
from interp.tasks import sample
from probes.arms import m06_many
from probes.arms.first_order import moved_by_head
from probes.arms.group_search import DECIDING
from probes.arms.idle_heads import DIGITS, LABELS, IdleHeads, all_heads, sides_of
from probes.arms.m06_many import ManyHeads, both_sides
from probes.arms.presence_removals import nulled
from tests.probes.oracle_models import planted


@pytest.fixture(scope="module")
def many() -> ManyHeads:
    model = planted("sink")
    batch, other = (sample("parity-aligned", 12, 6, seed, model.vocabulary) for seed in (7, 8))
    return ManyHeads(model.model, batch, other)


CHANGES = {
    "mean": lambda many: many.means(),
    "renormalise": lambda many: many.removal(),
    "null": lambda many: nulled(many.work, many.work.labels),
}


@pytest.mark.parametrize("mode", ["mean", "renormalise", "null"])
def test_losses_are_those_of_knock_out(many: ManyHeads, mode) -> None:
    model, batch = many.work.anatomy.raw, many.work.batch
    for units in ([(1, head) for head in all_heads(model)], [(0, (0, 1)), (1, (1, 2))]):
        entry = IdleHeads.of(LABELS, units).knockouts(batch, mode)
        effect = knock_out(model, batch, {"": entry}, probability(batch, among_answers=True))
        expected = -float(effect.change.mean()) / (float(effect.base.mean()) - 0.5)
        assert many.lost(units, CHANGES[mode](many)) == pytest.approx(expected, abs=1e-6)
    assert many.lost([], CHANGES[mode](many)) == 0


def test_keys_of_other_prompts_are_those_of_interchange(many: ManyHeads) -> None:
    model, batch = many.work.anatomy.raw, many.work.batch
    heads = all_heads(model)
    by_layer = [
        Interchange(
            "k", many.work.sources[0], many.work.labels.unsqueeze(0), (layer,), tuple(h for i, h in heads if i == layer)
        )
        for layer in range(len(many.work.anatomy.blocks))
    ]
    effect = interchange(model, batch, {"": by_layer}, probability(batch, among_answers=True))
    expected = -float(effect.change.mean()) / (float(effect.base.mean()) - 0.5)
    assert many.lost(both_sides(heads), many.keys) == pytest.approx(expected, abs=1e-6)


def test_the_head_that_needs_labels_is_among_the_few_that_are_tested(many: ManyHeads, monkeypatch) -> None:
    units = [(side, head) for side in (0, 1) for head in all_heads(many.work.anatomy.raw)]
    lost = {unit: many.lost([unit], many.removal()) for unit in units}
    worst = max(lost, key=lambda unit: lost[unit])
    assert lost[worst] > 0.02
    monkeypatch.setattr("probes.arms.m06_many.MOST_ALONE", 2)
    few = many.most_needing(units)
    assert len(few) == 2
    assert worst in few


def test_sides_are_apart(many: ManyHeads) -> None:
    inputs, outputs = sides_of(many.work.batch)
    assert many.queries.sum(dim=1).tolist() == [len(inputs), len(outputs)]
    assert not (many.queries[0] & many.queries[1]).any()


def test_a_test_says_what_the_whole_loss_says_and_ends_where_that_is_decided(
    many: ManyHeads, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, change = all_heads(many.work.anatomy.raw), many.removal()
    groups = [[(side, head)] for side in (0, 1) for head in heads] + [both_sides(heads)]
    lost, runs = [many.lost(group, change) for group in groups], []
    whole = m06_many.measure_changed
    monkeypatch.setattr(m06_many, "measure_changed", lambda *args: (runs.append(len(x[0])) or x for x in whole(*args)))
    for allowed in (0.005, 0.02, 0.2):
        monkeypatch.setattr(m06_many, "HARMLESS", allowed)
        assert [many.is_harmful(group, change) for group in groups] == [x > allowed for x in lost]
    assert min(lost) < 0.005
    assert max(lost) > 0.2
    assert sum(runs) < 3 * len(groups) * len(many.work.batch)
    assert runs[0] == DECIDING


def test_one_estimate_serves_labels_and_digits(many: ManyHeads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change alone gives the same estimate; the gradients are taken once."""
    alone = {
        (kind, src): moved_by_head(many.work, [change(src)], many.queries, m06_many.SIGNS_SEED)[0]
        for kind, change in (("mean", many.means), ("removal", many.removal))
        for src in (LABELS, DIGITS)
    }
    taken, own = [], ManyHeads(many.work.anatomy.raw, many.work.batch, many.work.sources[0])
    monkeypatch.setattr(m06_many, "moved_by_head", lambda *args: taken.append(len(args[1])) or moved_by_head(*args))
    units = [(side, head) for side in (0, 1) for head in all_heads(many.work.anatomy.raw)]
    for src in (LABELS, DIGITS):
        own.idle(units, src)
        own.most_needing(units, src)
    assert taken == [5]
    for key, expected in alone.items():
        assert torch.allclose(own.moved[key], expected, rtol=1e-6, atol=1e-9), key
    assert not torch.allclose(alone["removal", LABELS], alone["removal", DIGITS], rtol=0.1)


def test_what_later_prompts_may_regain_counts(many: ManyHeads, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first prompts lose, the last ones gain as much as they can: nothing is lost, and the test does not end."""
    n = len(many.work.batch)
    monkeypatch.setattr(many.work, "clean", torch.full((n,), 0.5, dtype=torch.float64))
    lost = torch.where(torch.arange(n) < n // 2, 0.5, -0.5).double()
    parts = [m06_many.Moved(lost[k : k + 1], lost[k : k + 1]) for k in range(n)]
    monkeypatch.setattr(many, "_parts", lambda *_: iter(parts))
    assert not many.is_harmful([], many.removal())
    parts[-1] = m06_many.Moved(torch.ones(1), torch.ones(1))
    assert many.is_harmful([], many.removal())
