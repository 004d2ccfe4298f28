"""Options with a least value say it in their help, and refuse less in one line with the same number."""

from __future__ import annotations

import pytest

from experiments.cli import main
from experiments.support.options import field_docs
from experiments.verbs import command_class

RUN = "parity-aligned-alibi"


@pytest.mark.parametrize(
    ("argv", "field", "least"),
    [
        (("verdict", RUN, "--prompts"), "prompts", 24),
        (("verdict", RUN, "--task", "recall", "--prompts"), "prompts", 16),
        (("verdict", RUN, "--task", "recall", "--items"), "items", 6),
        (("verdict", RUN, "--lengths"), "lengths", 5),
        (("verdict", "addition-aligned-alibi-seed2", "--lengths"), "lengths", 6),
        (("report", RUN, "--task", "recall", "--items"), "items", 6),
        (("evaluate", RUN, "--prompts"), "prompts", 2),
        (("circuit", RUN, "--prompts"), "prompts", 2),
        (("sweep", "--dry-run", "--prompts"), "prompts", 24),
        (("calibrate", "--variants", "1", "--mechanisms", "A1", "--repetitions", "0", "--prompts"), "prompts", 24),
        (("calibrate", "--repetitions"), "repetitions", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_least_value_is_in_the_help_and_less_is_refused(argv, field, least, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = " ".join(field_docs(command_class(argv[0]))[field].split())
    assert f"at least {least}" in text
    assert main([*argv, str(least - 1)]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert f"at least {least}" in line
