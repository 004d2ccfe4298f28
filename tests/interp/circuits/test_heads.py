"""Every number is proved on a head whose job is known, and on one where it must be nothing."""

import copy
from functools import cache
from typing import Any

import pytest
import torch

from interp.circuits.attention_stats import STATISTICS, attention_statistics, rotate_labels
from interp.circuits.composing import (
    chance_composition,
    head_weights,
    last_norm,
    token_embeddings,
    unembedding_weights,
)
from interp.circuits.head_descriptions import HeadDescriptions
from interp.circuits.heads import _by_row, describe_heads
from interp.models import boot_bridge
from interp.models.anatomy import anatomy_of
from interp.tasks import Batch, Role, sample
from probes.planted import Plan, Planted, plant
from tests.interp.circuits.test_composing import noisy
from tests.interp.models.architecture_cases import build
from tests.interp.patching.models import tiny

LABEL = Role.OUTPUT_LABEL
LENGTH = 8
BOTH = ("gpt2", "gpt_neox")


@cache
def planted(mechanism: str, architecture: str = "gpt2") -> Planted:
    return plant(Plan(mechanism, architecture, longest=12))


@cache
def prompts(mechanism: str, architecture: str = "gpt2") -> Batch:
    return sample("parity-aligned", 4, LENGTH, 0, planted(mechanism, architecture).vocabulary)


@cache
def described(mechanism: str, architecture: str = "gpt2") -> HeadDescriptions:
    return describe_heads(planted(mechanism, architecture).model, prompts(mechanism, architecture))


def writers(mechanism: str, architecture: str, feature: str) -> list[tuple[int, int]]:
    """Heads that write a feature, by their output weights and where the feature lies."""
    made = planted(mechanism, architecture)
    out = head_weights(anatomy_of(made.model)).o
    along = torch.einsum("lhed,fd->lhef", out, made.directions[feature].double()).flatten(-2).norm(dim=-1)
    return [(x, h) for x, h in (along > 0.1 * along.max()).nonzero().tolist()]


def writer(mechanism: str, architecture: str, feature: str) -> tuple[int, int]:
    (found,) = writers(mechanism, architecture, feature)
    return found


def empty(mechanism: str, architecture: str) -> list[tuple[int, int]]:
    """Heads with no weights at all."""
    sizes = head_weights(anatomy_of(planted(mechanism, architecture).model)).o.flatten(-2).norm(dim=-1)
    looks = head_weights(anatomy_of(planted(mechanism, architecture).model)).q.flatten(-2).norm(dim=-1)
    return [(x, h) for x, h in ((sizes + looks) == 0).nonzero().tolist()]


# Planted heads


@pytest.mark.parametrize("architecture", BOTH)
def test_anchor_1_has_a_previous_token_head_and_one_that_reads_the_bit(architecture):
    found = described("A1", architecture)
    previous, match = (writer("A1", architecture, f) for f in ("previous label", "retrieved"))
    assert (previous[0], match[0]) == (0, 1)
    for role in (Role.INPUT, Role.INPUT_LABEL, Role.OUTPUT, LABEL):
        assert found.value(*previous, role, "previous_token") == pytest.approx(1, abs=0.01)
        assert found.value(*previous, role, "itself") == pytest.approx(0, abs=0.01)
    assert found.value(*previous, LABEL, "after_matching_label") == pytest.approx(0, abs=0.01)
    assert found.value(*match, LABEL, "after_matching_label") == pytest.approx(1, abs=0.01)
    for other in ("matching_label", "previous_token", "first_token", "separator", "itself", "labels"):
        assert found.value(*match, LABEL, other) == pytest.approx(0, abs=0.01)
    assert found.name(*previous) == "previous token"
    assert found.name(*match).endswith("bit after the same label at output label")


@pytest.mark.parametrize("architecture", BOTH)
def test_anchor_2_looks_at_the_matching_label_itself(architecture):
    found = described("A2", architecture)
    match, read = (writer("A2", architecture, f) for f in ("pointer", "retrieved"))
    assert found.value(*match, LABEL, "matching_label") == pytest.approx(1, abs=0.01)
    assert found.value(*match, LABEL, "after_matching_label") == pytest.approx(0, abs=0.01)
    assert found.does(*match, LABEL) == "the same label"
    assert found.value(*read, LABEL, "matching_label") == pytest.approx(0, abs=0.01)
    assert found.does(*read, LABEL) == "bit after the same label"


