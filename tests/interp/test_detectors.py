"""Head scores against TransformerLens's `detect_head`, and against planted patterns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp import detect_heads, load, views
from interp.detectors import KINDS, detection_pattern
from interp.views.results import view_of

TEXTS = ["1 a 2 b 1 a 2", "b b a b", "3 a 3 a 3 a"]


@pytest.mark.parametrize("family", ["rotary", "absolute"])
def test_scores_are_those_of_transformer_lens(saved_families, family):
    from transformer_lens.head_detector import HEAD_NAMES, detect_head

    run = load(saved_families / family)
    bridge: Any = run.model
    for bos, current in ((False, False), (True, False), (False, True), (True, True)):
        for measure in ("mul", "abs"):
            ours = detect_heads(run, TEXTS, measure=measure, exclude_bos=bos, exclude_current_token=current)
            for name in HEAD_NAMES:
                theirs = detect_head(
                    bridge,
                    TEXTS,
                    name,
                    exclude_bos=bos,
                    exclude_current_token=current,
                    error_measure=measure,
                )
                # Their "abs" is rounded to three digits per text.
                tolerance = 1e-5 if measure == "mul" else 5.1e-4
                assert (ours.by_kind[name.removesuffix("_head")] - theirs).abs().max() <= tolerance
    assert ours.n == 3
    assert ours.values.std() > 1e-4


def test_patterns_by_hand():
    tokens = torch.tensor([[7, 8, 7, 8, 8]])
    assert detection_pattern(tokens, "duplicate_token")[0].nonzero().tolist() == [[2, 0], [3, 1], [4, 1], [4, 3]]
    assert detection_pattern(tokens, "induction")[0].nonzero().tolist() == [[2, 1], [3, 2], [4, 2], [4, 4]]
    assert detection_pattern(tokens, "previous_token")[0].nonzero().tolist() == [[1, 0], [2, 1], [3, 2], [4, 3]]
    assert detection_pattern(tokens, "first_token")[0].nonzero().tolist() == [[i, 0] for i in range(5)]


def test_patterns_of_your_own_views_and_tables(saved_families):
    run = load(saved_families / "rotary")
    own = torch.eye(4)
    n = run.tokenizer(TEXTS[1], return_tensors="pt").input_ids.shape[1]
    scores = detect_heads(
        run, TEXTS[1], {"itself": torch.eye(n), "sink": detection_pattern(torch.zeros(1, n), "first_token")[0]}
    )
    sink = detect_heads(run, TEXTS[1], "first_token")
    assert torch.equal(detect_heads(run, TEXTS[1], ["first_token_head"]).values, sink.values)
    assert torch.allclose(scores.by_kind["sink"], sink.by_kind["first_token"])
    assert list(scores.to_dataframe().columns) == ["layer", "head", "itself", "sink"]
    assert scores.top("sink", 1)[0][1] == pytest.approx(float(scores.by_kind["sink"].max()))
    assert "\n" not in repr(scores)
    assert views.heads(scores).alt == view_of(scores).alt  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="a detection pattern is lower-triangular"):
        detect_heads(run, TEXTS[1], {"wrong": own.flip(0)})
    with pytest.raises(ValueError, match=f"unknown kind 'sink'; kinds are {', '.join(KINDS)}"):
        detect_heads(run, TEXTS, "sink")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="give prompts of three or more"):
        detect_heads(run, torch.tensor([[1, 2]]), exclude_bos=True, exclude_current_token=True)
    with pytest.raises(ValueError, match="measure must be"):
        detect_heads(run, TEXTS, measure="dot")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="no scores of 'induction'"):
        scores.top("induction")
