"""Models that cannot do a list are refused with their accuracy; a model that copies by position is named as such."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from interp.models.resolve import AnyModel
from interp.patching import Knockout, knock_out_for
from interp.patching.knockouts import MeanBy
from interp.tasks import Prompts, template
from interp.tasks.lists import lookups
from probes.binding import Binding, Trial, binding_verdict, measure_binding, sinks, trials_of
from probes.binding.checking import ADDRESSES, MARGIN
from probes.binding.edits import BOTH, BOTH_LISTED, LABEL_POSITION, NEXT, ORDER_POSITION
from probes.binding.found import Share
from probes.binding.lattice import RENAMED, beyond
from probes.binding.margins import FULL, FULL_OVER_LIST, gains, leads_over
from probes.binding.measuring import MORE, _summed
from probes.binding.pieces import PASSES, Piece, pieces_of
from probes.binding.sinks import (
    ALL_TOKENS,
    SINKS,
    TOGETHER,
    idle_positions,
    removal_of,
    sets_of,
    sink_effects,
    sink_positions,
)
from probes.binding.stored import binding_verdict_from_json
from probes.binding.trials import (
    ALL_BEFORE,
    ALL_MOVED,
    BEFORE_LISTED,
    DEEP_CHECKS,
    LABEL_MOVED,
    ORDER_MOVED,
    combinations_of,
)
from probes.binding.wanted import LATER, wanted_arms, wanted_next
from probes.evidence import Interval
from probes.planted.list_planting import ListPlan, plant_list
from probes.statuses import Status
from tests.probes.binding.list_models import list_tokenizer

SIZES: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}


def random_model(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    vocab = len(list_tokenizer())
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=32, n_layer=2, n_head=4, n_positions=128, **SIZES))
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, **shape, **SIZES))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("task", ["list-letters", "list-numerals", "list-bullets", "lookup-letters"])
def test_a_random_model_is_not_applicable_at_every_stage(family: str, task: str) -> None:
    measured = measure_binding(random_model(family).eval(), trials_of(list_tokenizer(), task, 6, 16, seed=0), task)
    verdict = binding_verdict(family, measured)
    assert verdict.label == "not applicable"
    assert not measured.competent
    assert not measured.shares
    assert measured.refusal is not None
    for status, reason in (*verdict.addresses.values(), *verdict.sinks.values()):
        assert status == Status.NOT_APPLICABLE
        assert str(measured.accuracy) in reason
        assert "\n" not in reason


def copier(trial: Trial, source: int, leak: tuple[int, int] | None = None) -> GPT2LMHeadModel:
    """Return one layer that copies the token at `source` to the last position of a trial, whatever the labels are.

    `leak`: a second head attends to a sink, and without it to another position, whose token it copies too.
    """
    tokens, last = trial.lookups.prompts.tokens.unique().tolist(), trial.lookups.prompts.n_pos - 1
    vocab, positions, heads = len(list_tokenizer()), last + 1, 1 if leak is None else 2
    width = vocab + positions + (vocab + positions) % 2
    sizes: dict[str, Any] = {**SIZES, "attn_implementation": "eager"}
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab, n_embd=width, n_layer=1, n_head=heads, n_positions=positions, n_inner=1,
            tie_word_embeddings=False, **sizes,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, values in model.named_parameters():
            values.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        block: Any = model.transformer.h[0]
        model.transformer.wte.weight[:, :vocab] = torch.eye(vocab)
        model.transformer.wpe.weight[:, vocab : vocab + positions] = torch.eye(positions)
        model.lm_head.weight[:, :vocab] = torch.eye(vocab)
        # Query at `last` and key at a position meet in one coordinate of a head; values carry the token.
        keys = [{source: 30.0}] if leak is None else [{source: 30.0}, {leak[0]: 30.0, leak[1]: 15.0}]
        for head, strengths in enumerate(keys):
            first = head * width // heads
            block.attn.c_attn.weight[vocab + last, first] = 30.0
            for pos, strength in strengths.items():
                block.attn.c_attn.weight[vocab + pos, width + first] = strength
            for k, token in enumerate(tokens):
                block.attn.c_attn.weight[token, 2 * width + first + k] = 1.0
                # The second head writes less, so that the answer is the most likely token.
                block.attn.c_proj.weight[first + k, token] = 10.0 - 2 * head
    return model


def test_a_model_that_copies_by_position_uses_no_label_and_no_order() -> None:
    trial = trials_of(list_tokenizer(), "list-letters", 6, 16, seed=0)[0]
    found = trial.lookups
    model = copier(trial, found.values[trial.query])
    measured = measure_binding(model, [trial] * 6, "list-letters")
    verdict = binding_verdict("copier", measured)
    assert verdict.label == "position"
    assert measured.shares["position"].value.value == pytest.approx(1, abs=0.02)
    assert measured.shares["position"].follows == measured.shares["joint"].follows == 1
    for arm in ("label at list", "label at query", "order"):
        assert measured.shares[arm].value.value == pytest.approx(0, abs=1e-3)
        assert measured.shares[arm].follows == 0
    assert verdict.addresses["own label"][0] == verdict.addresses["order"][0] == Status.ABSENT


def test_a_template_of_ones_own_is_judged_in_a_few_lines() -> None:
    words = ("apple", "bread", "chair", "table", "water", "house")
    text = "".join(f"{{label{i}}} is {{value{i}}}\n" for i in range(1, 7)) + "\n{label1} is {value1}\n{label2} is"
    labels = {f"label{i}": f" {label}" for i, label in enumerate("ABCDEF", 1)}
    orders = list(permutations(range(6)))[::40]
    rows = [labels | {f"value{i}": f" {words[w]}" for i, w in enumerate(order, 1)} for order in orders]
    trial = Trial.of(lookups(template(text, rows, list_tokenizer()), query=2))
    found = trial.lookups
    model = copier(trial, found.values[2])
    verdict = binding_verdict("copier", measure_binding(model, [trial], prompts=12))
    assert verdict.label == "position"
    assert (verdict.measured.posed, verdict.measured.prompts) == (18, 12)
    first = text.replace("\n{label1} is {value1}\n{label2} is", "\n{label1} is")
    with pytest.raises(ValueError, match="must be one of 2 to 4; got 1"):
        Trial.of(lookups(template(first, rows, list_tokenizer()), query=1))


def test_a_prompt_that_is_repeated_counts_once() -> None:
    trial = labelled(12)
    same = trial._rows(torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 3]))
    model = copier(trial, trial.lookups.values[2])
    once = measure_binding(model, [trial])
    with pytest.warns(UserWarning, match="3 prompts repeat others and are left out"):
        found = measure_binding(model, [same])
    assert found == once
    assert (found.posed, found.prompts) == (12, 12)


LABELLED = "".join(f"{{label{i}}} is {{value{i}}}\n" for i in range(1, 7)) + "\n{label1} is {value1}\n{label2}"


def labelled(count: int = 24) -> Trial:
    """Return prompts of six items, A to F in order, that end with the label of the second."""
    words = ("apple", "bread", "chair", "table", "water", "house", "river", "stone")
    labels = {f"label{i}": f" {label}" for i, label in enumerate("ABCDEF", 1)}
    drawn = [torch.randperm(8, generator=torch.Generator().manual_seed(k))[:6].tolist() for k in range(count)]
    rows = [labels | {f"value{i}": f" {words[w]}" for i, w in enumerate(row, 1)} for row in drawn]
    return Trial.of(lookups(template(LABELLED, rows, list_tokenizer()), query=2))


def test_a_label_that_is_a_learned_index_is_no_address_in_the_list() -> None:
    """A head takes label i of the query to the place of value i, whatever label stands there."""
    trial = labelled()
    found = trial.lookups
    model = copier(trial, found.values[2])
    attention: Any = model.transformer.h[0].attn
    vocab, width = len(list_tokenizer()), model.config.n_embd
    with torch.no_grad():
        attention.c_attn.weight[:, : 2 * width] = 0
        for item, pos in found.values.items():
            label = int(found.prompts.tokens[0, found.labels[item][-1]])
            attention.c_attn.weight[label, item] = attention.c_attn.weight[vocab + pos, width + item] = 30.0
    measured = measure_binding(model, [trial])
    shares = measured.shares
    assert shares["label at query"].value.value == pytest.approx(1, abs=0.02)
    assert shares["label at query"].excess.low > 0.1
    assert shares["label at list"].value.value == pytest.approx(0, abs=0.02)
    assert shares["label at both"].value.value == pytest.approx(1, abs=0.02)
    verdict = binding_verdict("indexer", measured)
    status, reason = verdict.addresses["own label"]
    assert status == Status.INDETERMINATE
    assert "the query's label may be a learned index" in reason
    assert verdict.label == "position"


def share_of(value: float, control: float = 0.0) -> Share:
    def around(x: float) -> Interval:
        return Interval(x, x - 0.02, x + 0.02)

    return Share(around(value), around(control), around(value - control))


@pytest.mark.parametrize(
    ("listed", "query", "both", "status", "says"),
    [
        (share_of(0.9), share_of(0.9, 0.5), share_of(0.0), Status.PRESENT, "label at list"),
        (share_of(0.9), share_of(0.0), share_of(0.0), Status.INDETERMINATE, "label at query"),  # nothing reads it there
        (share_of(0.5), share_of(0.8, 0.5), share_of(0.3, 0.3), Status.PRESENT, "label at list"),  # words disturb
        (share_of(0.0), share_of(0.9, 0.5), share_of(0.0), Status.INDETERMINATE, "learned index"),
        (share_of(0.9), share_of(0.9, 0.5), share_of(0.9), Status.INDETERMINATE, "leads nowhere else"),
        (None, share_of(0.9, 0.5), None, Status.INDETERMINATE, "labels of the list were not traded"),
        (share_of(0.0), share_of(0.0), share_of(0.9), Status.ABSENT, "label at query"),
    ],
)
def test_the_own_label_needs_the_list_and_no_renaming(
    listed: Share | None, query: Share, both: Share | None, status: Status, says: str
) -> None:
    arms = {"label at list": listed, "label at query": query, "label at both": both}
    shares = {name: share for name, share in arms.items() if share is not None}
    accuracy = Interval(0.97, 0.95, 0.99)
    added = (
        {} if listed is None or both is None else {beyond(*RENAMED): share_of(listed.value.value - both.value.value)}
    )
    given = Binding("list-letters", 6, 128, 64, 0, accuracy, 0.95, shares, added={k: x.value for k, x in added.items()})
    found = binding_verdict("made up", given)
    assert found.addresses["own label"][0] == status
    assert says in found.addresses["own label"][1]
    assert ("own label" in found.label) == (status == Status.PRESENT)


def alone(**shares: Share) -> Binding:
    """Return what was measured where only these arms were, an underscore for a space."""
    named = {name.replace("_", " "): share for name, share in shares.items()}
    return Binding("list-letters", 6, 128, 128, 0, Interval(1.0, 0.97, 1.0), 0.998, named)


def test_an_edit_that_only_breaks_the_answer_is_no_evidence_of_an_address() -> None:
    """The answer's lead falls by half, and the other item's value gains nothing, or about as much."""
    for gained, status in ((None, Status.PRESENT), (0.5, Status.PRESENT), (0.0, Status.INDETERMINATE)):
        around = None if gained is None else Interval(gained, gained - 0.02, gained + 0.02)
        share = replace(share_of(0.5), gained=around)
        found = binding_verdict("m", alone(order=share, position=share, label_at_list=share))
        assert {found.addresses[name][0] for name in ("order", "position", "own label")} == {status}
        assert ("gains" in found.addresses["order"][1]) == (status is Status.INDETERMINATE)
        # The same rule without a gain, which sinks do not have.
        assert binding_verdict_from_json("m", 0, json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("query", "listed", "status"),
    [
        (0.5, 0.5, Status.PRESENT),
        (0.5, 0.0, Status.INDETERMINATE),  # what the query shows may be a learned index, or lead to a label
        (0.0, 0.5, Status.INDETERMINATE),  # the list's neighbour may be found by the query's own label
        (0.0, 0.0, Status.ABSENT),
        (0.5, None, Status.PRESENT),  # labels of other lengths cannot be traded in the list
    ],
)
def test_the_order_needs_what_the_query_shows_and_what_the_list_has(
    query: float, listed: float | None, status: Status
) -> None:
    shares = {"order": share_of(query), "order at list": None if listed is None else share_of(listed)}
    deep = {ALL_BEFORE: shares["order"], BEFORE_LISTED: shares["order at list"], "order at list": share_of(0.0)}
    for given in (shares, shares if listed is None else deep):
        some = replace(alone(), shares={name: share for name, share in given.items() if share is not None})
        assert binding_verdict("m", some).addresses["order"][0] == status


def test_sinks_that_replace_each_other_are_not_called_absent() -> None:
    """The first token and line breaks: either suffices."""
    nothing, lost = share_of(0.0), share_of(0.6)
    either = {name: float({"first token", "line breaks"} <= set(name)) for name in sets_of(SINKS)}
    added = {
        beyond(removal_of(larger, SINKS), removal_of(smaller, SINKS)): share_of(either[larger] - either[smaller]).value
        for larger in either
        for smaller in either
        if set(smaller) < set(larger) and len(larger) == len(smaller) + 1
    }
    found = replace(alone(), sinks=dict.fromkeys(SINKS, nothing), added=added)
    verdict = binding_verdict("m", found)
    assert [verdict.sinks[name][0] for name in SINKS] == [Status.INDETERMINATE, Status.INDETERMINATE, Status.ABSENT]
    assert "first token + line breaks beyond line breaks: 1.000" in verdict.sinks["first token"][1]
    none = binding_verdict("m", replace(found, added={}))
    assert {none.sinks[name][0] for name in SINKS} == {Status.ABSENT}
    # What the lead over other tokens than values loses is no evidence of a sink, and leaves it open.
    said = binding_verdict("m", replace(found, added={f"first token{ALL_TOKENS}": lost.value}))
    assert [said.sinks[name][0] for name in SINKS] == [Status.INDETERMINATE, Status.ABSENT, Status.ABSENT]
    assert binding_verdict_from_json("m", 0, json.loads(json.dumps(verdict.to_json()))) == verdict


def test_an_address_that_leads_to_the_next_item_or_overtakes_in_some_prompts_is_not_absent() -> None:
    nothing = share_of(0.0)
    arms = dict.fromkeys((arm for names in ADDRESSES.values() for arm in names), nothing)
    idle = replace(alone(), shares=arms)
    assert {status for status, _ in binding_verdict("m", idle).addresses.values()} == {Status.ABSENT}
    near = binding_verdict("m", replace(idle, added={NEXT["position"]: share_of(0.9).value})).addresses
    assert [near[name][0] for name in ADDRESSES] == [Status.ABSENT, Status.ABSENT, Status.INDETERMINATE]
    assert "position, next item: 0.900" in near["position"][1]
    # Two thirds of the answers follow the label, by margins that are small beside those of the other prompts.
    loud = replace(idle, shares=arms | {"label at query": replace(nothing, follows=0.67)})
    found = binding_verdict("m", loud).addresses
    assert [found[name][0] for name in ADDRESSES] == [Status.INDETERMINATE, Status.ABSENT, Status.ABSENT]
    assert "label at query overtakes the answer in 0.67 of the prompts" in found["own label"][1]


@pytest.mark.parametrize("mechanism", ["own label", "position", "value before"])
def test_an_edit_to_the_next_item_moves_the_whole_margin_by_its_own_address_only(mechanism: str) -> None:
    planted = plant_list(ListPlan(mechanism, "gpt2", "list-letters", 6, 1.0))
    trials = [t for t in trials_of(planted.tokenizer, "list-letters", 6, 32, seed=3) if not t.only_deep]
    assert {trial.query for trial in trials} == {2, 3, 4}
    pieces = [(Piece("arms", k), Piece("more", k, to_next=tuple(NEXT))) for k in range(len(trials))]
    found = [[piece.measure(planted.model, [], trials).values for piece in both] for both in pieces]
    groups = [first | more for first, more in found]
    found = _summed(Binding("list-letters", 6, 32, 32, 0, Interval(1.0, 0.9, 1.0), 0.95), groups, len(trials), {})
    for address, name in NEXT.items():
        assert found.added[name].value == pytest.approx(float(address == mechanism), abs=0.03)


def test_only_what_can_change_a_status_is_measured_later() -> None:
    nothing, used = share_of(0.0), share_of(0.6)
    arms = dict.fromkeys((arm for names in ADDRESSES.values() for arm in names), nothing)
    labelled = replace(alone(), shares=arms | {"label at list": used, "label at query": used})
    deep = (LABEL_MOVED, ORDER_MOVED, *DEEP_CHECKS)
    assert wanted_arms(labelled) == (LABEL_POSITION, ORDER_POSITION, *deep)
    assert wanted_next(labelled) == ("position",)
    assert wanted_arms(replace(labelled, shares=dict.fromkeys(arms, used))) == ()
    open_ = dict.fromkeys(arms, share_of(0.15, 0.1))
    assert wanted_arms(replace(labelled, shares=open_)) == ()
    assert wanted_next(replace(labelled, shares=open_)) == ()
    # No arm leads anywhere, and none does nothing: two addresses may be needed together.
    vague = replace(labelled, shares=dict.fromkeys(arms, share_of(0.0, 0.0)))
    assert wanted_arms(vague) == (LABEL_POSITION, ORDER_POSITION, *deep)
    assert wanted_next(vague) == ("own label", "position")


# Logits of the answer, the target and two others before an edit, and after it.
GAINS = [
    ((9, 0, 2, -2), (0, 9, 2, -2), 9),  # it leads to the target
    ((9, 0, 2, -2), (0, 0, 9, -2), -7),  # to another item: the target falls behind the best
    ((9, 0, 2, -2), (0, 0, 0, 0), 0),  # nothing is found, all become alike: the best of the others falls
    ((9, 0, 2, -2), (9, 1, 3, -1), 0),  # all but the answer rise alike
    ((9, 0, 2, -2), (4, 3, 2, -2), 3),
]


@pytest.mark.parametrize(("before", "after", "gained"), GAINS)
def test_a_gain_is_over_the_best_and_over_the_mean_of_the_others(before: tuple, after: tuple, gained: float) -> None:
    first, later = (torch.tensor(logits, dtype=torch.float64) for logits in (before, after))
    found = gains((first[0] - first[1:])[:, None], (later[0] - later[1:])[:, None, None], target=0)
    assert found.tolist() == [[gained]]


def test_a_sink_is_a_share_of_the_lead_over_all_values() -> None:
    def const(x: float) -> torch.Tensor:
        return torch.tensor([x, x + 0.01, x - 0.01], dtype=torch.float64)

    names = ("order", "order control", "first token", "first token control", "first token carried")
    group = {FULL: const(4.0), FULL_OVER_LIST: const(2.0), **{name: const(1.0) for name in names}}
    found = _summed(Binding("template", 6, 6, 6, 0, Interval(1.0, 0.9, 1.0), 0.95), [group, group], 2, {})
    assert found.shares["order"].value.value == pytest.approx(0.25)
    assert found.sinks["first token"].value.value == found.carried["first token"].value == pytest.approx(0.5)


@pytest.mark.parametrize(("all_before", "label"), [(0.5, "position"), (0.0, "undecided"), (None, "position")])
def test_the_position_needs_the_trade_of_all_items_before(all_before: float | None, label: str) -> None:
    """A trade of two items each also moves a model that reads more than the item before."""
    measured = alone(position=share_of(0.5), order=share_of(0.0), label_at_list=share_of(0.0))
    if all_before is not None:
        measured = replace(measured, shares={**measured.shares, ALL_MOVED: share_of(all_before)}, deep_prompts=64)
    found = binding_verdict("m", measured)
    assert found.label == label
    reason = found.addresses["position"][1]
    assert reason.startswith(f"{ALL_MOVED}: " if all_before == 0.5 else "position: ")
    assert (f"but {ALL_MOVED}: " in reason) == (all_before == 0.0)
    assert found.to_json().get("deep_prompts") == (None if all_before is None else 64)


@pytest.mark.parametrize("mechanism", ["value two before", "value before and two before"])
def test_order_that_reaches_two_items_up_is_not_called_position(mechanism: str) -> None:
    planted = plant_list(ListPlan(mechanism, "gpt2", "list-letters", 6))
    trials = trials_of(planted.tokenizer, "list-letters", 6, 64, seed=0)
    measured = measure_binding(planted.model, trials, prompts=64)
    assert measured.shares["position"].value.low > MARGIN
    assert measured.shares[ALL_MOVED].value.value == pytest.approx(0, abs=0.01)
    assert measured.shares[ALL_BEFORE].value.value == pytest.approx(1, abs=0.01)
    assert binding_verdict("planted", measured).label == "order"
    assert (measured.posed, measured.prompts, measured.deep_prompts) == (64, 64, 64)


def test_two_addresses_that_are_needed_together_are_both_named() -> None:
    planted = plant_list(ListPlan("own label and value before", "gpt2", "list-letters", 6))
    measured = measure_binding(planted.model, trials_of(planted.tokenizer, "list-letters", 6, 64, seed=0), prompts=64)
    verdict = binding_verdict("planted", measured)
    assert verdict.label == "own label + order"
    assert all("neither alone" in verdict.addresses[name][1] for name in ("own label", "order"))
    # Without the edits of both they stay open, and where one alone leads to the other item it is named alone.
    shares = {name: share for name, share in measured.shares.items() if name not in (BOTH, BOTH_LISTED)}
    assert binding_verdict("planted", replace(measured, shares=shares)).label == "undecided"
    one = replace(measured, shares=measured.shares | dict.fromkeys(("label at list", "label at query"), share_of(0.5)))
    assert binding_verdict("planted", one).label == "own label"
    listed = replace(measured, shares=measured.shares | {BOTH_LISTED: share_of(0.0)})
    assert binding_verdict("planted", listed).label == "undecided"


def test_with_the_position_two_are_needed_only_where_one_does_nothing_alone() -> None:
    arms = dict.fromkeys((arm for names in ADDRESSES.values() for arm in names), share_of(0.0))
    used = replace(alone(), shares={**arms, LABEL_MOVED: share_of(0.9)})
    assert binding_verdict("m", used).label == "own label + position"
    broken = dict.fromkeys(("label at query", ALL_MOVED), share_of(0.3, 0.3))  # no more than the control
    assert binding_verdict("m", replace(used, shares=used.shares | broken)).label == "undecided"


def test_a_candidate_loses_what_is_the_same_in_all_prompts_at_its_mean() -> None:
    """What line breaks carry is over all of them: a mean at each position would keep the number of the line."""
    trial, model = trials_of(list_tokenizer(), "list-letters", 6, 16, seed=0)[0], random_model("gpt2").eval()
    over, over_all = leads_over(trial)
    found = sink_effects(model, trial, over, over_all, {})
    breaks, last = sink_positions(trial, "line breaks"), trial.lookups.prompts.n_pos
    dest = tuple(p for p in range(min(breaks) + 1, last) if p not in breaks)
    by: tuple[MeanBy, ...] = ("token", "pos")
    entries = {mean_by: Knockout(tuple(breaks), dest, mode="mean", mean_by=mean_by) for mean_by in by}
    effects = knock_out_for(model, trial.lookups.prompts, entries, over)
    before, after = (torch.stack([getattr(effect, what) for effect in effects]) for what in ("base", "values"))
    by_token, by_pos = before.amin(dim=0) - after.amin(dim=0)
    assert len(breaks) > 2
    assert torch.allclose(found["line breaks carried"], by_token, rtol=0, atol=1e-6)
    assert (by_token - by_pos).abs().max() > 5e-5  # fifty times the tolerance


def test_an_address_that_none_of_the_arms_moves_is_not_named() -> None:
    """The label after the query's is looked up, and the value before it read: edits break it, and lead nowhere."""
    planted = plant_list(ListPlan("label after", "gpt2", "list-letters", 6))
    measured = measure_binding(planted.model, trials_of(planted.tokenizer, "list-letters", 6, 64, seed=0), prompts=64)
    assert binding_verdict("planted", measured).label == "undecided"


