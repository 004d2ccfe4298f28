"""Explanations of a report's tables."""

from experiments.reporting.explained import TERMS, terms_in
from probes.arms.registry import ARMS


def test_terms_are_explained_of_the_arms_that_a_table_has():
    text = terms_in({"evidence": [{"arm": "M4"}, {"arm": "M11"}, {"arm": "M11"}]})
    assert text == f"{TERMS['']} {TERMS['M11']}"
    every = terms_in({"evidence": [{"arm": code} for code in ARMS]})
    assert every == " ".join(TERMS.values())
    assert set(TERMS) <= {"", *ARMS}
