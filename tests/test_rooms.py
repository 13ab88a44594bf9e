"""Who may import whom (docs/architecture.md), read off the source of every module."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("tugofwar", "unimed_model", "analyses", "figures")
HEAVY = ("torch", "transformers", "matplotlib", "sklearn", "seaborn", "pandas", "scipy", "pyarrow")

ALLOWED = {
    "tugofwar": set(),
    "unimed_model": set(),
    "analyses": {"tugofwar", "unimed_model"},
    "figures": set(),
}
"""What a room may import of the others. Only the command-line files sit on top of all of them."""
ON_TOP = {
    name: set(ROOMS)
    for name in ("tugofwar/cli.py", "unimed_model/cli.py", "unimed_model/cli_data.py", "unimed_model/cli_eval.py")
} | {"unimed_model/probe_callback.py": {"tugofwar"}, "unimed_model/presets/distributed/__main__.py": set(ROOMS)}


def modules(room):
    return sorted((ROOT / room).rglob("*.py"))


def imported(path):
    """Top-level package names that a file imports, anywhere in it, type-checking blocks included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_every_room_has_modules_to_look_at():
    assert all(len(modules(room)) > 1 for room in ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room):
    for path in modules(room):
        name = path.relative_to(ROOT).as_posix()
        others = imported(path) & (set(ROOMS) - {room})
        allowed = set(ROOMS) if path.parent == ROOT / "tugofwar" / "commands" else ON_TOP.get(name, ALLOWED[room])
        assert others <= allowed, f"{name} imports {sorted(others)}"


def test_figures_know_tables_only():
    for path in modules("figures"):
        assert not imported(path) & {"torch", "transformers", "peft"}, path


def test_the_instrument_knows_no_transformers():
    for path in modules("tugofwar"):
        if path.name != "callback.py":
            assert not imported(path) & {"transformers", "peft"}, path


@pytest.mark.parametrize(
    "module",
    [
        "tugofwar",
        "tugofwar.cli",
        "unimed_model",
        "unimed_model.cli",
        "unimed_model.cli_data",
        "unimed_model.cli_eval",
        "unimed_model.settings",
        "unimed_model.data",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_the_check_itself_sees_a_forbidden_import(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from unimed_model.data import Sample\n    import tugofwar.metrics as m\n")
    assert imported(path) == {"unimed_model", "tugofwar"}