def words_in_turn(before: str) -> Trial:
    """Return six prompts of six words in all rotations, "WORD is WORD is ... again", that ask for the first word."""
    words = ("apple", "bread", "chair", "table", "water", "house")
    rows = [{f"value{i}": words[(i + k) % 6] for i in range(1, 7)} for k in range(6)]
    text = before + " is ".join(f"{{value{i}}}" for i in range(1, 7)) + "\nagain"
    return Trial(lookups(template(text, rows, list_tokenizer()), query=1), target=4, third=6, bystanders=(5, 6))


@pytest.mark.parametrize(("before", "status"), [("", Status.INDETERMINATE), ("A ", Status.ABSENT)])
def test_a_token_that_carries_the_answer_is_not_called_a_sink(before: str, status: Status) -> None:
    """The answer is the first token, or the second. All attention goes to it, and removing that loses the answer."""
    trial = words_in_turn(before)
    measured = measure_binding(copier(trial, trial.lookups.values[1]), [trial] * 3)
    assert trial.lookups.values[1] == len(before.split())
    assert measured.left_out["position"] == "the first item has none before it"
    found, reason = binding_verdict("copier", measured).sinks["first token"]
    assert found == status
    assert ("carry something" in reason) == (not before)
    # What its mean value loses too is not counted as the effect of a sink.
    assert measured.sinks["first token"].value.value < max(measured.carried["first token"].value, 0.1)


