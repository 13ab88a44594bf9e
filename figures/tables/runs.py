"""Runs as pictures know them: what has been measured of each, under a name that tells it apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.errors import UserError
from figures.tables.ablation import AblationTables, read_ablation
from figures.tables.difference import DifferenceTables, read_difference
from figures.tables.dynamics import DynamicsTables, read_dynamics
from figures.tables.features import FeatureTables, read_features
from figures.tables.gradients import GradientTables, check_comparable, find_gradients, read_gradients
from figures.tables.reading import read_object
from figures.tables.routing import RoutingTables, read_routing


@dataclass(frozen=True, eq=False)
class Run:
    """One run; what was not measured is None.

    ``about``: the run's own ``run.json``, empty where there is none.
    """

    name: str
    folder: Path
    gradients: GradientTables | None
    routing: RoutingTables | None
    features: FeatureTables | None
    dynamics: DynamicsTables | None
    about: dict[str, Any]

    @property
    def tasks(self) -> dict[str, str]:
        """Task of each dataset, from whatever was measured."""
        known: dict[str, str] = {}
        for part in (self.gradients, self.routing, self.features, self.dynamics):
            known |= part.tasks if part is not None else {}
        return known


@dataclass(frozen=True, eq=False)
class Material:
    """Everything that there is to draw."""

    runs: tuple[Run, ...]
    differences: tuple[DifferenceTables, ...]
    ablations: tuple[AblationTables, ...]

    @property
    def measured(self) -> list[GradientTables]:
        """Gradients of all runs that have them."""
        return [run.gradients for run in self.runs if run.gradients is not None]


def read_material(paths: Sequence[Path]) -> Material:
    """Read what was measured of runs, what differs between them, and tables of ablations.

    Args:
        paths: run folders, folders that a command's ``--out`` named, and CSV tables of ``analyses.ablation``.

    Raises:
        UserError: nothing named, a path that does not exist, two runs of one name, a run of which nothing was
            measured, damaged tables, or gradients that cannot be compared.
    """
    tables = [path for path in paths if path.suffix == ".csv"]
    folders = [path for path in paths if path.suffix != ".csv"]
    if not paths:
        raise UserError("There are no runs to draw; name at least one run folder.")
    for path in folders:
        if not path.is_dir():
            raise UserError(f"There is no run folder {path}.")
    names = run_names(folders)
    runs = tuple(_read_run(path, name) for path, name in zip(folders, names, strict=True))
    material = Material(runs, tuple(_differences(runs)), tuple(read_ablation(path) for path in tables))
    if material.measured:
        check_comparable(material.measured)
    return material


def run_names(folders: Sequence[Path]) -> list[str]:
    """Last part of each path that tells the runs apart, without the folder ``gradients``.

    Raises:
        UserError: two that cannot be told apart.
    """
    paths = [_without_question(folder.resolve()) for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}_{path.name}" for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"Two runs have the name {name}; rename one, or name each run once.")
    return names


def _without_question(folder: Path) -> Path:
    """``runs/cmoe`` for ``runs/cmoe/gradients``, ``runs/cmoe_adam`` for ``runs/cmoe/gradients/adam``."""
    if folder.parent.name == "gradients":
        return folder.parent.parent.with_name(f"{folder.parent.parent.name}_{folder.name}")
    return folder.parent if folder.name in ("gradients", "routing", "features", "dynamics") else folder


def _read_run(folder: Path, name: str) -> Run:
    gradients = find_gradients(folder)
    parts = {
        "routing": _folder_of(folder, "routing", "weights.csv"),
        "features": _folder_of(folder, "features", "samples.csv"),
        "dynamics": _folder_of(folder, "dynamics", "loss.csv"),
    }
    if gradients is None and not any(parts.values()):
        raise UserError(
            f"{folder} has no measured gradients, and nothing else was measured either; begin with `tugofwar gradients "
            f"--ckpt {folder} --data ROOT`, or for a model of your own with `tugofwar gradients --setup "
            f"FILE.py:FUNCTION --out {folder / 'gradients'}`."
        )
    about = folder / "run.json"
    return Run(
        name=name,
        folder=folder,
        gradients=read_gradients(gradients, name) if gradients else None,
        routing=read_routing(parts["routing"]) if parts["routing"] else None,
        features=read_features(parts["features"]) if parts["features"] else None,
        dynamics=read_dynamics(parts["dynamics"]) if parts["dynamics"] else None,
        about=read_object(about, "unimed-train") if about.is_file() else {},
    )


def _folder_of(run: Path, question: str, file: str) -> Path | None:
    """Where a question's tables are: in the run's folder of that name, or in the named folder itself."""
    for folder in (run / question, run):
        if (folder / file).is_file() and (folder / "manifest.json").is_file():
            return folder
    return None


def _differences(runs: Sequence[Run]) -> list[DifferenceTables]:
    """Those between the named runs, in their order."""
    found = []
    for b in runs:
        for a in runs:
            folder = b.folder / "difference" / a.name
            if (folder / "manifest.json").is_file():
                found.append(read_difference(folder, a.name, b.name))
    return found
