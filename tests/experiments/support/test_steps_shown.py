"""The progress of a verdict on a list never counts more steps than its total."""

from types import SimpleNamespace

from experiments.support.binding_results import shown_on
from probes.binding.measuring import MORE


def test_the_bar_grows_by_what_is_measured_and_once_where_a_status_is_open():
    """A report has three parts of its own, of which the verdict may be stored: then nothing else is counted."""
    done, said = [], []
    bar = SimpleNamespace(total=3, set_description=said.append, update=lambda: done.append(1))
    step = shown_on(bar, 5, "m: ")
    step("verdict")
    assert (len(done), bar.total, said[0]) == (1, 3, "m: verdict")
    for name in ("accuracy", *(f"item {k}" for k in range(5))):
        step(name)
    assert (len(done), bar.total, said[1]) == (7, 9, "m: accuracy")
    for k in range(5):
        step(f"item {k}{MORE}")
    assert (len(done), bar.total) == (12, 14)