@pytest.mark.parametrize("sink", SINKS)
def test_a_sink_is_what_keeps_attention_from_a_wrong_answer(sink: str) -> None:
    """A layer attends to the candidate; without it, to the value of the target, which it copies."""
    trial = words_in_turn("A ")
    found, at = trial.lookups, sink_positions(trial, sink)[0]
    leak = (at, found.values[trial.target])
    measured = measure_binding(copier(trial, found.values[1], leak), [trial] * 3)
    verdict = binding_verdict("copier", measured)
    assert {name: status for name, (status, _) in verdict.sinks.items()} == {
        name: Status.PRESENT if name == sink else Status.ABSENT for name in SINKS
    }
    assert measured.sinks[sink].value.value > 0.3
    assert measured.sinks[sink].control.value == pytest.approx(0, abs=0.02)


def test_candidates_for_sinks_and_their_control_share_no_position() -> None:
    for task in ("list-letters", "list-bullets", "lookup-names"):
        for trial in trials_of(list_tokenizer(), task, 7, 16, seed=0):
            places = [sink_positions(trial, sink) for sink in SINKS] + [idle_positions(trial)]
            flat = [pos for positions in places for pos in positions]
            assert len(set(flat)) == len(flat)
            assert trial.lookups.prompts.n_pos - 1 not in flat
            assert not set(idle_positions(trial)) & {trial.lookups.values[i] for i in (trial.query, trial.target)}


