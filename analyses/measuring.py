"""From a trained run, or a model of one's own, to a folder with its recording and tables: all or nothing.

What is finished survives a kill or Ctrl-C beside the output (``tugofwar.workspace``); the same call goes on there.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from analyses.extending import check_extendable, earlier_recording
from analyses.interference import Measurement, write_tables
from tugofwar.errors import UserError
from tugofwar.folders import check_replaceable
from tugofwar.launch import is_first, joined
from tugofwar.naming import closest
from tugofwar.own_setup import open_study
from tugofwar.recording import Recording
from tugofwar.study import Study
from tugofwar.workspace import Workspace, working, workspace_of

if TYPE_CHECKING:
    from tugofwar.planning import Plan

FACTOR_DTYPES = ("bfloat16", "float16", "float32")
ADAM = "adam"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """How to probe; each is an option of ``tugofwar gradients`` of the same name.

    Attributes:
        parameters: glob, or list of globs, of the shared parameters.
        batches: batches per dataset, at least 2; of no account with ``extend``.
        datasets: names of the datasets to probe; None for all that there are.
        seed: seed of the draw of batches, of the generators during the passes, and of the bootstrap.
        statistics: also count statistics scores (eq. 5).
        preconditioner: ``adam`` to measure also in the geometry of Adam's update.
        factor_dtype: one of ``FACTOR_DTYPES``; None for the precision that factors come in.
        group_blocks: globs; the blocks that one matches become a single block.
        sketch: numbers that each part's gradient is hashed to; None for exact products.
        memory: bytes to hold besides the model, such as ``8GB``; None for most of what is free.
        resume: keep finished datasets on disk until all is done, and use those of an interrupted run.
        keep_factors: leave the factors in ``factors/`` of the output.
        keep_scores: write every parameter's score to ``scores.safetensors``.
        keep_means: write every dataset's mean gradient to ``means.safetensors``.
        extend: batches per dataset to add to the recording in the output folder.
        quiet: no progress bar.
    """

    parameters: str | Sequence[str]
    batches: int = 100
    datasets: Sequence[str] | None = None
    seed: int = 0
    statistics: bool = True
    preconditioner: str | None = None
    factor_dtype: str | None = None
    group_blocks: Sequence[str] = ()
    sketch: int | None = None
    memory: str | None = None
    resume: bool = True
    keep_factors: bool = False
    keep_scores: bool = False
    keep_means: bool = False
    extend: int | None = None
    quiet: bool = False

    def check(self) -> None:
        """Raise a UserError for settings out of range or that contradict each other."""
        if self.batches < 2:
            raise UserError(f"--batches is {self.batches}, but leaving a batch out needs at least 2 per dataset.")
        if self.extend is not None and self.extend < 1:
            raise UserError(f"--extend is {self.extend}; it adds at least 1 batch per dataset.")
        if self.extend is not None and not self.resume:
            raise UserError(
                "--extend goes on from kept factors, which --no-resume leaves aside; give only one of them."
            )
        if self.preconditioner not in (None, ADAM):
            raise UserError(f"--preconditioner is {self.preconditioner!r}; the only one is {ADAM}.")
        if self.factor_dtype not in (None, *FACTOR_DTYPES):
            raise UserError(f"--factor-dtype is {self.factor_dtype!r}; choose from {', '.join(FACTOR_DTYPES)}.")
        kept = [name for name in ("scores", "means") if getattr(self, f"keep_{name}")]
        if kept and not self.statistics:
            raise UserError(f"--keep-{kept[0]} keeps what the statistics are counted from; leave --no-statistics out.")
        exact = [f"--keep-{name}" for name in kept] + (["--preconditioner"] if self.preconditioner else [])
        if self.sketch is not None and exact:
            raise UserError(f"A sketch has no single parameters, so that {exact[0]} and --sketch exclude each other.")


class Source(Protocol):
    """Where the model and its batches come from."""

    def check(self) -> None:
        """Raise a UserError for what is wrong without loading anything."""

    def open(self, settings: Settings) -> AbstractContextManager[Study]:
        """The model, its batches, and as metadata all else that equal results depend on."""


@dataclass(frozen=True)
class TrainedRun:
    """A run folder of ``unimed-train``, probed with samples of its datasets' training splits.

    Attributes:
        checkpoint: the run folder.
        data_roots: folders with the datasets' raw files, or YAML files that name them.
        batch_size: samples per batch.
        with_replacement: let samples repeat, for a dataset with too few of them.
        skip_missing: leave out, and count, samples whose image file is missing.
    """

    checkpoint: Path
    data_roots: Sequence[Path]
    batch_size: int = 4
    with_replacement: bool = False
    skip_missing: bool = False

    def check(self) -> None:
        """See ``Source``."""
        if not self.checkpoint.is_dir():
            raise UserError(
                f"There is no checkpoint folder {self.checkpoint}; name the folder that unimed-train wrote."
            )
        if self.batch_size < 1:
            raise UserError(f"--batch-size is {self.batch_size}; a batch needs at least 1 sample.")

    @contextmanager
    def open(self, settings: Settings) -> Iterator[Study]:
        """See ``Source``."""
        from tugofwar.preconditioning import SecondMoment
        from unimed_model.data.progress import reading_quietly
        from unimed_model.probing import load_for_probing

        names = list(settings.datasets) if settings.datasets else None
        size, repeat = self.batch_size, self.with_replacement
        # Given, and recorded, only when asked for, so that a run without it is the same as ever.
        skipping = {"skip_missing": True} if self.skip_missing else {}
        with reading_quietly(settings.quiet):
            probed = load_for_probing(
                self.checkpoint, list(self.data_roots), names, settings.batches, size, settings.seed, repeat, **skipping
            )
        metadata = {**probed.metadata, "batch_size": size, "with_replacement": repeat, **skipping}
        moments = None
        if settings.preconditioner:
            saved = probed.preconditioner
            moments = {name: SecondMoment(value, saved.eps) for name, value in saved.values.items()}
            metadata["second_moments_sha256"] = saved.sha256
        yield Study(probed.model, probed.batches, tasks=probed.tasks, preconditioner=moments, metadata=metadata)


@dataclass(frozen=True)
class OwnSetup:
    """A function of the user's own: ``FILE.py:FUNCTION`` or ``package.module:function``; see ``own_setup``."""

    target: str

    def check(self) -> None:
        """See ``Source``; everything is checked while the function is called."""

    @contextmanager
    def open(self, settings: Settings) -> Iterator[Study]:
        """See ``Source``."""
        with open_study(self.target) as study:
            if settings.preconditioner and study.preconditioner is None:
                raise UserError(
                    f"--preconditioner needs second moments, but {self.target} returns none; return a mapping with the "
                    "key 'preconditioner', an Adam optimizer that has stepped."
                )
            if settings.datasets is not None:
                study = replace(study, datasets=_chosen(study.datasets, settings.datasets))
            yield study


