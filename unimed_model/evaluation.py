"""unimed-eval: greedy answers on held-out samples, scored, with baselines beside them."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import baselines
from .data import DatasetSource, Sample, Samples, discover, open_source, select_sources
from .data.corpus.writing import picture_planes
from .data.left_out import MISSING_IMAGE, missing_line
from .data.prepared import raw_root
from .data.sources import skipping
from .errors import UserError
from .folders import replacing
from .generation import LONGEST_ANSWER, Answerer
from .loading import open_run, weights_digest
from .predictions import answer_of, line_of, record_of
from .processing import UniMedProcessor
from .scores import DatasetResult, require_replaceable, result_of, with_baselines, write_scores
from .scoring import Tally, tally
from .unfinished import Journal, unfinished

PREDICTIONS = "predictions.jsonl"

_DECIDING = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
)
"""Files of a run beside its weights that its answers depend on."""


@dataclass(frozen=True)
class _Asked:
    """One dataset as it is asked: samples as the profile writes them, and what its baselines learn from."""

    samples: list[Sample]
    train: Samples
    skipped: dict[str, dict[str, int]]


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

    Until all is answered, the answers are kept in a private folder beside the output, from which the same call goes on.

    Args:
        run: run folder.
        root: data root.
        out: output folder: ``predictions.jsonl`` and the files of ``write_scores``; an earlier evaluation is replaced.
        split: split to answer; baselines learn from ``train``.
        names: datasets; None for all that the root offers.
        limit: answer at most this many samples per dataset, spread evenly over it.
        batch_size: samples answered at once, fewer where memory is short.
        weights: folder with the pretrained parts, if they are not where they were at training.
        quiet: no progress bar.
        skip_missing: leave out samples whose image file is missing; the scores count them.
        allow_restricted_text: also write text whose licence forbids passing it on.

    Raises:
        UserError: a run or data that cannot be used, or an output folder that holds something else.
    """
    require_replaceable(out)
    sources = select_sources(discover(root), names, str(root))
    model, processor = open_run(run, weights)
    asked = {source.name: _asked(source, split, limit, skip_missing, processor) for source in sources}
    keys = [(name, sample.sample_id) for name, dataset in asked.items() for sample in dataset.samples]
    answerer = Answerer(model, processor, batch_size, _say)
    plan = _plan(run, split, asked)
    with unfinished(out, plan, keys, _say) as journal:
        _answer(answerer, asked, journal, quiet)
        predictions = _by_dataset(asked, journal.predictions)
        results, tallies = _scored(asked, predictions, processor, picture_planes(raw_root(root)))
        with replacing(out) as folder:
            _write_predictions(folder / PREDICTIONS, asked, predictions, allow_restricted_text)
            write_scores(folder, results, tallies, {"split": split, "weights_sha256": plan["run"]["weights"]})
    return results


def _say(sentence: str) -> None:
    tqdm.write(sentence, file=sys.stderr)


def _asked(
    source: DatasetSource, split: str, limit: int | None, skip_missing: bool, processor: UniMedProcessor
) -> _Asked:
    opened = {name: _opened(source, name, skip_missing) for name in (split, "train")}
    skipped = {name: read.skipped for name, read in opened.items() if read.skipped}
    return _Asked(_written(_spread(opened[split], limit), processor), opened["train"], skipped)


def _opened(source: DatasetSource, split: str, skip_missing: bool) -> Samples:
    samples = open_source(skipping(source) if skip_missing else source, split)
    if not samples:
        left_out = f" ({missing_line({split: missing})})" if (missing := samples.skipped.get(MISSING_IMAGE)) else ""
        raise UserError(f"{source.name} has no samples in its split {split!r}{left_out}.")
    return samples


def _spread(samples: Samples, limit: int | None) -> Sequence[Sample]:
    if limit is None or limit >= len(samples):
        return samples
    return [samples[index] for index in np.linspace(0, len(samples) - 1, limit).round().astype(int)]


