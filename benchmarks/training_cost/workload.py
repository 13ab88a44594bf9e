"""What is trained in the measurements: models of the presets' sizes with random weights, on the sample corpus."""

import atexit
import contextlib
import io
import shutil
import tempfile
from functools import cache
from pathlib import Path

from unimed_model.building import build
from unimed_model.data import Samples, discover, open_source
from unimed_model.data.collator import Collator
from unimed_model.data.corpus.writing import write_sample_corpus
from unimed_model.data.mixture import Mixture
from unimed_model.feature_cache import FeatureCache
from unimed_model.loader import training_loader
from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.presets import resolve
from unimed_model.processing import UniMedProcessor
from unimed_model.prompts import prompt_pieces
from unimed_model.settings import RunSettings

_RANDOM = ["vision.pretrained=null", "llm.pretrained=null", "prompt.profile=paper", "llm.adapter.dropout=0"]
"""The preset ``small`` without its files; random weights take as long."""


def settings_of(preset: str, steps: int, *more: str) -> RunSettings:
    """Return a preset's settings for so many steps, without checkpoints in between, with further overrides."""
    changes = [f"training.steps={steps}", "training.warmup_steps=0", "checkpoints.every=null", *more]
    return resolve(preset, [*changes, *(_RANDOM if preset == "small" else [])])


@cache
def corpus() -> dict[str, Samples]:
    """Return dataset -> training split of the sample corpus, written into a folder that goes when the process ends."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        write_sample_corpus(folder / "data")
    return {source.name: open_source(source, "train") for source in discover(folder / "data")}


def built(
    settings: RunSettings, datasets: dict[str, Samples]
) -> tuple[UniMedForConditionalGeneration, UniMedProcessor]:
    """Return model and processor; its tokenizer knows the corpus' fixed instructions and answers."""
    texts = (
        text
        for samples in datasets.values()
        for sample in samples[:200]
        for text in (*prompt_pieces(sample.task, sample.instruction, sample.image_source is not None), sample.answer)
    )
    return build(settings, texts)


def mixture_of(settings: RunSettings, datasets: dict[str, Samples], processor: UniMedProcessor) -> Mixture:
    """Return the run's mixture; two of the same seed draw the same batches."""
    training = settings.training
    return Mixture(datasets, training.batch_size, training.steps, settings.seed, processor.prompts)


def loader_of(mixture: Mixture, processor: UniMedProcessor, cache: FeatureCache | None = None, workers: int = 0):  # type: ignore[no-untyped-def]
    """Return the batches as training reads them."""
    return training_loader(mixture, Collator(processor, cache), workers)