def measure(source: Source, out: Path, settings: Settings) -> Measurement | None:
    """Probe and write the recording and its tables into ``out``, all or nothing.

    Args:
        source: the model and its batches.
        out: output folder; an earlier recording there is replaced, or extended.
        settings: how to probe.

    Returns:
        The measurement; None in all but the first of several processes.

    Raises:
        UserError: a path that is missing, settings out of range, or what ``record`` and ``write_tables`` raise; then
            of several processes all raise one.
    """
    settings.check()
    source.check()
    check_replaceable(out)
    earlier = None
    if settings.extend is not None:
        earlier = earlier_recording(out)
        settings = replace(settings, batches=int(earlier.metadata["batches"]) + settings.extend, keep_factors=True)
    with joined(), ExitStack() as stack:
        study = _agreed(lambda: stack.enter_context(source.open(settings)))
        _check_names(study)
        metadata = _metadata(study, settings)
        if earlier is not None:
            check_extendable(out, earlier, study, {**metadata, "sketch": settings.sketch})
        with working(out, settings.resume) as room:
            if earlier is not None and is_first():
                room.seed_factors(out / "factors")
            recording = _record(study, settings, metadata, room)
            return _agreed(lambda: _write(recording, settings, room) if is_first() else None)


def forecast(source: Source, out: Path, settings: Settings) -> "Plan":
    """What ``measure`` would cost, from two batches of every dataset; nothing is written.

    Raises:
        UserError: what ``measure`` would raise before it begins, and what ``planning.plan`` does.
    """
    from tugofwar.planning import plan

    settings.check()
    source.check()
    if settings.extend is not None:
        settings = replace(settings, batches=int(earlier_recording(out).metadata["batches"]) + settings.extend)
    with source.open(settings) as study:
        _check_names(study)
        return plan(
            study.model,
            study.datasets,
            settings.parameters,
            settings.batches,
            study.loss,
            settings.seed,
            geometries=1 if study.preconditioner is None else 2,
            workspace=workspace_of(out),
            resume=settings.resume or settings.keep_factors,
            tasks=study.tasks,
            **_engine_options(settings),
        )


