"""unimed-eval: greedy answers on held-out samples, scored, with baselines beside them."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from . import baselines, scoring
from .data import DatasetSource, Sample, Samples, discover, open_source, select_sources
from .data.corpus.writing import picture_planes
from .data.left_out import MISSING_IMAGE, missing_line
from .data.prepared import raw_root
from .data.privacy import passed_on
from .data.sources import skipping
from .errors import UserError
from .folders import replacing
from .loading import open_run, weights_digest
from .modeling import UniMedForConditionalGeneration
from .processing import Turn, UniMedProcessor

LONGEST_ANSWER = 100
"""Tokens after which an answer is cut, as released."""


@dataclass(frozen=True)
class DatasetResult:
    """Scores of one dataset.

    Attributes:
        task: its task.
        samples: how many were answered.
        images: on how many images; 0 for text alone, whose intervals are over samples.
        unparsable: answers to a box question that spell no box (they score 0).
        metrics: metric -> mean and interval over images.
        baselines: baseline -> its mean by the task's first metric, and the model's lead over it.
        skipped: split -> reason -> number of samples that were left out of it; splits with none are not named.
    """

    task: str
    samples: int
    images: int
    unparsable: int
    metrics: dict[str, scoring.Mean]
    baselines: dict[str, dict[str, scoring.Mean]]
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)


def evaluate(
    run: Path,
    root: Path,
    out: Path,
    *,
    split: str = "test",
    names: tuple[str, ...] | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    weights: Path | None = None,
    quiet: bool = False,
    skip_missing: bool = False,
    allow_restricted_text: bool = False,
) -> dict[str, DatasetResult]:
    """Answer the samples of a split, score the answers, and write both into a folder, all or nothing.

    Args:
        run: run folder.
        root: data root.
        out: output folder: ``predictions.jsonl`` and ``scores.json``; an earlier evaluation is replaced.
        split: split to answer; baselines learn from ``train``.
        names: datasets; None for all that the root offers.
        limit: answer at most this many samples per dataset, spread evenly over it.
        batch_size: samples answered at once.
        weights: folder with the pretrained parts, if they are not where they were at training.
        quiet: no progress bar.
        skip_missing: leave out samples whose image file is missing; the scores count them.
        allow_restricted_text: also write text whose licence forbids passing it on.

    Raises:
        UserError: a run or data that cannot be used, or an output folder that holds something else.
    """
    if out.exists() and not (out / "scores.json").is_file():
        raise UserError(f"{out} exists and holds no evaluation; choose another --out or remove it.")
    sources = select_sources(discover(root), names, str(root))
    model, processor = open_run(run, weights)
    planes = picture_planes(raw_root(root))
    answered: dict[str, tuple[list[Sample], list[str]]] = {}
    results: dict[str, DatasetResult] = {}
    for source in sources:
        opened = {name: _opened(source, name, skip_missing) for name in (split, "train")}
        samples = _written(_spread(opened[split], limit), processor)
        answers = generate(model, processor, samples, batch_size, quiet)
        answered[source.name] = (samples, answers)
        scores = score(samples, answers, _written(opened["train"], processor), planes)
        skipped = {name: read.skipped for name, read in opened.items() if read.skipped}
        results[source.name] = replace(scores, skipped=skipped)
    _write(out, run, split, results, answered, allow_restricted_text)
    return results


def _opened(source: DatasetSource, split: str, skip_missing: bool) -> Samples:
    samples = open_source(skipping(source) if skip_missing else source, split)
    if not samples:
        left_out = f" ({missing_line({split: missing})})" if (missing := samples.skipped.get(MISSING_IMAGE)) else ""
        raise UserError(f"{source.name} has no samples in its split {split!r}{left_out}.")
    return samples


@torch.inference_mode()
def generate(
    model: UniMedForConditionalGeneration,
    processor: UniMedProcessor,
    samples: Sequence[Sample],
    batch_size: int,
    quiet: bool = False,
) -> list[str]:
    """Return the model's greedy answers, blanks around them removed, in the order of the samples.

    Instructions are written in the format of the processor's profile.
    """
    answers: list[str] = []
    starts = range(0, len(samples), batch_size)
    name = samples[0].dataset if samples else ""
    for start in tqdm(starts, desc=f"answering {name}", disable=quiet, file=sys.stderr):
        chosen = _written(samples[start : start + batch_size], processor)
        batch = processor.generation_batch([Turn.of(sample) for sample in chosen])
        batch = {key: value.to(model.device) for key, value in batch.items()}
        tokens = model.generate(**batch, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        new = tokens[:, batch["input_ids"].shape[1] :]
        answers += [text.strip() for text in processor.tokenizer.batch_decode(new, skip_special_tokens=True)]
    return answers


def score(
    samples: Sequence[Sample], answers: Sequence[str], train: Sequence[Sample], planes: dict[str, str]
) -> DatasetResult:
    """Score the answers to one dataset and compare them with its baselines.

    Args:
        samples: what was asked, as the profile writes it: their answers are the references.
        answers: what was answered, in the same order.
        train: training split, which the baselines learn from, written alike.
        planes: image id -> plane, where the data root tells; used if it tells of all images.

    Raises:
        ValueError: no samples.
    """
    task = samples[0].task
    images = [str(sample.image_id or sample.sample_id) for sample in samples]
    metrics = scoring.METRICS[task]
    per_sample = {name: _scores(metric, answers, samples) for name, metric in metrics.items()}
    first = next(iter(metrics))
    compared: dict[str, dict[str, scoring.Mean]] = {}
    known = planes if {str(sample.image_id) for sample in (*samples, *train)} <= planes.keys() else {}
    for name, baseline in _baselines(task, known).items():
        theirs = _scores(metrics[first], baseline(train, samples), samples)
        compared[name] = {
            first: scoring.mean_by_image(theirs, images),
            "lead": scoring.mean_by_image(per_sample[first] - theirs, images),
        }
    return DatasetResult(
        task=task,
        samples=len(samples),
        images=len({sample.image_id for sample in samples} - {None}),
        unparsable=sum(scoring.parse_box(answer) is None for answer in answers) if task == "REC" else 0,
        metrics={name: scoring.mean_by_image(values, images) for name, values in per_sample.items()},
        baselines=compared,
    )


def _scores(metric: scoring.Score, answers: Iterable[str], samples: Sequence[Sample]) -> np.ndarray:
    return np.array([metric(answer, sample.answer) for answer, sample in zip(answers, samples, strict=True)])


def _baselines(task: str, planes: dict[str, str]) -> dict[str, baselines.Baseline]:
    if task == "REC":
        known: dict[str, baselines.Baseline] = {
            "mean box": baselines.mean_box,
            "mean box of the object": baselines.mean_box_of_object,
        }
        if planes:
            known["mean box of object and plane"] = baselines.mean_box_of_object_and_plane(planes)
        return known
    if task == "CLS":
        return {
            "majority class": baselines.majority_answer,
            "thumbnail neighbour": baselines.thumbnail_neighbour,
        }
    return {"majority answer": baselines.majority_answer}


def _written(samples: Sequence[Sample], processor: UniMedProcessor) -> list[Sample]:
    """Samples with instructions and references as the processor's profile writes them."""
    return [processor.prompts.for_evaluation(sample) for sample in samples]


