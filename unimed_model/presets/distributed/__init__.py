r"""Configurations of ``accelerate launch`` that ship with the package.

    accelerate launch --config_file "$(python -m unimed_model.presets.distributed ddp)" --num_processes 8 \
        "$(command -v unimed-train)" --preset paper --data ROOT --out RUN
"""

from importlib.resources import files
from pathlib import Path

from unimed_model.closed import nearest
from unimed_model.errors import UserError


def config_names() -> list[str]:
    """Return the names of the configurations."""
    return sorted(Path(entry.name).stem for entry in files(__package__).iterdir() if entry.name.endswith(".yaml"))


def config_path(name: str) -> Path:
    """Return the file of a configuration.

    Raises:
        UserError: there is none of this name; the nearest is named.
    """
    names = config_names()
    if name not in names:
        raise UserError(
            f"There is no distributed configuration {name!r}; the nearest is {nearest(name, names)!r} (all: "
            f"{', '.join(names)})."
        )
    return Path(str(files(__package__).joinpath(f"{name}.yaml")))
