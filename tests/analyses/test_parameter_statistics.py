"""Oracle: the tables against numpy on the gradients themselves."""

import numpy as np
import torch

from analyses.parameter_statistics import score_tables
from tugofwar.score_accumulator import StatisticsAccumulator

DATASETS = ["a"] * 3 + ["b"] * 3


def statistics(datasets=DATASETS, tasks=None):
    accumulator = StatisticsAccumulator(datasets, tasks or {}, seed=0, replicates=20)
    generator = np.random.default_rng(0)
    for block, scale in (("first", 1.0), ("idle", 0.0), ("second", 3.0)):
        gradients = torch.from_numpy(scale * generator.standard_normal((len(datasets), 40)))
        gradients[:, :4] = 0
        accumulator.add(block, 0, gradients, 40)
        accumulator.finish_block(block, (gradients @ gradients.T).numpy())
    return accumulator.result()


def test_tables_are_tidy_and_complete():
    tables = score_tables(statistics(tasks={"a": "one", "b": "one"}))
    assert list(tables) == [f"scores_{level}{part}.csv" for level in ("dataset", "task")
                            for part in ("", "_blocks", "_parameters")]  # fmt: skip
    for name, table in tables.items():
        assert not table.isna().any().any(), name
    overall, blocks = tables["scores_dataset.csv"], tables["scores_dataset_blocks.csv"]
    assert len(overall) == 10
    assert blocks["block"].tolist() == ["first"] * 10 + ["second"] * 10
    assert blocks.groupby("interval_low")["count"].sum().tolist() == overall["count"].tolist()
    assert set(blocks["undefined"]) == {4}
    assert tables["scores_dataset_parameters.csv"].to_numpy().tolist() == [
        ["first", 40, 40, 4],
        ["idle", 40, 40, 40],
        ["second", 40, 40, 4],
    ]
    # One task only: everything pulls one way.
    assert tables["scores_task.csv"]["count"].tolist() == [0] * 9 + [72]


def test_without_intervals_there_are_no_such_columns():
    for name, table in score_tables(statistics(datasets=["a", "a", "b"])).items():
        assert not {"low", "high", "null_no_conflict"} & set(table.columns), name
        assert not table.isna().any().any(), name