def _written(samples: Sequence[Sample], processor: UniMedProcessor) -> list[Sample]:
    """Samples with instructions and references as the processor's profile writes them."""
    return [processor.prompts.for_evaluation(sample) for sample in samples]


def _plan(run: Path, split: str, asked: Mapping[str, _Asked]) -> dict[str, Any]:
    """What the answers depend on, as the JSON that stands beside them."""
    deciding = {name: _sha256((run / name).read_bytes()) for name in _DECIDING if (run / name).is_file()}
    return {
        "run": {"weights": weights_digest(run), **deciding},
        "settings": {"split": split, "longest answer": LONGEST_ANSWER},
        "datasets": {
            name: {"samples": len(dataset.samples), "sha256": _samples_digest(dataset.samples)}
            for name, dataset in asked.items()
        },
    }


def _samples_digest(samples: Sequence[Sample]) -> str:
    facts = [(s.task, s.sample_id, s.image_id, s.instruction, s.answer) for s in samples]
    return _sha256(json.dumps(facts).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _answer(answerer: Answerer, asked: Mapping[str, _Asked], journal: Journal, quiet: bool) -> None:
    """Answer what the journal does not hold yet."""
    done = len(journal.predictions)
    for name, dataset in asked.items():
        begun = min(done, len(dataset.samples))
        done -= begun
        with tqdm(
            desc=f"answering {name}", total=len(dataset.samples), initial=begun, disable=quiet, file=sys.stderr
        ) as bar:
            for texts in answerer.answers(dataset.samples[begun:]):
                answered = dataset.samples[begun : begun + len(texts)]
                # the journal is private, and must be whole to be gone on from
                journal.append(record_of(*pair, allowed=True) for pair in zip(answered, texts, strict=True))
                begun += len(texts)
                bar.update(len(texts))


def _by_dataset(asked: Mapping[str, _Asked], predictions: Sequence[str]) -> dict[str, list[str]]:
    each = iter(predictions)
    return {name: [next(each) for _ in dataset.samples] for name, dataset in asked.items()}


def _scored(
    asked: Mapping[str, _Asked],
    predictions: Mapping[str, Sequence[str]],
    processor: UniMedProcessor,
    planes: Mapping[str, str],
) -> tuple[dict[str, DatasetResult], list[Tally]]:
    results, tallies = {}, []
    for name, dataset in asked.items():
        result, tallied = score(dataset.samples, predictions[name], _written(dataset.train, processor), planes)
        results[name] = replace(result, skipped=dataset.skipped)
        tallies.append(tallied)
    return results, tallies


def score(
    samples: Sequence[Sample], predictions: Sequence[str], train: Sequence[Sample], planes: Mapping[str, str]
) -> tuple[DatasetResult, Tally]:
    """Score the answers to one dataset and compare them with its baselines.

    Args:
        samples: what was asked, as the profile writes it: their answers are the references.
        predictions: what was answered, in the same order.
        train: training split, which the baselines learn from, written alike.
        planes: image id -> plane, where the data root tells; used if it tells of all images.
    """
    answers = [answer_of(*pair) for pair in zip(samples, predictions, strict=True)]
    tallied = tally(answers)
    known = planes if {str(sample.image_id) for sample in (*samples, *train)} <= planes.keys() else {}
    theirs = {name: baseline(train, samples) for name, baseline in baselines.of_task(samples[0].task, known).items()}
    return with_baselines(result_of(tallied, answers), tallied, answers, theirs), tallied


def _write_predictions(
    path: Path, asked: Mapping[str, _Asked], predictions: Mapping[str, Sequence[str]], allowed: bool
) -> None:
    with path.open("w", encoding="utf-8") as file:
        for name, dataset in asked.items():
            for sample, prediction in zip(dataset.samples, predictions[name], strict=True):
                file.write(line_of(record_of(sample, prediction, allowed)))
