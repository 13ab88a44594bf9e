"""Interference measured while training goes on: the instrument's callback on batches of the training split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .data import Samples
from .data.collator import Collator
from .errors import UserError
from .probing import ProbeBatches, draw_batches
from .trainer import UniMedTrainer

BATCHES = 10
FOLDER = "tugofwar"


def attach_probe(trainer: UniMedTrainer, data: Mapping[str, Samples], collator: Collator, every: int) -> None:
    """Record interference at the connector every so many steps, into ``RUN/tugofwar`` and the trackers.

    Args:
        trainer: what trains.
        data: dataset -> training split.
        collator: samples to tensors.
        every: steps between recordings.

    Raises:
        UserError: a dataset with fewer samples than two batches.
    """
    from tugofwar.callback import TugOfWarCallback

    training = trainer.settings.training
    smallest = min(data, key=lambda name: len(data[name]))
    batches = min(BATCHES, len(data[smallest]) // training.batch_size)
    if batches < 2:
        raise UserError(
            f"--probe-every needs two batches of {training.batch_size} samples of every dataset, and {smallest} has "
            f"{len(data[smallest])} samples."
        )
    rows = {
        name: draw_batches(name, len(samples), batches, training.batch_size, trainer.settings.seed, False)
        for name, samples in data.items()
    }

    class OffTheClock(TugOfWarCallback):
        """The instrument, whose time is none of training's."""

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            """Record when it is time to."""
            with trainer.off_the_clock():
                super().on_step_end(*args, **kwargs)

    callback = OffTheClock(
        {name: ProbeBatches(data[name], drawn, collator) for name, drawn in rows.items()},
        every=every,
        batches=batches,
        tasks={name: samples[0].task for name, samples in data.items()},
        folder=Path(trainer.args.output_dir) / FOLDER,
        seed=trainer.settings.seed,
    )
    callback.attach(trainer)
