"""How many parameters are pulled one way, and how many both ways? (arXiv 2409.17508, section 3 and eq. 5)

Per level, ``dataset`` and ``task``:

* ``scores_<level>.csv``: ten rows, the share of all parameters in each interval of the statistics score, with
  its interval and two nulls (``null_signs``: signs independent between datasets or tasks; ``null_no_conflict``:
  all pull one way, at the same noise);
* ``scores_<level>_blocks.csv``: the same for every block in which a parameter has a score;
* ``scores_<level>_parameters.csv``: every block's ``parameters``, ``sampled`` ones behind intervals and nulls,
  and ``undefined`` ones, which no gradient reaches.

Every number is finite: what does not exist has no column.
"""

import pandas as pd

from tugofwar.statistics import Statistics


def score_tables(statistics: Statistics, confidence: float = 0.95) -> dict[str, pd.DataFrame]:
    """Tidy tables of the statistics scores (eq. 5) by file name, to be written without their row numbers.

    Args:
        statistics: scores of a recording.
        confidence: probability that an interval should cover the share expected at this number of batches.

    Raises:
        UserError: no parameter with a score, or a confidence outside (0, 1).
    """
    tables = {}
    for level in statistics.levels:
        tables[f"scores_{level}.csv"] = statistics.table(level, confidence=confidence)
        tables[f"scores_{level}_blocks.csv"] = _block_table(statistics, level, confidence)
        tables[f"scores_{level}_parameters.csv"] = _parameter_table(statistics, level)
    return tables


def _block_table(statistics: Statistics, level: str, confidence: float) -> pd.DataFrame:
    parts = []
    for block, scores in statistics.levels[level].items():
        if scores.undefined == scores.parameters:
            continue
        part = statistics.table(level, block, confidence)
        part.insert(0, "block", block)
        parts.append(part.assign(undefined=scores.undefined, parameters=scores.parameters))
    # A column that one block lacks would have holes.
    return pd.concat(parts, join="inner", ignore_index=True)


def _parameter_table(statistics: Statistics, level: str) -> pd.DataFrame:
    rows = [
        (block, scores.parameters, scores.sampled, scores.undefined)
        for block, scores in statistics.levels[level].items()
    ]
    return pd.DataFrame(rows, columns=["block", "parameters", "sampled", "undefined"])
