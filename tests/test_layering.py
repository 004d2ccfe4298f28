"""The arrows of the design never point back, and libraries enter only where they may."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What a package may import of ours. The longest matching prefix decides.
ALLOWED = {
    "interp": (),
    "interp.tasks": ("interp.tasks",),
    "interp.support.budget": (),
    "interp.support.finite": (),
    "interp.support.locks": (),
    "interp.sites": (),
    "interp.places": ("interp.tasks",),
    "interp.arguments": ("interp.models", "interp.support.locks", "interp.tasks"),
    "interp.gradients": ("interp.arguments", "interp.patching", "interp.support.budget", "interp.tasks"),
    "interp.pairs": ("interp.tasks",),
    "interp.tail": ("interp.models", "interp.pairs"),
    "interp.support.sizes": (),
    "interp.models": (
        "interp.support.finite",
        "interp.models",
        "interp.support.sizes",
        "interp.tasks",
        "interp.support.writing",
        "interp.support.budget",
    ),
    "interp.forward": (
        "interp.support.finite",
        "interp.support.budget",
        "interp.tasks",
        "interp.models",
        "interp.support.locks",
    ),
    "interp.capturing": (
        "interp.support.finite",
        "interp.support.budget",
        "interp.models",
        "interp.tasks",
        "interp.forward",
        "interp.arguments",
        "interp.sites",
    ),
    "interp.attribution": (
        "interp.support.finite",
        "interp.support.budget",
        "interp.models",
        "interp.tasks",
        "interp.forward",
        "interp.arguments",
        "interp.gradients",
        "interp.patching",
    ),
    "interp.reducers": (
        "interp.tasks",
        "interp.sites",
    ),
    "interp.patching": (
        "interp.support.finite",
        "interp.support.budget",
        "interp.patching",
        "interp.models",
        "interp.tasks",
        "interp.forward",
        "interp.arguments",
        "interp.places",
        "interp.sites",
        "interp.support.locks",
        "interp.support.rounding",
    ),
    "interp.erasure": (
        "interp.support.finite",
        "interp.models",
        "interp.patching",
        "interp.tasks",
        "interp.arguments",
        "interp.places",
    ),
    "interp.das": (
        "interp.support.finite",
        "interp.models",
        "interp.patching",
        "interp.tasks",
        "interp.arguments",
        "interp.pairs",
        "interp.sites",
        "interp.support.locks",
        "interp.tail",
    ),
    "interp.rowspace": ("interp.models", "interp.tasks"),
    # A circuit is held to exact patches, measured by patching's metrics, and its heads are described by reducers.
    "interp.circuits": (
        "interp.arguments",
        "interp.support.finite",
        "interp.support.locks",
        "interp.support.budget",
        "interp.circuits",
        "interp.models",
        "interp.patching",
        "interp.reducers",
        "interp.tasks",
        "interp.places",
        "interp.sites",
        "interp.support.rounding",
        "interp.forward",
    ),
    "interp.views": ("interp.views", "interp.support.sizes", "interp.tasks", "interp.support.writing"),
    "probes": (
        "probes",
        "interp.support.finite",
        "interp.forward",
        "interp.tasks",
        "interp.models",
        "interp.capturing",
        "interp.reducers",
        "interp.circuits",
        "interp.attribution",
        "interp.patching",
        "interp.erasure",
        "interp.das",
        "interp.rowspace",
        "interp.arguments",
        "interp.places",
        "interp.sites",
        "interp.pairs",
        "interp.support.locks",
    ),
    "probes.views": ("probes.views", "interp.views"),
    # Planted models test the verdict only if neither side knows the other.
    "probes.planted": ("probes.planted", "interp.forward", "interp.tasks", "interp.models"),
    "experiments": ("experiments", "interp", "probes"),
}
OURS = ("interp", "probes", "experiments")
# Only these may know how a model was planted: whoever judges must not.
KNOWS_PLANTED = ("probes.planted", "probes.calibration", "probes.error_rates", "experiments")


def modules() -> list[Path]:
    return sorted(p for package in OURS for p in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions and under TYPE_CHECKING."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def complaints(module: str, imported: set[str]) -> list[str]:
    if module == "interp":  # its names are imported when they are used (tests/interp/test_public.py)
        return []
    rule = max((p for p in ALLOWED if within(module, p)), key=len)
    knows = any(within(module, p) for p in KNOWS_PLANTED)
    return [
        f"{module} must not import {name}"
        for name in sorted(imported)
        if any(within(name, ours) for ours in OURS)
        and (
            not any(within(name, allowed) for allowed in ALLOWED[rule])
            or (within(name, "probes.planted") and not knows)
        )
    ]


def test_arrows_never_point_back():
    found = [c for path in modules() for c in complaints(name_of(path), imports(path))]
    assert not found


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("interp.tasks.batch", "probes.evidence"),
        ("interp.patching.engine", "interp.capturing"),
        ("interp.capturing", "interp.attribution"),
        ("probes.arms.m01_identity", "experiments.support.results"),
        ("interp.models.run", "interp.forward"),
        ("probes.planted.plan", "probes.decision"),
        ("probes.decision", "probes.planted.plan"),
    ],
)
def test_a_backward_arrow_is_found(module, imported):
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


def test_modules_say_what_they_answer_and_none_is_called_utils():
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
