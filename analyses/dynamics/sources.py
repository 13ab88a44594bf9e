"""Where the recordings of a run's steps are: made during training by the callback, or now from its checkpoints."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from re import compile as pattern
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from analyses.measuring import Settings, TrainedRun
from tugofwar.errors import UserError
from tugofwar.history import HISTORY
from tugofwar.storage import holds, read
from tugofwar.workspace import Busy, working
from unimed_model.checkpoints import checkpoints
from unimed_model.errors import UserError as ModelError
from unimed_model.reading import read_object
from unimed_model.standing import RUN_FILE, is_finished

if TYPE_CHECKING:
    from unimed_model.probing import ProbeSetup

CALLBACK, CHECKPOINTS = "callback", "checkpoints"
RECORDINGS = "recordings"

_STEP = pattern(r"step-(\d+)")
_DURING_TRAINING = "tugofwar"
_OF_THE_COMMAND = ("command", "missing_images", "samples", "second_moments_sha256", "preconditioner")
"""What the metadata of a recording say that its plain Gram matrices do not depend on, or that ``data`` says better."""


@dataclass(frozen=True)
class Timeline:
    """The recordings of a run, by step.

    Attributes:
        source: ``callback`` or ``checkpoints``.
        steps: step -> folder of its recording, by step.
        failures: step -> why it could not be recorded, such as a loss that is not finite.
        logged: steps that the callback's ``history.csv`` knows; None where there is no such file.
        batch_size: samples per batch, where it is known.
    """

    source: str
    steps: Mapping[int, Path]
    failures: Mapping[int, str] = field(default_factory=dict)
    logged: frozenset[int] | None = None
    batch_size: int | None = None


def recorded_during_training(run: Path) -> Timeline | None:
    """The callback's recordings in ``RUN/tugofwar``, or in ``RUN`` itself where the callback was given that folder.

    Raises:
        UserError: a ``history.csv`` or ``run.json`` that cannot be read.
    """
    for folder in (run / _DURING_TRAINING, run):
        steps = step_folders(folder)
        if steps:
            return Timeline(CALLBACK, steps, logged=_logged(folder / HISTORY), batch_size=_trained_with(run))
    return None


def step_folders(folder: Path) -> dict[int, Path]:
    """Step -> folder of its recording, by step, of those in a folder."""
    if not folder.is_dir():
        return {}
    found = ((_STEP.fullmatch(path.name), path) for path in folder.iterdir() if holds(path, "recording"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def models_of(run: Path) -> dict[int, Path]:
    """Step -> folder of the weights then: the checkpoints, and the final model where none of them is of its step.

    Raises:
        UserError: a damaged ``run.json``.
    """
    models = checkpoints(run)
    content = _run_file(run)
    if is_finished(content) and content.get("sessions"):
        try:
            models.setdefault(int(content["sessions"][-1]["to_step"]), run)
        except (TypeError, KeyError, ValueError):
            raise UserError(
                f"{run / RUN_FILE} does not say at which step training ended (`sessions`); it is damaged, train again."
            ) from None
    return dict(sorted(models.items()))


def record_models(models: Mapping[int, Path], probing: TrainedRun, settings: Settings, out: Path) -> Timeline:
    """Record every checkpoint of a run in ``out/recordings``, but those of which there is an equal recording already.

    Each is written as soon as it is made, so that a killed call is gone on from.

    Args:
        models: step -> folder of the weights (``models_of``).
        probing: the run, the data and how batches are drawn.
        settings: how to probe.
        out: output folder.

    Raises:
        UserError: settings out of range, data that cannot be used, or no checkpoint that can be recorded.
    """
    settings.check()
    probing.check()
    data = _data_of(probing, settings)
    steps, failures = {}, {}
    probed: ProbeSetup | None = None
    for step, model in tqdm(models.items(), desc="checkpoints", unit="checkpoint", disable=settings.quiet):
        place = out / RECORDINGS / f"step-{step:06d}"
        try:
            wanted = _metadata(model, probing, settings, data)
            kept = (place, model / "gradients", probing.checkpoint / "gradients")
            earlier = [each for each in kept if _is_of(each, wanted)]
            if not earlier:
                probed = None if probed is None else _without_model(probed)
                probed = _opened(model, probing, settings, probed)
                _record(probed, settings, wanted, place)
            steps[step] = earlier[0] if earlier else place
        except Busy:
            raise
        except (UserError, ModelError) as error:
            # Another step's model may be whole, and its loss finite.
            failures[step] = str(error)
    if not steps:
        step, reason = next(iter(failures.items()))
        raise UserError(f"No checkpoint can be measured; of step {step}: {reason}")
    return Timeline(CHECKPOINTS, steps, failures, batch_size=probing.batch_size)


def _opened(model: Path, probing: TrainedRun, settings: Settings, earlier: "ProbeSetup | None") -> "ProbeSetup":
    """A checkpoint with its batches: those of an earlier one, where there is one, whose data are open already."""
    from unimed_model.data.progress import reading_quietly
    from unimed_model.probing import load_for_probing, same_batches

    if earlier is not None:
        return same_batches(model, earlier)
    roots, names = list(probing.data_roots), list(settings.datasets) if settings.datasets else None
    size, repeat, skip = probing.batch_size, probing.with_replacement, probing.skip_missing
    with reading_quietly(settings.quiet):
        return load_for_probing(model, roots, names, settings.batches, size, settings.seed, repeat, skip)


def _without_model(probed: "ProbeSetup") -> "ProbeSetup":
    """The same batches; the model is let go before the next one is opened."""
    from torch import nn

    return replace(probed, model=nn.Module())


def _record(probed: "ProbeSetup", settings: Settings, metadata: Mapping[str, Any], place: Path) -> None:
    from tugofwar.recorder import record

    with working(place, resume=False) as room:
        kept = {name: probed.metadata[name] for name in ("missing_images",) if name in probed.metadata}
        recording = record(
            probed.model,
            probed.batches,
            settings.parameters,
            settings.batches,
            seed=settings.seed,
            progress=False,
            metadata={**metadata, **kept},
            tasks=probed.tasks,
            statistics=False,
            workspace=room.folder,
            resume=False,
        )
        recording.save(room.output)


def _is_of(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a recording was made with these weights, data and settings.

    One of ``tugofwar gradients`` does not say which files its datasets were read from, only how many samples they had.
    """
    try:
        manifest, _ = read(folder)
    except UserError:  # none there, a damaged one, or one of another release
        return False
    datasets = [*(part.name for part in manifest.datasets), *manifest.untouched]
    if sorted(datasets) != sorted(wanted["data"]):
        return False
    known = manifest.metadata
    if "data" not in known and known.get("samples") != {name: wanted["data"][name]["samples"] for name in datasets}:
        return False
    compared = {key: value for key, value in known.items() if key not in _OF_THE_COMMAND}
    return compared == {key: value for key, value in wanted.items() if key in known or key != "data"}


