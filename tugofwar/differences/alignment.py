"""Two recordings brought to the same rows, so that one can be held against the other."""

from dataclasses import dataclass, replace

import numpy as np

from tugofwar.errors import UserError
from tugofwar.estimation import idle_datasets
from tugofwar.recording import Recording, upper_triangle


@dataclass(frozen=True, eq=False)
class Aligned:
    """Two recordings with the same datasets in the same rows.

    Attributes:
        a: the first, without what the other lacks.
        b: the second, its rows in the order of the first.
        only_a: datasets that have a gradient in the first alone; left out.
        only_b: those of the second alone.
    """

    a: Recording
    b: Recording
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def align(a: Recording, b: Recording) -> Aligned:
    """Both recordings on the datasets that have a gradient in both, summed over their blocks.

    Raises:
        UserError: no dataset in common, or on those in common other numbers of batches, another batch size or other
            tasks: measures of runs compare only when they were probed alike.
    """
    touching_a, touching_b = _touching(a), _touching(b)
    common = [name for name in touching_a if name in touching_b]
    if not common:
        raise UserError(
            f"The recordings have no dataset in common: {', '.join(touching_a) or 'none'} and "
            f"{', '.join(touching_b) or 'none'}; record both on the same datasets."
        )
    _check_alike("batch size", a.metadata.get("batch_size"), b.metadata.get("batch_size"))
    for name in common:
        _check_alike(f"numbers of batches of dataset {name!r}", len(touching_a[name]), len(touching_b[name]))
        _check_alike(f"tasks of dataset {name!r}", a.tasks.get(name), b.tasks.get(name))
    return Aligned(
        _restricted(a, common),
        _restricted(b, common),
        tuple(name for name in touching_a if name not in touching_b),
        tuple(name for name in touching_b if name not in touching_a),
    )


def same_batches(a: Recording, b: Recording) -> bool:
    """Whether the recordings' metadata say that their batches are the same samples in the same order.

    Runs of Uni-Med: the same seed, batch size and way of drawing from as many samples of each dataset. Set-ups of
    one's own: the same function of the same file, by its digest, and the same seed. What else the metadata may
    say, or not, counts as different batches.

    Args:
        a: a recording.
        b: another with the same datasets, see ``align``.
    """
    one, other = a.metadata, b.metadata
    if "setup_sha256" in one:
        return all(key in other and one.get(key) == other[key] for key in ("setup_sha256", "setup", "seed"))
    drawn_alike = all(
        key in one and key in other and one[key] == other[key] for key in ("seed", "batch_size", "with_replacement")
    )
    samples = [[each.metadata.get("samples", {}).get(name) for name in a.rows] for each in (a, b)]
    missing = [[each.metadata.get("missing_images", {}).get(name) for name in a.rows] for each in (a, b)]
    return drawn_alike and None not in samples[0] and samples[0] == samples[1] and missing[0] == missing[1]


def _touching(recording: Recording) -> dict[str, list[int]]:
    idle = idle_datasets(recording, recording.gram)
    return {name: rows for name, rows in recording.rows.items() if name not in idle}


def _check_alike(what: str, one: object, other: object) -> None:
    if one != other:
        shown = ["unknown" if value is None else str(value) for value in (one, other)]
        raise UserError(
            f"The recordings cannot be compared, as they differ in {what} ({shown[0]} and {shown[1]}); record both "
            "alike."
        )


def _restricted(recording: Recording, names: list[str]) -> Recording:
    """The rows of some datasets, in this order, and all blocks as one."""
    rows = [row for name in names for row in recording.rows[name]]
    parameters = {name: size for block in recording.blocks for name, size in block.parameters.items()}
    block = replace(recording.blocks[0], name="all", parameters=parameters)
    return replace(
        recording,
        blocks=(block,),
        upper_triangles={"all": upper_triangle(recording.gram[np.ix_(rows, rows)])},
        datasets=[recording.datasets[row] for row in rows],
        losses=recording.losses[rows],
        tasks={name: task for name, task in recording.tasks.items() if name in names},
        geometries={},
        statistics=None,
        choices=(),
    )