@pytest.mark.parametrize("architecture", BOTH)
def test_a_sink_rests_on_labels_and_writes_nothing(architecture):
    found = described("sink", architecture)
    sink, after = (writer("sink", architecture, f) for f in ("flood", "after"))
    assert found.value(*sink, LABEL, "labels") > 0.99
    assert found.value(*sink, LABEL, "output_share") < 1e-6 < found.value(*after, LABEL, "output_share")
    assert found.value(*sink, LABEL, "matching_label") < 0.5
    assert found.name(*sink) == "labels, silent"
    assert found.value(*after, LABEL, "separator") > 0.99
    assert found.value(*after, Role.INPUT, "first_token") > 0.9
    assert found.does(*after, LABEL) == "separator"
    assert "silent" not in found.name(*after)


@pytest.mark.parametrize("mechanism", ["A1", "A2", "sink"])
@pytest.mark.parametrize("architecture", BOTH)
def test_heads_without_weights_are_at_chance_and_get_no_name(mechanism, architecture):
    found, heads = described(mechanism, architecture), empty(mechanism, architecture)
    assert heads
    for layer, head in heads:
        assert torch.allclose(found.mean[layer, head, :, :-3], found.chance[:, :-3], atol=1e-5, equal_nan=True)
        assert (found.mean[layer, head, :, -3:] == 0).all()
        assert found.name(layer, head) == "all tokens alike, silent"
        assert found.ov_copying[layer, head].isnan()
        assert found.composition[:, layer, head].isnan().all()


@pytest.mark.parametrize("architecture", BOTH)
def test_turned_labels_tell_matching_from_counting(architecture):
    """In plain prompts both look at the same bit; a name says where a head looks and not how it found it."""
    where = {}
    for mechanism, feature in (("A1", "retrieved"), ("unused", "indexed")):
        head = writer(mechanism, architecture, feature)
        turned = describe_heads(planted(mechanism, architecture).model, rotate_labels(prompts(mechanism, architecture)))
        for kind, found in (("plain", described(mechanism, architecture)), ("turned", turned)):
            masses = [found.value(*head, LABEL, s) for s in ("after_matching_label", "due_input")]
            where[mechanism, kind] = [round(mass, 1) for mass in masses]
    assert where["A1", "plain"] == where["unused", "plain"] == [1, 1]
    assert where["A1", "turned"] == [1, 0]
    assert where["unused", "turned"] == [0, 1]


def test_a_head_that_writes_labels_copies():
    """The label writer moves a label to where logits of labels are read; the other heads' values never get there."""
    for architecture in BOTH:
        found = described("A1 written", architecture)
        copier, other = (writer("A1 written", architecture, f) for f in ("next label", "previous label"))
        assert float(found.ov_copying[copier]) == pytest.approx(1, abs=1e-3)
        assert found.value(*copier, Role.OUTPUT, "copying") > 10
        assert found.value(*copier, Role.OUTPUT, "copying_rate") > 0.8
        assert found.value(*copier, Role.OUTPUT, "due_label") > 0.8
        assert found.ov_copying[other].isnan()
        # Rounding of weights that do not meet is no score either.
        assert described("unused", architecture).ov_copying[writer("unused", architecture, "indexed")].isnan()
        assert found.value(*other, Role.OUTPUT, "copying") == pytest.approx(0, abs=1e-9)
        assert found.value(*other, Role.OUTPUT, "copying_rate") == 0


@pytest.mark.parametrize("architecture", BOTH)
def test_the_matching_head_reads_the_previous_token_head_through_its_keys(architecture):
    links: Any = described("A1", architecture).compositions()
    previous, match = (writer("A1", architecture, f) for f in ("previous label", "retrieved"))
    one = links[(links.layer == match[0]) & (links["head"] == match[1])]
    one = one[(one.writer_layer == previous[0]) & (one.writer_head == previous[1])].set_index("kind").above_chance
    chance = chance_composition(planted("A1", architecture).model.config.hidden_size)
    assert one["k"] > chance
    assert one["q"] == pytest.approx(-chance, abs=1e-6)
    assert one["v"] == pytest.approx(-chance, abs=1e-6)


@pytest.mark.parametrize("architecture", BOTH)
def test_the_reader_of_anchor_2_gets_its_pointer_through_its_queries(architecture):
    links = described("A2", architecture).compositions()
    top = links.loc[links.above_chance.idxmax()]
    assert (top.writer_layer, top.writer_head) == writer("A2", architecture, "pointer")
    assert (top.layer, top["head"], top.kind) == (*writer("A2", architecture, "retrieved"), "q")


# The result


