"""Where features come from: a trained Uni-Med and its data, or a model of one's own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from analyses import measuring
from tugofwar.engine.fingerprint import model_digest
from tugofwar.errors import UserError
from tugofwar.features.capture import Forward

if TYPE_CHECKING:
    from torch import nn

    from unimed_model.data import Samples

CONNECTOR = "connector"
_KEPT = ("weights_sha256", "versions", "missing_images", "setup", "setup_sha256")


@dataclass(frozen=True, eq=False)
class Passes:
    """A model and what is passed through it.

    Attributes:
        model: the model.
        datasets: name -> batches.
        module: glob of the module that is looked at.
        forward: how a batch is passed; None for ``model(**batch)``.
        tasks: task of each dataset; empty where none are known.
        metadata: what equal results depend on, for the manifest.
    """

    model: "nn.Module"
    datasets: Mapping[str, Iterable[Any]]
    module: str
    forward: Forward | None
    tasks: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Where a model and its batches come from."""

    def open(self, samples: int, datasets: Sequence[str] | None, seed: int) -> AbstractContextManager[Passes]:
        """The model, and batches with about ``samples`` samples of every dataset."""


@dataclass(frozen=True)
class TrainedRun:
    """A run or checkpoint folder of ``unimed-train``, and samples of its datasets' training splits.

    Attributes:
        checkpoint: the folder.
        data_roots: folders with the datasets' raw files.
        batch_size: samples per batch.
        module: glob of the module.
        skip_missing: leave out, and count, samples whose image file is missing.
    """

    checkpoint: Path
    data_roots: Sequence[Path]
    batch_size: int = 4
    module: str = CONNECTOR
    skip_missing: bool = False

    @contextmanager
    def open(self, samples: int, datasets: Sequence[str] | None, seed: int) -> Iterator[Passes]:
        """See ``Source``. No image is taken twice for one dataset: its features would be the same point twice."""
        measuring.TrainedRun(self.checkpoint, self.data_roots, self.batch_size).check()
        from unimed_model.probing import ProbeBatches, load_for_probing

        names = list(datasets) if datasets is not None else None
        # no batches yet: how many samples a dataset has decides how many can be drawn
        probed = load_for_probing(
            self.checkpoint, list(self.data_roots), names, 0, self.batch_size, seed, False, self.skip_missing
        )
        drawn = {
            name: ProbeBatches(each.samples, self._rows(name, each.samples, samples, seed), each.collator)
            for name, each in probed.batches.items()
        }
        yield Passes(
            probed.model,
            drawn,
            self.module,
            # the LLM behind the connector has no part in its features, and takes most of the time
            _encode_images if self.module == CONNECTOR else None,
            probed.tasks,
            _kept(probed.metadata) | {"batch_size": self.batch_size},
        )

    def _rows(self, name: str, samples: "Samples", wanted: int, seed: int) -> tuple[tuple[int, ...], ...]:
        from unimed_model.probing import draw_batches

        chosen: list[int] = []
        images: set[str] = set()
        for (index,) in draw_batches(name, len(samples), len(samples), 1, seed, False):
            image = samples[index].image_id
            if len(chosen) < wanted and image not in images:
                chosen.append(index)
                images |= {image} if image is not None else set()
        return tuple(tuple(chosen[start : start + self.batch_size]) for start in range(0, len(chosen), self.batch_size))


@dataclass(frozen=True)
class OwnModel:
    """A function of the user's own that returns a model and its batches; see ``tugofwar.own_setup``.

    Attributes:
        target: ``FILE.py:FUNCTION`` or ``package.module:function``.
        module: glob of the module.
    """

    target: str
    module: str

    @contextmanager
    def open(self, samples: int, datasets: Sequence[str] | None, seed: int) -> Iterator[Passes]:
        """See ``Source``; the function's batches are passed as they are."""
        settings = measuring.Settings("*", samples, datasets, seed)
        with measuring.OwnSetup(self.target).open(settings) as study:
            metadata = _kept(study.metadata) | {"weights_sha256": model_digest(study.model)}
            yield Passes(study.model, study.datasets, self.module, study.loss, study.tasks, metadata)


def _encode_images(model: Any, batch: Mapping[str, Any]) -> None:
    """Uni-Med as far as its connector; a batch without images does not get there."""
    if "pixel_values" in batch:
        model.get_image_features(batch["pixel_values"], batch["task_ids"])


def _kept(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metadata[name] for name in _KEPT if name in metadata}


def check_samples(samples: int) -> None:
    """Raise a UserError for a number of samples that is none."""
    if samples < 1:
        raise UserError(f"--samples is {samples}; take at least 1 sample per dataset.")