def _check_names(study: Study) -> None:
    """A table's first column is headed ``dataset`` or ``task``, so that none of its names can be that."""
    for level, names in (("dataset", study.datasets), ("task", study.tasks.values())):
        if level in names:
            raise UserError(f"A {level} is called {level!r}, which heads a column of the tables; rename it.")


def _record(study: Study, settings: Settings, metadata: Mapping[str, Any], room: Workspace) -> Recording:
    from tugofwar.recorder import record

    # Given only when there is one, so that a run without it is the same call as ever.
    geometry = {} if study.preconditioner is None else {"preconditioner": study.preconditioner}
    return record(
        study.model,
        study.datasets,
        settings.parameters,
        settings.batches,
        loss=study.loss,
        seed=settings.seed,
        progress=not settings.quiet,
        metadata=metadata,
        tasks=study.tasks,
        workspace=room.folder,
        resume=settings.resume,
        # Until the tables are written, too: they may ask for more batches, or be interrupted.
        keep_factors=settings.resume or settings.keep_factors,
        **_engine_options(settings),
        **geometry,
    )


def _engine_options(settings: Settings) -> dict[str, Any]:
    """What ``record`` and ``plan`` take under the same names."""
    import torch

    names = ("statistics", "memory", "keep_scores", "keep_means", "group_blocks", "sketch")
    dtype = getattr(torch, settings.factor_dtype) if settings.factor_dtype else None
    return {"factor_dtype": dtype, **{name: getattr(settings, name) for name in names}}


def _write(recording: Recording, settings: Settings, room: Workspace) -> Measurement:
    recording.save(room.output)
    measurement = write_tables(recording, room.output, seed=settings.seed)
    for name in recording.geometries:
        # Statistics scores are the same in every geometry.
        scaled = replace(recording.in_geometry(name), statistics=None)
        write_tables(scaled, room.output / name, seed=settings.seed)
    kept = {"scores.safetensors": settings.keep_scores, "means.safetensors": settings.keep_means}
    for name in (*(file for file, wanted in kept.items() if wanted), *(["factors"] if settings.keep_factors else [])):
        (room.folder / name).rename(room.output / name)
    return measurement


def _agreed(action: Callable[[], Result]) -> Result:
    """What ``action`` returns; where it fails in any of several processes, all of them raise."""
    from tugofwar.engine.processes import Processes

    try:
        result = action()
    except Exception as error:
        Processes().agree(error)  # type: ignore[arg-type]
        raise
    Processes().agree(None)
    return result


def _metadata(study: Study, settings: Settings) -> dict[str, Any]:
    """What numbers depend on, and the command; settings that were not used are left out."""
    used = {
        "factor_dtype": settings.factor_dtype,
        "group_blocks": list(settings.group_blocks),
        "preconditioner": ADAM if study.preconditioner is not None else None,
    }
    parameters = settings.parameters
    metadata = {
        **study.metadata,
        "parameters": parameters if isinstance(parameters, str) else list(parameters),
        "batches": settings.batches,
        "seed": settings.seed,
        **{name: value for name, value in used.items() if value},
    }
    return {**metadata, "command": _command(metadata, settings)}


def _command(metadata: Mapping[str, Any], settings: Settings) -> str:
    """The command line without its paths, which would make equal runs differ."""
    valued = {
        "--setup": metadata.get("setup"),
        "--params": _joined(metadata["parameters"]),
        "--batches": metadata["batches"],
        "--batch-size": metadata.get("batch_size"),
        "--datasets": _joined(settings.datasets) if settings.datasets else None,
        "--seed": metadata["seed"],
        "--factor-dtype": settings.factor_dtype,
        "--group-blocks": _joined(settings.group_blocks) if settings.group_blocks else None,
        "--sketch": settings.sketch,
        "--preconditioner": metadata.get("preconditioner"),
    }
    words = ["tugofwar", "gradients"]
    for option, value in valued.items():
        words += [option, str(value)] if value is not None else []
    words += ["--with-replacement"] if metadata.get("with_replacement") else []
    words += ["--skip-missing"] if metadata.get("skip_missing") else []
    words += [] if settings.statistics else ["--no-statistics"]
    return shlex.join(words)


def _joined(names: str | Sequence[str]) -> str:
    return names if isinstance(names, str) else ",".join(names)


def _chosen(datasets: Mapping[str, Iterable[Any]], names: Sequence[str]) -> dict[str, Iterable[Any]]:
    for name in names:
        if name not in datasets:
            raise UserError(f"--datasets names {name!r}; {closest(name, datasets)}.")
    return {name: source for name, source in datasets.items() if name in names}
