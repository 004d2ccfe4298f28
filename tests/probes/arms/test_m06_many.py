"""M6 among many heads: what is found in first order, and the runs that it shares, against `knock_out`."""

from __future__ import annotations

import pytest

from interp.patching import Interchange, interchange, knock_out, probability
from interp.tasks import sample
from probes.arms.idle_heads import LABELS, IdleHeads, all_heads, sides_of
from probes.arms.m06_many import ManyHeads, both_sides
from probes.arms.presence_removals import averaged_values, nulled
from tests.probes.oracle_models import planted


@pytest.fixture(scope="module")
def many() -> ManyHeads:
    model = planted("sink")
    batch, other = (sample("parity-aligned", 12, 6, seed, model.vocabulary) for seed in (7, 8))
    return ManyHeads(model.model, batch, LABELS, other)


CHANGES = {
    "mean": lambda many: averaged_values(many.work, many.at),
    "renormalise": lambda many: many.removal(),
    "null": lambda many: nulled(many.work, many.at),
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
        Interchange("k", many.work.sources[0], many.at.unsqueeze(0), (layer,), tuple(h for i, h in heads if i == layer))
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
