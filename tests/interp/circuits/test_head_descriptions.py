"""A name follows from numbers by the rule, and from nothing else."""

import json
import math
from typing import Any

import pytest
import torch

from interp.circuits.attention_stats import GENERAL, SPECIFIC, STATISTICS
from interp.circuits.head_descriptions import HeadDescriptions
from interp.circuits.heads import describe_heads
from interp.tasks import Role, sample
from tests.interp.circuits.test_heads import LABEL, described, planted, prompts, writer
from tests.interp.patching.models import tiny


def test_labels_that_repeat_show_no_matching():
    """Where every label is the same, half of the prompt follows an earlier occurrence: that is no induction."""
    found = describe_heads(tiny("alibi"), sample("parity-constant", 2, 6, seed=0))
    sharp = torch.zeros_like(found.mean)
    sharp[..., STATISTICS.index("induction")] = 1
    changed = HeadDescriptions(**{**vars(found), "mean": sharp, "error": torch.zeros_like(sharp)})
    assert changed.above_chance(0, 0, LABEL, "induction") == 1
    assert changed.does(0, 0, LABEL) is None
    aligned = describe_heads(tiny("alibi"), sample("parity-aligned", 2, 6, seed=0))
    changed = HeadDescriptions(**{**vars(aligned), "mean": sharp, "error": torch.zeros_like(sharp)})
    assert changed.does(0, 0, LABEL) == "induction"


def test_names_need_mass_above_chance_and_above_error():
    found = described("A1")
    head = writer("A1", "gpt2", "retrieved")
    assert found.does(*head, LABEL)
    unsure = HeadDescriptions(**{**vars(found), "error": torch.full_like(found.error, 0.4)})
    assert unsure.does(*head, LABEL) is None
    for way, expected in ((0.3, None), (0.35, "bit after the same label")):  # NAMED is a third of the way
        mean = found.chance + way * (1 - found.chance)
        middling = HeadDescriptions(**{**vars(found), "mean": mean.expand_as(found.mean), "error": 0 * found.error})
        assert middling.does(*head, LABEL) == expected


def test_tables_and_json():
    found = described("A1")
    table: Any = found.to_dataframe()
    assert len(table) == found.n_layers * found.n_heads * len(found.places) * len(STATISTICS)
    layer, head = writer("A1", "gpt2", "retrieved")
    row = table[(table.layer == layer) & (table["head"] == head) & (table.role == "output label")]
    assert float(row[row.statistic == "after_matching_label"]["mean"].iloc[0]) == found.value(
        layer, head, LABEL, "after_matching_label"
    )
    text = json.dumps(found.to_json(), allow_nan=False)
    heads = {(h["layer"], h["head"]): h["name"] for h in json.loads(text)["heads"]}
    assert heads == found.names()


def test_mistakes_name_the_choices():
    found = described("A1")
    with pytest.raises(ValueError, match="layers are 0 to 1"):
        found.name(2, 0)
    with pytest.raises(ValueError, match="no answer in these prompts; there are start"):
        found.value(0, 0, Role.ANSWER, "itself")
    with pytest.raises(ValueError, match="statistics are after_matching_label"):
        found.value(0, 0, LABEL, "duplicate_token")
    with pytest.raises(ValueError, match="not a mass of attention"):
        found.above_chance(0, 0, LABEL, "copying")
    with pytest.raises(ValueError, match="no prompts"):
        describe_heads(planted("A1").model, prompts("A1").rows(slice(0, 0)))
    assert math.isnan(found.above_chance(0, 0, Role.START, "first_token"))
    assert set(SPECIFIC) | set(GENERAL) < set(STATISTICS)
