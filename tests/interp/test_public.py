"""The public names of `interp` are imported when they are used, and nothing else is."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import interp
import probes
from interp import models, tasks

HEAVY = ("torch", "transformers", "transformer_lens", "numpy", "pandas", "experiments", "probes")


def imported_after(code: str) -> set[str]:
    """Heavy modules that a fresh interpreter has imported after running `code`."""
    program = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["interp", "interp.models.names", "interp.tasks.formats"])
def test_importing_interp_imports_no_library(module):
    assert imported_after(f"import {module}") == set()


@pytest.mark.slow
def test_a_public_submodule_is_imported_when_it_is_used():
    assert "torch" in imported_after("import interp\ninterp.das")


def test_the_limits_of_a_verdict_need_no_library():
    assert imported_after("import probes.limits") == {"probes"}


@pytest.mark.parametrize("package", [models, tasks, probes])
def test_the_names_of_a_lazy_package_are_those_of_its_modules(package):
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = [(a.name, n.module) for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names]
    assert {name for name, _ in seen} == set(package.__all__) <= set(dir(package))
    for name, module in seen:
        vars(package).pop(name, None)
        assert getattr(package, name) is getattr(import_module(str(module)), name)
        assert name in vars(package)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'pach'"):
        package.pach  # noqa: B018


@pytest.mark.slow
def test_whoever_reads_a_folder_knows_the_type_of_key_sinks():
    code = "from interp.models import read_json\nfrom transformers import AutoConfig"
    code += "\nAutoConfig.for_model('bloom_key_sink')"
    assert "torch" in imported_after(code)


@pytest.mark.slow
def test_using_a_name_imports_what_it_needs_and_no_transformer_lens():
    """The "before" half: a name that is used does import torch."""
    code = "from interp import load, patch, logit_diff, capture, prompts, template, views"
    assert imported_after(code) >= {"torch"}
    assert imported_after(code).isdisjoint({"transformer_lens", "experiments", "probes"})
    assert "torch" in imported_after("import interp\ninterp.prompts")


def test_every_public_name_is_that_of_its_module():
    for module, names in interp._NAMES.items():
        for name in names:
            assert getattr(interp, name) is getattr(import_module(module), name)
    for name in interp._MODULES:
        assert isinstance(getattr(interp, name), ModuleType)
    public = {name for names in interp._NAMES.values() for name in names}
    assert set(interp.__all__) == {*interp._MODULES, *public} <= set(dir(interp))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(interp.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(interp.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'interp' has no attribute 'pach'"):
        interp.pach  # noqa: B018
    with pytest.raises(ImportError):
        exec("from interp import pach")