def test_prompts_are_the_replicates_and_chunks_do_not_matter(monkeypatch):
    model, batch = planted("A1").model, prompts("A1")
    whole = described("A1")
    each = [describe_heads(model, batch.rows(slice(i, i + 1))) for i in range(len(batch))]
    values = torch.stack([one.mean for one in each])
    assert torch.allclose(values.mean(dim=0), whole.mean, atol=1e-6, equal_nan=True)
    assert torch.allclose(values.std(dim=0) / 2, whole.error, atol=1e-6, equal_nan=True)
    assert float(whole.error.nan_to_num().max()) > 0
    assert each[0].error.isnan().all()
    assert whole.n.max() == len(batch)
    assert whole.n[whole.places.index(LABEL.words), STATISTICS.index("previous_token")] == 4
    assert whole.n[whole.places.index("input"), STATISTICS.index("matching_label")] == 0
    monkeypatch.setattr("interp.circuits.heads.numbers", lambda share, device: 1)
    assert torch.equal(describe_heads(model, batch).mean.nan_to_num(), whole.mean.nan_to_num())


@pytest.mark.parametrize("architecture", ["grouped", "parallel", "alibi"])
def test_every_architecture_is_described(architecture):
    batch = sample("parity-aligned", 2, 3, seed=0)
    found = describe_heads(tiny(architecture), batch)
    assert found.mean.shape == (3, 4, 6, len(STATISTICS))
    with torch.no_grad():
        patterns = tiny(architecture)(batch.tokens, output_attentions=True).attentions
    expected = attention_statistics(patterns[2], batch)["previous_token"][:, 3, batch.at(LABEL)].mean()
    assert found.value(2, 3, LABEL, "previous_token") == pytest.approx(float(expected), abs=1e-5)


def test_copying_is_what_the_logits_of_the_head_alone_say():
    """One prompt, one head, one position at a time, on a model of grouped queries."""
    batch = sample("parity-aligned", 1, 3, seed=0)
    model = noisy("grouped")
    anatomy = anatomy_of(model)
    bridge = boot_bridge(noisy("grouped"))
    with torch.no_grad():
        _, cache = bridge.run_with_cache(batch.tokens)
        expected = []
        ids = torch.tensor(sorted({*batch.vocabulary.ids.values()}))
        for pos in batch.at(LABEL).tolist():
            out = cache["blocks.1.attn.hook_z"][0, pos, 2] @ bridge.blocks[1].attn.W_O[2]
            scale = cache["ln_final.hook_scale"][0, pos]
            logits = (out / scale * bridge.ln_final.weight @ bridge.W_U)[ids]
            source = int(cache["blocks.1.attn.hook_pattern"][0, 2, pos].argmax())
            expected.append(float(logits[ids == batch.tokens[0, source]] - logits.mean()))
    found = describe_heads(anatomy.raw, batch).value(1, 2, LABEL, "copying")
    assert found == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert abs(found) > 1e-3
    assert describe_heads(bridge, batch).value(1, 2, LABEL, "copying") == found


def test_answers_are_read_where_the_format_says():
    model = tiny("none")
    for fmt, role in (("scratchpad", Role.OUTPUT), ("direct", Role.SEPARATOR), ("aligned", LABEL)):
        batch = sample(f"parity-{fmt}", 2, 4, seed=0)
        assert describe_heads(model, batch).answered_at == role.words


def test_a_broken_pattern_is_refused():
    model: Any = copy.deepcopy(tiny("none"))
    anatomy = anatomy_of(model)
    model.get_input_embeddings().weight.data[:] = torch.nan
    batch = sample("parity-aligned", 2, 3, seed=0)
    unembedding = unembedding_weights(anatomy)[:400]
    with pytest.raises(ValueError, match="a pattern of layer 0 is NaN or infinite, first in prompt 7"):
        _by_row(anatomy, batch, torch.arange(400), unembedding, last_norm(anatomy), 7, STATISTICS)


def test_a_model_with_projected_embeddings_is_described():
    """OPT with embeddings narrower than the residual: copying is what the logits of a head alone say."""
    model, tokens = build("opt"), torch.randint(1, 60, (3, 9), generator=torch.Generator().manual_seed(0))
    found, anatomy = describe_heads(model, tokens), anatomy_of(build("opt"))
    weights = unembedding_weights(anatomy)
    with torch.no_grad():
        resid = torch.randn(4, 32, generator=torch.Generator().manual_seed(1))
        logits, norm = anatomy.unembed(resid).double(), last_norm(anatomy)
        own = (resid.double() / norm.scale(resid.double())) @ weights.T
    centred = logits - logits.mean(dim=-1, keepdim=True)
    rest = (centred - own).std(dim=0).max()  # the norm's shift is the same for every residual
    assert rest < 1e-5
    assert token_embeddings(anatomy).shape == (model.config.vocab_size, 32)
    assert torch.isfinite(found.ov_copying).all()