RULE = [  # value and control, each with an interval of +- 0.02
    (0.50, 0.00, Status.PRESENT),
    (0.50, 0.30, Status.PRESENT),
    (0.50, 0.45, Status.INDETERMINATE),  # no more than the control
    (0.11, 0.00, Status.INDETERMINATE),  # the interval reaches into the margin
    (0.05, 0.05, Status.ABSENT),
    (0.05, 0.30, Status.INDETERMINATE),  # the control is not within the margin
    (-0.50, 0.00, Status.INDETERMINATE),
]


@pytest.mark.parametrize(("value", "control", "status"), RULE)
def test_addresses_and_sinks_have_the_same_rule(value: float, control: float, status: Status) -> None:
    def around(x: float) -> Interval:
        return Interval(x, x - 0.02, x + 0.02)

    share = Share(around(value), around(control), around(value - control))
    arms = ("label at list", "order, value", "position")
    found = Binding(
        "list-letters", 6, 128, 64, 0, around(0.97), 0.95, dict.fromkeys(arms, share), {"first token": share},
        carried={"first token": around(0.0)}, left_out={"line breaks": "the prompts have none"},
    )  # fmt: skip
    verdict = binding_verdict("made up", found)
    assert {s for s, _ in verdict.addresses.values()} == {verdict.sinks["first token"][0]} == {status}
    assert verdict.sinks["line breaks"] == (Status.NOT_APPLICABLE, "the prompts have none")
    assert verdict.to_json()["sinks"]["first token"]["status"] == status.value
    assert verdict.to_json()["sinks"]["line breaks"]["status"] == "NOT APPLICABLE"


