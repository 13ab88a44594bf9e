"""Open a run folder, with one clear sentence for whatever is wrong with it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from .checkpoint import WEIGHTS, require_finite
from .errors import UserError
from .modeling import UniMedForConditionalGeneration
from .pretrained import require_fit
from .processing import UniMedProcessor
from .reading import read_object
from .standing import require_finished


def open_run(folder: Path, weights: Path | None = None) -> tuple[UniMedForConditionalGeneration, UniMedProcessor]:
    """Return the trained model, in evaluation mode, and its processor.

    Args:
        folder: run folder.
        weights: folder with the pretrained parts, if they are not where they were at training.

    Raises:
        UserError: the folder is missing, holds no configuration or no weights, or they are damaged or do not
            belong together; or a pretrained part is missing.
    """
    if not folder.is_dir():
        raise UserError(f"There is no run folder {folder}; unimed-train writes one.")
    require_finished(folder)
    for name in ("config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no {name}, so it is not a finished run; train it with unimed-train.")
    config = read_object(folder / "config.json")
    if config.get("model_type") != "unimed":
        raise UserError(f"{folder / 'config.json'} describes a {config.get('model_type')!r} model, not a Uni-Med one.")
    try:
        with transformers_in_silence():
            model = _open_model(folder, weights, holds_bases=config.get("holds_bases", True))
            processor = UniMedProcessor.from_pretrained(folder)
    # JSON of the wrong form fails in transformers wherever it is first looked into
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"The run in {folder} cannot be opened: {' '.join(str(error).split())}") from error
    return model.eval(), processor


def _open_model(folder: Path, weights: Path | None, *, holds_bases: bool) -> UniMedForConditionalGeneration:
    if not holds_bases:
        return UniMedForConditionalGeneration.from_pretrained(folder, weights=weights)
    # sizes that do not match are reported below, in one sentence, with all else that does not fit
    model, report = UniMedForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True
    )
    require_fit(report, f"The weights in {folder} do not")
    require_finite(folder / WEIGHTS, model.state_dict())
    return model


@contextmanager
def transformers_in_silence() -> Iterator[None]:
    """Keep the library's bars and reports off the terminal: what is wrong is said in our own sentence."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def weights_digest(folder: Path) -> str:
    """Return the SHA-256 of a run's weights."""
    with (folder / WEIGHTS).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