def _metadata(model: Path, probing: TrainedRun, settings: Settings, data: Mapping[str, Any]) -> dict[str, Any]:
    """All that equal recordings depend on."""
    from unimed_model.checkpoint import WEIGHTS
    from unimed_model.loading import weights_digest

    if not (model / WEIGHTS).is_file():
        raise UserError(f"{model} holds no {WEIGHTS}, so that it cannot be measured; remove it, or train again.")
    parameters = settings.parameters
    return {
        "weights_sha256": weights_digest(model),
        "parameters": parameters if isinstance(parameters, str) else list(parameters),
        "batches": settings.batches,
        "batch_size": probing.batch_size,
        "seed": settings.seed,
        "with_replacement": probing.with_replacement,
        **({"skip_missing": True} if probing.skip_missing else {}),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")},
        "data": data,
    }


def _data_of(probing: TrainedRun, settings: Settings) -> dict[str, Any]:
    """Dataset -> number of training samples and digests of the files that they are read from."""
    from unimed_model.data import DatasetSource, discover, open_source, select_sources
    from unimed_model.data.files import noting
    from unimed_model.data.progress import reading_quietly
    from unimed_model.data.sources import skipping
    from unimed_model.data_digests import data_digests
    from unimed_model.probing import draw_batches

    size, repeat = probing.batch_size, probing.with_replacement
    offered: dict[str, tuple[DatasetSource, Path]] = {}
    for root in probing.data_roots:
        for source in discover(root):
            offered.setdefault(source.name, (source, root))
    names = tuple(settings.datasets) if settings.datasets else None
    where = " and ".join(map(str, probing.data_roots))
    chosen = select_sources([source for source, _ in offered.values()], names, where)
    described = {}
    for source in chosen:
        with noting() as noted, reading_quietly(settings.quiet):
            samples = open_source(skipping(source) if probing.skip_missing else source, "train")
        # Too few are said before any model is opened.
        draw_batches(source.name, len(samples), settings.batches, size, settings.seed, repeat)
        digests = data_digests(offered[source.name][1], {source.name: noted})[source.name]
        described[source.name] = {"samples": len(samples), **digests}
    return described


def _logged(path: Path) -> frozenset[int] | None:
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return frozenset(int(row["step"]) for row in csv.DictReader(file))
    except (ValueError, KeyError, TypeError, csv.Error):
        raise UserError(
            f"{path} is damaged; its columns are step, name, value. Remove it to use all recordings."
        ) from None


def _trained_with(run: Path) -> int | None:
    """Samples per batch of the recordings that ``unimed-train --probe-every`` makes: those of training."""
    size: Any = _run_file(run)
    for key in ("settings", "training", "batch_size"):
        size = size.get(key) if isinstance(size, dict) else None
    return size if isinstance(size, int) else None


def _run_file(run: Path) -> dict[str, Any]:
    path = run / RUN_FILE
    return read_object(path) if path.is_file() else {}