@pytest.mark.parametrize("items", [6, 7, 8, 12, 20])
def test_queries_and_targets_are_spread_over_the_list(items: int) -> None:
    trials = trials_of(list_tokenizer(), "list-bullets", items, 18, seed=0)
    *trials, deep = trials
    assert (deep.query, deep.target, deep.only_deep, len(deep.lookups.prompts)) == (
        items // 2,
        items // 2 * 2,
        True,
        18,
    )
    queries, chosen = [t.query for t in trials], [(t.query, t.target) for t in trials]
    assert not any(t.only_deep for t in trials)
    assert (queries[0], queries[-1], len(set(chosen))) == (2, items - 2, 4)
    assert max(b - a for a, b in pairwise(queries)) <= -(-(items - 4) // 3)
    assert {t.target - t.query for t in trials} > {2}
    assert [len(t.lookups.prompts) for t in trials] == [5, 5, 4, 4]


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 items"):
        combinations_of(5)
    with pytest.raises(ValueError, match="cannot be judged"):
        trials_of(list_tokenizer(), "sorting", 6, 16, seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 2}, "with query 2, target must be 4 or 5 or 6 or 7; got 2"),
        ({"target": 3}, "target must be 4"),
        ({"target": 9}, "target must be 4"),
        ({"third": 4}, "with query 2 and target 4, third must be 6 or 7; got 4"),
        ({"third": 5}, "third must be 6"),
        ({"bystanders": (4, 6)}, "bystanders must be 5 or 6 or 7; got 4"),
        ({"bystanders": (2, 6)}, "bystanders must be 5"),
        ({"bystanders": (5, 5)}, "two different items"),
    ],
)
def test_items_that_make_a_control_none_are_refused(change: dict[str, Any], message: str) -> None:
    own = trials_of(list_tokenizer(), "list-letters", 7, 16, seed=0)[0].lookups
    with pytest.raises(ValueError, match=message):
        Trial(own, **{"target": 4, "third": 6, "bystanders": (5, 6), **change})


