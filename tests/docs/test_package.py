"""The package as a whole: what importing it costs and offers, and what the repository may hold."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bmi_components

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "bmi_components"
MODULES = sorted(PACKAGE.rglob("*.py"))
LARGEST_FILE = 3 * 2**20


def tracked_files() -> list[Path]:
    """Return the files under version control (what a clone holds)."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: nothing is tracked")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := REPOSITORY / name).is_file()]


def imports_of(module: Path) -> set[str]:
    """Return the modules that a source file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, check=True)
    return set(json.loads(done.stdout))


# Importing --------------------------------------------------------------------------------------------------


def test_importing_the_package_loads_no_framework() -> None:
    heavy = {"torch", "jax", "matplotlib", "xarray", "pandas", "cf_units"}
    assert not loaded_by("import bmi_components") & heavy


def test_asking_for_help_loads_no_framework() -> None:
    asked = "import bmi_components.cli as c, contextlib, io\n"
    asked += "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
    asked += "    c.main(['--help'])"
    assert not loaded_by(asked) & {"torch", "jax"}


def test_public_names_resolve_and_are_documented() -> None:
    for name in bmi_components.__all__:
        assert getattr(bmi_components, name).__doc__, name
        assert name in dir(bmi_components)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'DeltaHVB'"):
        _ = bmi_components.DeltaHVB


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_imports_and_says_what_it_is(module: Path) -> None:
    parts = module.relative_to(REPOSITORY).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if parts[-1] != "__main__":
        assert importlib.import_module(name).__doc__, name


def test_every_room_is_a_package() -> None:
    assert all((module.parent / "__init__.py").is_file() for module in MODULES)


def test_versions_agree() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert bmi_components.__version__ == project["version"]


# Who may import whom (ARCHITECTURE, section 2) --------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_executes_what_it_reads_or_needs_what_frameworks_pin(module: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(module)}
    assert not roots & {"dill", "joblib", "cloudpickle", "pydantic", "pandas"}
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pickle":
            # The one reader that names nothing but inert records, see tests/importers.
            allowed = {"UnpicklingError"} | (
                {"Unpickler"} if module.name == "restricted_pickle.py" else set()
            )
            assert node.attr in allowed, f"line {node.lineno}: pickle may be refused, never read"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only")
            assert safe == "True", f"line {node.lineno}: torch.load without weights_only=True"


SCIENCE = {
    "hbv": {"model", "networks", "parameters", "physics", "routing", "series"},
    "lstm": {"cells", "streamflow", "stepping"},
}
"""The modules that are pure models: the rest of their rooms binds them to configuration and BMI."""


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_do_not_point_up(module: Path) -> None:
    room = module.relative_to(PACKAGE).parts[0]
    imported = imports_of(module)
    ours = {name.split(".")[1] for name in imported if name.startswith("bmi_components.")}
    if room != "cli":
        assert "cli" not in ours, "only the command line imports the command line"
    if room == "kernels" or module.stem in SCIENCE.get(room, set()):
        assert not ours & {"component", "config", "snapshot", "buffers", "testing", "training", "forcing"}
    if room in {"kernels", *SCIENCE}:
        assert "jax" not in {name.split(".")[0] for name in imported}, "a torch family does not import jax"


# The repository ---------------------------------------------------------------------------------------------


def test_tracked_files_are_small() -> None:
    large = {str(p.relative_to(REPOSITORY)): p.stat().st_size for p in tracked_files()}
    assert not {name: size for name, size in large.items() if size > LARGEST_FILE}


def test_tracked_files_name_no_machine() -> None:
    folders = rb"work/(?:main|shared)|tmp/\w|root/\w|home/(?!user\b|you\b)\w+/|Users/\w"
    somewhere = re.compile(rb"(?<![\w./}])/(?:" + folders + rb")")
    found = {}
    for path in tracked_files():
        if path != Path(__file__).resolve() and (match := somewhere.search(path.read_bytes())):
            found[str(path.relative_to(REPOSITORY))] = match.group()
    assert not found


def test_the_licence_is_bsd_3_clause() -> None:
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Redistribution and use in source and binary forms" in text
    assert "Neither the name of the copyright holder" in text
    assert "advertising materials" not in text
