"""Whose routers are looked at: checkpoints of trained runs, or a model of one's own."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from analyses.measuring import OwnSetup, TrainedRun
from analyses.measuring import Settings as Probing
from analyses.routing_weights.checkpoints import Checkpoint, chosen_checkpoints
from tugofwar.probing import move_to
from tugofwar.study import Study
from unimed_model.probing import ProbeBatches, ProbeSetup, load_for_probing, same_batches


@dataclass(frozen=True)
class Draw:
    """Which batches: per dataset, of which datasets (None: all that there are), by which seed."""

    batches: int
    datasets: Sequence[str] | None
    seed: int


@dataclass(frozen=True)
class Runs:
    """Checkpoints of trained runs of Uni-Med, and the data that they are given.

    Attributes:
        folders: run or checkpoint folders; one run stands for the end of its warm-up, where kept, and its end.
        data_roots: folders with the datasets' raw files.
        batch_size: samples per batch.
        with_replacement: let samples repeat, for a dataset with too few of them.
        skip_missing: leave out samples whose image file is missing.
    """

    folders: Sequence[Path]
    data_roots: Sequence[Path]
    batch_size: int = 4
    with_replacement: bool = False
    skip_missing: bool = False

    def studies(self, draw: Draw) -> Generator[tuple[Checkpoint, Study], None, None]:
        """Each checkpoint with its model and the same batches, one model at a time.

        Raises:
            UserError: a folder that is missing or named twice, a run or data that cannot be used, too few samples.
        """
        checkpoints = chosen_checkpoints(self.folders)
        TrainedRun(checkpoints[0].folder, self.data_roots, self.batch_size).check()
        probed: ProbeSetup | None = None
        for checkpoint in checkpoints:
            probed = self._open(checkpoint.folder, draw) if probed is None else same_batches(checkpoint.folder, probed)
            options = {"with_replacement": self.with_replacement, "skip_missing": self.skip_missing}
            metadata = {
                **probed.metadata,
                "batch_size": self.batch_size,
                **{name: True for name, given in options.items() if given},
            }
            yield checkpoint, Study(probed.model, probed.batches, tasks=probed.tasks, metadata=metadata)
            # The next model is opened after this one is let go.
            probed = replace(probed, model=nn.Module())

    def _open(self, folder: Path, draw: Draw) -> ProbeSetup:
        names = list(draw.datasets) if draw.datasets else None
        size, repeat, skip = self.batch_size, self.with_replacement, self.skip_missing
        return load_for_probing(folder, list(self.data_roots), names, draw.batches, size, draw.seed, repeat, skip)


@dataclass(frozen=True)
class OwnModel:
    """A function of the user's own, ``FILE.py:FUNCTION``."""

    target: str

    def studies(self, draw: Draw) -> Generator[tuple[Checkpoint, Study], None, None]:
        """The one model that the function returns.

        Raises:
            UserError: what ``own_setup.open_study`` raises, or an unknown name of a dataset.
        """
        with OwnSetup(self.target).open(Probing("*", draw.batches, draw.datasets, draw.seed)) as study:
            yield Checkpoint(Path(), "model", "model", None), study


@dataclass(frozen=True)
class EncodedBatches:
    """Batches of a Uni-Med whose images are encoded once, however often each batch is passed.

    Attributes:
        model: the Uni-Med.
        batches: with ``pixel_values``, which become ``vision_tokens``.
    """

    model: Any
    batches: ProbeBatches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        device = next(self.model.parameters()).device
        for batch in self.batches:
            moved = move_to(batch, device)
            if "pixel_values" in moved:
                pixels = moved.pop("pixel_values")
                moved["vision_tokens"] = self.model.vision_model.encode(pixels)
            yield moved
