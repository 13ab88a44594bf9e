"""The datasets Uni-Med trains on, read from their published raw files into one `Sample` type.

    from unimed_model.data import load_dataset

    samples = load_dataset("slake_vqa", "data", split="test")
    samples[0].instruction, samples[0].answer, samples[0].image

Importing this package imports neither torch nor an image library.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from unimed_model.data.collator import Collator
    from unimed_model.data.mixture import Mixture

__all__ = [
    "IDENTIFIERS",
    "PUBLISHED",
    "TASKS",
    "Collator",
    "DatasetSource",
    "Mixture",
    "Sample",
    "Samples",
    "discover",
    "load_dataset",
    "open_source",
    "select_sources",
    "training_instruction",
]


def __getattr__(name: str) -> Any:
    # Both write prompts, and `unimed_model.prompts` reads this package's templates.
    if name == "Mixture":
        from unimed_model.data.mixture import Mixture

        return Mixture
    if name == "Collator":
        from unimed_model.data.collator import Collator

        return Collator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