def test_items_with_the_same_value_are_refused() -> None:
    own = labelled(4).lookups
    tokens = own.prompts.tokens.clone()
    tokens[2, own.values[5]] = tokens[2, own.values[3]]
    with pytest.raises(ValueError, match="row 2 has the same value for items 3 and 5; all values must differ"):
        Trial.of(replace(own, prompts=own.prompts.with_tokens(tokens)))


def test_items_with_the_same_label_are_refused() -> None:
    own = labelled(4).lookups
    tokens = own.prompts.tokens.clone()
    tokens[1, list(own.labels[6])] = tokens[1, list(own.labels[2])]
    with pytest.raises(ValueError, match="row 1 has the same label for items 2 and 6; all labels must differ"):
        Trial.of(replace(own, prompts=own.prompts.with_tokens(tokens)))


def test_a_template_without_any_address_is_not_called_unresolved() -> None:
    accuracy = Interval(0.97, 0.95, 0.99)
    found = binding_verdict("made up", Binding("template", 6, 128, 64, 0, accuracy, 0.95))
    assert found.label == "not applicable"
    assert {status for status, _ in found.addresses.values()} == {Status.NOT_APPLICABLE}


def test_trials_that_are_all_for_two_arms_are_refused() -> None:
    deep = trials_of(list_tokenizer(), "list-letters", 6, 16, seed=0)[-1]
    with pytest.raises(ValueError, match="all trials are only_deep"):
        measure_binding(random_model("gpt2").eval(), [deep])


