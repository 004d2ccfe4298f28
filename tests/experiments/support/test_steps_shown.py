"""The progress of a verdict on a list never counts more steps than its total."""

from types import SimpleNamespace

from experiments.support.binding_results import shown_on
from probes.binding.measuring import MORE


def test_the_bar_grows_once_where_a_status_is_open():
    done, said = [], []
    bar = SimpleNamespace(total=6, set_description=said.append, update=lambda: done.append(1))
    step = shown_on(bar, 5, "m: ")
    for name in ("accuracy", *(f"item {k}" for k in range(5))):
        step(name)
    assert (len(done), bar.total, said[0]) == (6, 6, "m: accuracy")
    for k in range(5):
        step(f"item {k}{MORE}")
    assert (len(done), bar.total) == (11, 11)
