"""Presence by answer: seen in a head that reads labels in some prompts and rests on them in others, zero in readers."""

import math
from collections.abc import Mapping
from functools import cache

import pytest
import torch

from interp.patching import Knockout, knock_out_for
from interp.tasks import Role, sample
from probes import keys
from probes.arms import presence_answers, presence_interchanges
from probes.arms.idle_heads import LABELS, all_heads
from probes.arms.presence_answers import leads_after, lost_by, measure_by_answer
from probes.arms.presence_cells import KINDS, Cells
from probes.arms.presence_groups import Group, groups_of
from probes.arms.presence_interchanges import Interchanges, grafted
from probes.arms.presence_metrics import answer_accuracy
from probes.arms.presence_removals import counted, nulled
from probes.arms.presence_search import all_cells
from probes.arms.presence_sources import sources_by_answer
from probes.planted import Plan, plant
from tests.probes.oracle_models import planted


def by_answer(model) -> dict:
    batch = sample("parity-aligned", 32, 6, 8, model.vocabulary)
    return {e.key: e for e in measure_by_answer(model.model, batch, Cells(), 3)}


@cache
def found_in(mechanism: str) -> dict:
    return by_answer(planted(mechanism))


def test_a_head_that_rests_on_labels_in_some_prompts_loses_answers_to_other_keys():
    measured = by_answer(plant(Plan("match or rest", "gpt2", 6)))
    e = measured[keys.UNINFORMED]
    assert e.value.low > 0.15
    assert e.control.value == pytest.approx(0, abs=0.03)
    assert measured[keys.UNINFORMED_TWICE].value.value == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("mechanism", ["sink", "A1 with sink"])
def test_a_sink_in_a_head_of_its_own_shows_too(mechanism):
    assert found_in(mechanism)[keys.UNINFORMED].value.low > 0.5


@pytest.mark.parametrize(
    "mechanism",
    ["A1", "A2", "A1-backup", "placeholder", "content-addressed placeholder", "unused", "unused, massive attention"],
)
def test_models_without_a_sink_lose_nothing(mechanism):
    e = found_in(mechanism)[keys.UNINFORMED]
    assert abs(e.value.value) < 0.03
    assert abs(e.control.value) < 0.05
    assert abs(found_in(mechanism)[keys.UNINFORMED_CONSTANT].value.value) < 0.03


def test_a_constant_that_labels_add_is_restored_by_their_average_value():
    measured = found_in("bias sink")
    restored = measured[keys.UNINFORMED_CONSTANT].value
    assert restored.low > 0.5
    # Without the constant both answers are nearly as likely, whatever other keys add.
    assert measured[keys.UNINFORMED].value.value < restored.value / 2


def test_a_head_that_counts_labels_loses_answers_when_they_count_twice():
    assert by_answer(plant(Plan("counted labels", "gpt2", 6)))[keys.UNINFORMED_TWICE].value.low > 0.2


def everywhere(model, size: int) -> tuple[Interchanges, Group]:
    batch = sample("parity-aligned", size, 6, 8, model.vocabulary)
    work = Interchanges(model.model, batch, 3, answer_accuracy(batch), sources_by_answer(batch, 3))
    return work, Group(Cells(tuple(all_cells(model.model, batch))))


def test_no_answer_of_the_first_step_counts(monkeypatch: pytest.MonkeyPatch):
    """All answers are lost, whatever is done, and no margin moves: five of six count."""
    work, group = everywhere(planted("unused"), 8)
    work.lead = torch.full_like(work.lead, 1e-9)
    monkeypatch.setattr(
        presence_answers, "leads_after", lambda _, groups, __: dict.fromkeys(groups, torch.zeros_like(work.lead))
    )
    monkeypatch.setattr(presence_answers, "STILL", 2.0)
    found = lost_by(work, {"": group})[""]
    assert torch.allclose(found.interchanged, torch.full((8,), 5 / 6, dtype=torch.float64))


def test_where_removal_loses_only_answers_that_labels_inform_nothing_more_is_measured(monkeypatch: pytest.MonkeyPatch):
    work, group = everywhere(planted("placeholder"), 16)
    monkeypatch.setattr(presence_answers, "nulled", None)  # not reached
    assert not lost_by(work, {"": group})[""].other_keys.any()


def test_where_removal_loses_nothing_nothing_is_interchanged(monkeypatch: pytest.MonkeyPatch):
    work, group = everywhere(planted("unused"), 8)
    monkeypatch.setattr(presence_answers, "grafted", None)  # not reached
    assert not lost_by(work, {"": group})[""].other_keys.any()


def test_nor_is_it_on_the_first_prompts(monkeypatch: pytest.MonkeyPatch):
    """Of many heads, where a quarter of the prompts decides what is measured on all."""
    work, group = everywhere(planted("unused"), 24)
    monkeypatch.setattr(presence_answers, "MANY_UNITS", 0)
    monkeypatch.setattr(presence_answers, "grafted", None)  # not reached
    assert not lost_by(work, {"": group})[""].other_keys.any()


