"""The names of `probes.views`: they exist, and importing the package imports nothing heavy."""

import subprocess
import sys

import pytest

from probes import views


@pytest.mark.parametrize("name", views.__all__)
def test_every_name_exists(name):
    assert callable(getattr(views, name))
    assert name in dir(views)
    assert sorted(views.__all__) == sorted(views.PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'verdikt'"):
        _ = views.verdikt


@pytest.mark.slow
def test_matplotlib_is_not_imported_before_a_figure_is_drawn():
    code = "import sys; from probes.views import verdict; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
