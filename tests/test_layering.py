"""Imports go downwards only and have no cycles, and libraries are imported only where they may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Lowest first. A module imports from its own entry and from entries of lower tiers. The longest matching prefix decides
# which entry a module belongs to.
TIERS = (
    ("interp.support", "interp.sites"),
    ("interp.tasks",),
    # Views draw data and know no model, so that results can show themselves in a notebook.
    ("interp.views",),
    ("interp.models",),
    ("interp.arguments", "interp.pairs", "interp.places"),
    ("interp.changed",),
    ("interp.tail", "interp.forward", "interp.recording"),
    ("interp.capturing", "interp.reducers"),
    ("interp.patching",),
    ("interp.gradients", "interp.pair_runs", "interp.rowspace"),
    ("interp.editing_passes", "interp.joining"),
    ("interp.attribution", "interp.circuits", "interp.das", "interp.erasure"),
    (
        "interp.ablating",
        "interp.attribution_patching",
        "interp.detectors",
        "interp.dictionaries",
        "interp.hooking",
        "interp.patchscopes",
    ),
    ("interp.dictionary_files", "interp.feature_site", "interp.steering"),
    ("interp.features",),
    # Names that `interp` itself exports.
    ("interp",),
    ("probes",),
    ("probes.planted",),
    ("experiments",),
)
# Packages that import less than the tiers below them.
ONLY = {
    "interp.views": ("interp.views", "interp.support", "interp.tasks"),
    # Planted models test the verdict only if neither side knows the other.
    "probes.planted": ("probes.planted", "interp.forward", "interp.models", "interp.tasks"),
}
# The lazy public interface of interp, which imports everything under TYPE_CHECKING.
PUBLIC = "interp"
OURS = ("interp", "probes", "experiments")
# Only these may know how a model was planted: whoever judges must not.
KNOWS_PLANTED = ("probes.planted", "probes.calibration", "probes.list_calibration", "probes.error_rates", "experiments")


def modules() -> list[Path]:
    return sorted(p for package in OURS for p in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, typing: bool = True) -> set[str]:
    """Return every module that a file imports, also inside functions; `typing`: also under TYPE_CHECKING."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if not typing and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import hides what it imports"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def entry_of(module: str) -> tuple[int, str]:
    """Return the tier and the entry of a module."""
    entries = [(rank, entry) for rank, tier in enumerate(TIERS) for entry in tier if within(module, entry)]
    assert entries, f"{module} belongs to no tier: add it to TIERS"
    return max(entries, key=lambda pair: len(pair[1]))


def complaints(module: str, imported: set[str]) -> list[str]:
    """Return one line per import that goes upwards, sideways, or to planted models from code that judges."""
    if module == PUBLIC:
        return []
    rank, entry = entry_of(module)
    knows_planted = any(within(module, package) for package in KNOWS_PLANTED)
    problems = []
    for name in sorted(name for name in imported if any(within(name, ours) for ours in OURS)):
        other_rank, other = entry_of(name)
        downwards = other == entry or other_rank < rank
        allowed = entry not in ONLY or any(within(name, package) for package in ONLY[entry])
        if within(name, "probes.planted") and knows_planted:
            continue
        hidden = within(name, "probes.planted") and not within(module, "probes.planted")
        if not downwards or not allowed or hidden:
            problems.append(f"{module} must not import {name}")
    return problems


def import_graph() -> dict[str, set[str]]:
    """Return the modules of ours that each module imports when it runs, also inside functions."""
    known = {name_of(path) for path in modules()}
    graph = {}
    for path in modules():
        names = imports(path, typing=False)
        targets = {name if name in known else name.rpartition(".")[0] for name in names}
        graph[name_of(path)] = (targets & known) - {name_of(path)}
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, or an empty list."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph.get(module, ())):
            if cycle := visit(other, [*path, module]):
                return cycle
        done.add(module)
        return []

    return next((cycle for module in sorted(graph) if (cycle := visit(module, []))), [])


def test_every_module_of_interp_has_a_tier():
    assert [name for name in map(name_of, modules()) if entry_of(name)[1] == PUBLIC and name != PUBLIC] == []


def test_there_is_no_import_cycle():
    assert cycle_in(import_graph()) == []


def test_a_cycle_is_found():
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]
    assert cycle_in({"a": {"b"}, "b": set()}) == []


def test_imports_go_downwards_only():
    found = [c for path in modules() for c in complaints(name_of(path), imports(path))]
    assert not found


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("interp.tasks.batch", "probes.evidence"),
        ("interp.capturing", "interp.patching.engine"),
        ("interp.capturing", "interp.attribution"),
        ("probes.arms.m01_identity", "experiments.support.results"),
        ("interp.models.run", "interp.forward"),
        ("probes.planted.plan", "probes.decision"),
        ("probes.decision", "probes.planted.plan"),
    ],
)
def test_an_upward_import_is_found(module, imported):
    assert complaints(module, {imported})


def test_transformer_lens_enters_only_through_interp():
    users = {name_of(p) for p in modules() if any(within(i, "transformer_lens") for i in imports(p))}
    assert users
    compared = "experiments.benchmarks"  # where it is measured against
    assert all((within(u, "interp") and not within(u, "interp.tasks")) or within(u, compared) for u in users)


def test_probes_run_no_model_themselves():
    """A call such as `model(tokens)` in probes would bypass interp."""
    for path in (ROOT / "probes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("model", "bridge", "run"), f"{path}:{node.lineno}"


def test_only_experiments_prints():
    for package in ("interp", "probes"):
        for path in (ROOT / package).rglob("*.py"):
            calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


def test_modules_have_a_docstring_and_none_is_called_utils():
    for path in modules():
        assert path.stem != "utils"
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"


def test_no_public_function_has_its_modules_name():
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert path.stem not in names, path


@pytest.mark.parametrize(
    "code",
    [
        "import interp.tasks",
        "import probes, probes.calibration",
        "import experiments.training.loop",
        "import experiments; experiments.load",
    ],
)
def test_import_without_transformer_lens(code):
    check = f"import sys; {code}; sys.exit('transformer_lens' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_help_imports_no_torch():
    check = (
        "import sys\nfrom experiments.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for verb in ("train", "evaluate", "verdict"):
        assert verb in done.stdout