def _spread(samples: Samples, limit: int | None) -> Sequence[Sample]:
    if limit is None or limit >= len(samples):
        return samples
    return [samples[index] for index in np.linspace(0, len(samples) - 1, limit).round().astype(int)]


def _write(
    out: Path,
    run: Path,
    split: str,
    results: dict[str, DatasetResult],
    answered: Mapping[str, tuple[list[Sample], list[str]]],
    allow_restricted_text: bool,
) -> None:
    content: dict[str, Any] = {
        "split": split,
        "weights_sha256": weights_digest(run),
        "interval": "95 %, percentile bootstrap over images",
        "datasets": {name: asdict(result) for name, result in results.items()},
    }
    lines = [
        json.dumps(_prediction(sample, answer, allow_restricted_text), ensure_ascii=False)
        for samples, answers in answered.values()
        for sample, answer in zip(samples, answers, strict=True)
    ]
    with replacing(out) as folder:
        (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        text = json.dumps(content, indent=2, allow_nan=False)
        (folder / "scores.json").write_text(text + "\n", encoding="utf-8")


def _prediction(sample: Sample, answer: str, allow_restricted_text: bool) -> dict[str, str | bool | None]:
    texts = {"prompt": sample.instruction, "prediction": answer, "reference": sample.answer}
    return {
        "dataset": sample.dataset,
        "task": sample.task,
        "sample_id": sample.sample_id,
        "image_id": sample.image_id,
        **{name: passed_on(text, sample, allow_restricted_text) for name, text in texts.items()},
        **({"restricted": True} if sample.restricted else {}),
    }
