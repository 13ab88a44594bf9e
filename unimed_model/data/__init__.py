"""The datasets Uni-Med trains on, read from their published raw files into one `Sample` type.

    from unimed_model.data import load_dataset

    samples = load_dataset("slake_vqa", "data", split="test")
    samples[0].instruction, samples[0].answer, samples[0].image

Importing this package imports neither torch nor an image library.
"""

from unimed_model.data.sample import IDENTIFIERS, TASKS, Sample, Samples
from unimed_model.data.sources import (
    PUBLISHED,
    DatasetSource,
    discover,
    load_dataset,
    open_source,
    select_sources,
)
from unimed_model.data.templates import training_instruction

__all__ = [
    "IDENTIFIERS",
    "PUBLISHED",
    "TASKS",
    "DatasetSource",
    "Sample",
    "Samples",
    "discover",
    "load_dataset",
    "open_source",
    "select_sources",
    "training_instruction",
]
