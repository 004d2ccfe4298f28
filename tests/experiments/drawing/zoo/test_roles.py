"""Roles by format: what is drawn, and what is said where nothing is."""

import numpy as np
import pytest

from tests.experiments.drawing.zoo.runs import rows_of, table, words, zoo


def finding(status: str, rho: float | None, reason: str = "because") -> dict:
    return {"status": status, "rho": rho, "ci": rho is not None and [rho - 0.05, rho + 0.05], "reason": reason}


def judged(replication: str = "models", **roles: dict) -> dict:
    found = {"anchor": finding("PRESENT", 0.9), "placeholder": finding("ABSENT", 0.01), "sink": finding("ABSENT", 0.0)}
    verdict = {"verdict": "anchor", "roles": found | roles, "replication": replication, "margins": {"rho": 0.1}}
    alone = {"a": "anchor", "b": "undecided", "c": "anchor"}
    return {"models": ["a", "b", "c"], "learned": 3, "of": 3, "alone": alone, "verdict": verdict}


VERDICTS = {
    "parity-scratchpad-alibi": {"models": ["s"], "learned": 1, "of": 1, "alone": {}, "verdict": None},
    "parity-aligned-alibi": judged(),
    "parity-constant-alibi": judged(anchor=finding("NOT APPLICABLE", None, "labels repeat")),
    "parity-aligned-absolute": {"models": ["x", "y"], "learned": 0, "of": 2, "alone": {}, "verdict": None},
    "parity-gap8-alibi": {"models": ["x", "y"], "learned": 1, "of": 2, "alone": {}, "verdict": None},
}
PLANTED = {role: {True: [0.9, 1.0], False: [0.0, 0.01, 0.02]} for role in ("anchor", "placeholder", "sink")}


class TestRoles:
    def test_rows_are_named_and_counted_in_the_order_of_formats(self):
        anchor = zoo.roles_by_format(VERDICTS, PLANTED).axes[0]
        assert [t.get_text().replace("\n", ": ") for t in anchor.get_yticklabels()] == [
            "planted, role present",
            "planted, role absent",
            "aligned, ALiBi: 3 of 3 learned: alone: 2 anchor, 1 undecided",
            "gap8, ALiBi: 1 of 2 learned",
            "constant, ALiBi: 3 of 3 learned: alone: 2 anchor, 1 undecided",
            "scratchpad, ALiBi: 1 of 1 learned",
            "aligned, absolute: 0 of 2 learned",
        ]

    def test_values_and_intervals_stand_in_their_row(self):
        anchor, placeholder, _ = zoo.roles_by_format(VERDICTS, PLANTED).axes
        points = [line.get_xydata().tolist() for line in anchor.lines if len(line.get_xdata()) == 1]
        assert points == [[[0.9, 2.15]]]
        (ends,) = [line.get_xdata() for line in anchor.lines if len(line.get_xdata()) == 2 and 0.85 in line.get_xdata()]
        assert list(ends) == pytest.approx([0.85, 0.95])
        assert [line.get_ydata()[0] for line in placeholder.lines if len(line.get_xdata()) == 1] == [2.15, 4.15]

    def test_planted_models_with_and_without_the_role_are_apart(self):
        for axis in zoo.roles_by_format(VERDICTS, PLANTED).axes:
            present, absent = ([path.vertices[0] for path in ticks.get_paths()] for ticks in axis.collections[:2])
            assert [x for x, _ in present] == PLANTED["anchor"][True]
            assert [x for x, _ in absent] == PLANTED["anchor"][False]
            assert present[0][1] < 0.5 < absent[0][1]

    def test_rows_without_a_verdict_say_why(self):
        anchor = [" ".join(t.get_text().split()) for t in zoo.roles_by_format(VERDICTS, {}).axes[0].texts]
        assert "not applicable: it has no labels" in anchor
        assert "not applicable: none of 2 learned" in anchor
        assert "not judged (1 of 2 learned)" in anchor
        assert "not applicable: labels repeat" in anchor
        assert "PRESENT 0.90 [0.85, 0.95]" in anchor

    def test_each_judged_model_is_a_circle_at_its_mean_over_lengths(self):
        frame = table(
            *(
                rows_of("aligned", metrics=(metric,), modes=("",), posed=posed)
                for metric in ("rho anchor", "rho sink", "step")
                for posed in ("", "parity-constant")
            )
        )
        frame["value"] = frame["length"] / 40 + (frame["metric"] != "rho anchor")
        frame.loc[frame["posed"] == "parity-constant", "value"] = -1.0
        frame["run"] = frame["run"].str[-1].map({"1": "a", "2": "b", "3": "not judged"})
        figure = zoo.roles_by_format({"parity-aligned-alibi": judged()}, PLANTED, frame)
        found = {
            axis.get_title(): [
                d for line in axis.lines if line.get_label() == "_each" for d in line.get_xydata().tolist()
            ]
            for axis in figure.axes
        }
        mean = (10 + 20 + 40) / 3 / 40
        assert np.array(found["anchor"]) == pytest.approx(np.array([(mean, 2.34)] * 2))
        assert np.array(found["sink"]) == pytest.approx(np.array([(1.25, 2.34)] * 2))  # at the edge
        assert not found["placeholder"]
        assert "open circles" in words(figure)
        with pytest.raises(ValueError, match=r"the table lacks posed$"):
            zoo.roles_by_format(VERDICTS, PLANTED, frame.drop(columns="posed"))

    def test_a_verdict_on_one_model_is_not_sold_as_one_over_models(self):
        over_models = words(zoo.roles_by_format({"parity-aligned-alibi": judged()}, {}))
        over_prompts = words(zoo.roles_by_format({"parity-aligned-alibi": judged("prompts")}, {}))
        assert "over prompts" not in over_models
        assert "over prompts where 1 was judged" in over_prompts
        assert "3 of 3 learned, 1 judged" in over_prompts

    @pytest.mark.parametrize(
        ("verdicts", "message"),
        [
            ({}, "there are no verdicts"),
            ({"parity-aligned-alibi": {"verdict": None}}, "parity-aligned-alibi lacks models, learned, of, alone"),
            ({"aligned": judged()}, "<task>-<format>-<family>; got aligned"),
            ({"parity-alined-alibi": judged()}, "unknown format"),
            ({"parity-aligned-alibi": judged() | {"verdict": {"roles": {"anchor": {}}}}}, "lacks placeholder, sink"),
        ],
    )
    def test_mistakes_are_named(self, verdicts, message):
        with pytest.raises(ValueError, match=message):
            zoo.roles_by_format(verdicts, PLANTED)