def test_a_trial_of_ones_own_can_trade_the_halves_where_its_query_allows_it() -> None:
    own = trials_of(list_tokenizer(), "list-letters", 6, 16, seed=0)
    assert [Trial.of(trial.lookups).is_deep for trial in own] == [t.query == 3 for t in own]


def test_all_trials_of_a_list_pass_the_check() -> None:
    for items in (6, 7, 12):
        for trial in trials_of(list_tokenizer(), "list-letters", items, 16, seed=0):
            Trial(trial.lookups, trial.target, trial.third, trial.bystanders)
    assert [trial.only_deep for trial in trials_of(list_tokenizer(), "lookup-letters", 6, 16, seed=0)] == [False] * 4


def test_a_mean_that_is_the_value_itself_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token's value is the same in all prompts: of it only "renormalise" runs, with others as without it."""
    model = random_model("gpt2").eval()
    trial = trials_of(list_tokenizer(), "list-letters", 6, 16, seed=0)[1]
    assert sinks._sources(trial.lookups.prompts, [0], "mean") == ()
    assert sinks._sources(trial.lookups.prompts, [0], "renormalise") == [0]
    breaks = sinks.sink_positions(trial, "line breaks")
    assert sinks._sources(trial.lookups.prompts, breaks, "mean") == breaks  # one is before the list, others in it
    assert sinks._sources(trial.lookups.prompts, [0, *breaks], "mean") == breaks
    measured, entries = sinks.knock_out_for, []

    def counted(model: AnyModel, base: Prompts, given: dict, metrics: list) -> list:
        entries.append(len(given))
        return measured(model, base, given, metrics)

    monkeypatch.setattr(sinks, "knock_out_for", counted)
    ours = sink_effects(model, trial, *leads_over(trial), {})
    # Of 20, 18 are different, as two candidates have the same control; the mean of four sets with the first token is
    # that of the rest, and its own is not run.
    assert entries == [14]
    monkeypatch.setattr(sinks, "_sources", lambda base, positions, mode: positions)
    whole = sink_effects(model, trial, *leads_over(trial), {})
    assert entries == [14, 18]
    assert list(whole) == list(ours)
    assert {*SINKS, TOGETHER, "line breaks + other tokens"} < {*ours}
    for name, values in whole.items():
        torch.testing.assert_close(ours[name], values, rtol=1e-4, atol=1e-5)


