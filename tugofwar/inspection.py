"""What ``tugofwar inspect`` says of a recording, as JSON values."""

from typing import Any

from tugofwar.errors import UserError
from tugofwar.estimation import interference
from tugofwar.metrics import ESTIMATORS
from tugofwar.recording import Recording


def inspection(recording: Recording) -> dict[str, Any]:
    """Datasets, blocks, how each part was kept and why, and the index by every estimator.

    Args:
        recording: what ``Recording.load`` returned.

    Returns:
        ``datasets``, ``untouched``, ``blocks``, ``choices``, ``geometries``, ``undefined`` (level to number of
        parameters without a statistics score; empty without statistics), ``index`` (estimator to index by dataset,
        or why there is none), ``metadata``.
    """
    statistics = recording.statistics
    return {
        "datasets": {
            name: {
                "task": recording.tasks.get(name),
                "batches": len(rows),
                "mean_loss": float(recording.losses[rows].mean()),
            }
            for name, rows in recording.rows.items()
        },
        "untouched": list(recording.untouched),
        "blocks": {block.name: dict(block.parameters) for block in recording.blocks},
        "choices": [choice.model_dump() for choice in recording.choices],
        "geometries": list(recording.geometries),
        "undefined": {level: statistics.undefined(level) for level in statistics.levels} if statistics else {},
        "index": {estimator: _index_or_reason(recording, estimator) for estimator in ESTIMATORS},
        "metadata": dict(recording.metadata),
    }


def _index_or_reason(recording: Recording, estimator: str) -> dict[str, float] | str:
    try:
        return {str(k): float(v) for k, v in interference(recording, estimator=estimator, resamples=0).index.items()}
    except UserError as reason:
        return str(reason)