def test_queries_before_every_label_are_not_run(monkeypatch: pytest.MonkeyPatch):
    """Inputs come before the output labels: without these they are what they were."""
    work, _ = everywhere(planted("A2"), 4)
    group = Group(Cells(tuple(("inputs", head) for head in all_heads(work.anatomy.raw))))
    before, after = (work.batch.role == role for role in LABELS)

    def lead(change) -> torch.Tensor:
        return leads_after(work, {"": group}, lambda _: change)[""]

    assert not torch.equal(lead(counted(before, -math.inf)), work.lead)
    monkeypatch.setattr(presence_interchanges, "final_patched", None)  # not reached
    for change in (counted(after, -math.inf), nulled(work, after)):
        assert torch.equal(lead(change), work.lead)


def test_zero_read_from_labels_is_the_null_knockout():
    """The change of this arm against the knockout of the sweep, in every head at once."""
    model = planted("A2")
    batch = sample("parity-aligned", 6, 6, 8, model.vocabulary)
    work = Interchanges(model.model, batch, 3, answer_accuracy(batch), sources_by_answer(batch, 3))
    group = Group(Cells(tuple(("output labels", head) for head in all_heads(model.model))), (Role.INPUT_LABEL,))
    right = (leads_after(work, {"": group}, lambda src: nulled(work, src))[""] > 0).double().mean(dim=1)
    removal = Knockout(Role.INPUT_LABEL, KINDS["output labels"], mode="null")
    (effect,) = knock_out_for(model.model, batch, {"null": removal}, [answer_accuracy(batch)])
    assert torch.allclose(right, effect.values[0].double())
    assert right.mean() < 0.9


@pytest.mark.parametrize("name", ["bias sink", "A2"])
def test_the_order_of_removal_and_interchange_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    model = planted(name)
    work, _ = everywhere(model, 12)
    groups = groups_of(model.model, work.batch, Cells())
    found = lost_by(work, groups)
    assert presence_answers.wide(groups)
    monkeypatch.setattr(presence_answers, "wide", lambda _: set())
    for group, lost in lost_by(work, groups).items():
        for field in ("other_keys", "restored", "interchanged", "twice"):
            assert torch.equal(getattr(lost, field), getattr(found[group], field))
    assert any(bool(lost.restored.any()) for lost in found.values()) == (name == "bias sink")


@pytest.mark.parametrize("name", ["bias sink", "A2"])
def test_of_many_heads_groups_that_lose_nothing_on_the_first_prompts_are_left_out(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """The groups that are left lose what they lose among all; the others lose nothing, or less than half of enough."""
    model = planted(name)
    work, _ = everywhere(model, 24)
    groups = groups_of(model.model, work.batch, Cells())
    with monkeypatch.context() as few_heads:
        few_heads.setattr(presence_answers, "on_first", None)  # not reached
        every = lost_by(work, groups)
    monkeypatch.setattr(presence_answers, "MANY_UNITS", 0)
    tried = dict[int, int]()
    measured = presence_answers.after_first

    def noted(some: Interchanges, groups: Mapping[str, Group], least: float) -> tuple:
        tried[len(some.batch)] = len(groups)
        return measured(some, groups, least)

    monkeypatch.setattr(presence_answers, "after_first", noted)
    found = lost_by(work, groups)
    assert found.keys() == every.keys()
    for group, lost in found.items():
        for field in ("other_keys", "restored", "interchanged", "twice"):
            own, among_all = getattr(lost, field), getattr(every[group], field)
            assert torch.equal(own, among_all) or not own.any()
    strongest = max(every, key=lambda group: float(every[group].restored.mean()))
    assert torch.equal(found[strongest].restored, every[strongest].restored)
    assert tried[8] == len(groups)
    assert 0 < tried[24] < len(groups)
    # Those are left that lose half of enough on the first prompts, against one group after another.
    few, least = presence_answers.on_first(work, 8), presence_answers.least_lost(work) / 2
    most = presence_answers.STILL * float(few.lead.abs().mean())

    def share_lost(group: Group) -> float:
        removed = leads_after(few, {"": group}, lambda src: counted(src, -math.inf))[""]
        moved = (leads_after(few, {"": group}, lambda src: grafted(few, 0, src))[""] - few.lead).abs()
        uninformed = (few.lead > 0) & (moved <= most) & (torch.arange(few.lead.shape[1]) > 0)
        return float((uninformed & (removed <= 0)).double().mean())

    shares = {group: share_lost(groups[group]) for group in groups}
    left = {group for group, share in shares.items() if share >= least}
    assert tried[24] == len(left)
    assert {group for group in groups if found[group].other_keys.any() or found[group].restored.any()} <= left
    # Half of what counts is enough on the first prompts.
    smallest = min(share for share in shares.values() if share)
    monkeypatch.setattr(
        presence_answers, "FEWEST", presence_answers.FEWEST * 1.5 * smallest / presence_answers.least_lost(work)
    )
    lost_by(work, groups)
    assert tried[24] == sum(share >= 0.75 * smallest for share in shares.values())
    assert tried[24] > sum(share >= 1.5 * smallest for share in shares.values())
    for bound in sorted(set(shares.values()) - {0.0}):
        left_by_bound = presence_answers.losing(*measured(few, groups, bound), bound)
        assert left_by_bound.keys() == {g for g in groups if shares[g] >= bound}