def test_sinks_are_not_measured_on_deep_trials() -> None:
    trials = trials_of(list_tokenizer(), "list-letters", 6, 16, seed=0)
    assert [trial.only_deep for trial in trials] == [False] * 4 + [True]
    pieces = pieces_of(trials, {"arms": {}, "candidates": {}}, MORE)
    assert [(piece.kind, piece.number) for piece in pieces] == [
        *((kind, number) for number in range(4) for kind in ("arms", "candidates")),
        ("arms", 4),
    ]
    assert [bool(piece.title) for piece in pieces] == [True, False] * 4 + [True]
    # About half of the arms are measured on deep trials, whose prompts are as many as all others.
    usual, *_, deep = (piece.tokens(trials, trials) / PASSES["arms"] for piece in pieces)
    assert (usual, deep) == (trials[0].lookups.prompts.tokens.numel(), trials[4].lookups.prompts.tokens.numel() // 2)


def test_what_the_first_arms_leave_open_is_measured() -> None:
    planted = plant_list(ListPlan("own label", "gpt2", "list-letters", 6, 1.0))
    found = measure_binding(planted.model, trials_of(planted.tokenizer, "list-letters", 6, 32, seed=0), prompts=32)
    assert {*LATER} <= {*found.shares}  # order and position do nothing alone
    assert NEXT["position"] in found.added
    assert NEXT["own label"] not in found.added  # the label is found
