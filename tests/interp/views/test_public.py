"""The names of `interp.views`: there, right, and free until they are used."""

import doctest
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from interp import views


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    heavy = ("torch", "matplotlib", "numpy", "pandas")
    code = f"import sys; from interp import views; print([m for m in {heavy} if m in sys.modules])"
    assert run(code).strip() == "[]"


@pytest.mark.parametrize("name", views.__all__)
def test_every_name_is_there(name):
    if not find_spec(f"interp.views.{views.PUBLIC[name][0]}"):
        pytest.skip(f"interp.views.{views.PUBLIC[name][0]} is not here yet")
    assert callable(getattr(views, name))
    assert name in dir(views)
    assert sorted(views.__all__) == sorted(views.PUBLIC)


def test_a_name_means_the_function_whichever_module_was_imported_first():
    code = (
        "import interp.views.circuit, interp.views.circuit.svg\nfrom interp.views.circuit import draw_circuit\n"
        "from interp import views\nprint(views.circuit.__name__)\n"
        "from interp.views import circuit\nprint(circuit.__name__)"
    )
    assert run(code).split() == ["CircuitView", "CircuitView"]


@pytest.mark.parametrize("module", ["axes", "colours", "grid", "tables", "view"])
def test_examples_that_stand_alone_are_right(module):
    failed, tried = doctest.testmod(import_module(f"interp.views.{module}"))
    assert tried
    assert not failed


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'atention'"):
        _ = views.atention  # pyright: ignore[reportAttributeAccessIssue]
