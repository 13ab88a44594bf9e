"""What transformers' Trainer is told of a run's settings, and what they need of the machine."""

from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from .errors import UserError
from .modeling import UniMedForConditionalGeneration
from .settings import RunSettings


def checkpoint_gradients(model: UniMedForConditionalGeneration) -> None:
    """Let a model recompute activations in the backward pass instead of keeping them."""
    # newer versions of transformers have another name for it
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def require_suitable_spread(trainer: Trainer, settings: RunSettings) -> None:
    """Raise a UserError for what does not go with weights or gradients that are spread over processes."""
    if not trainer.is_fsdp_enabled and not trainer.is_deepspeed_enabled:
        return
    if settings.data.batches == "mixed":
        raise UserError(
            "data.batches=mixed may give images to one process and none to another, which FSDP and DeepSpeed cannot "
            "train on; launch with ddp.yaml or set data.batches=homogeneous."
        )
    if trainer.is_fsdp_enabled and settings.training.gradient_checkpointing:
        raise UserError("fsdp2.yaml recomputes activations itself; set training.gradient_checkpointing=false.")


def require_hardware(settings: RunSettings) -> None:
    """Raise a UserError for settings that need a GPU where there is none."""
    if torch.cuda.is_available():
        return
    if settings.llm.quantisation == "4bit":
        # bitsandbytes repacks the weights at the first evaluation, for a product without a right backward pass
        raise UserError("llm.quantisation=4bit cannot be trained on a CPU: its gradients would be wrong; use a GPU.")
    if settings.training.precision == "float16":
        raise UserError(
            "training.precision=float16 needs a GPU, which this machine has not; set training.precision=float32."
        )


def tracker_callbacks(settings: RunSettings) -> list[TrainerCallback]:
    """Return transformers' callbacks of the trackers.

    Raises:
        UserError: an unknown tracker, or one whose library is not installed.
    """
    try:
        return [callback() for callback in get_reporting_integration_callbacks(list(settings.logging.trackers))]
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"logging.trackers: {error}") from error


def training_arguments(settings: RunSettings, folder: Path) -> TrainingArguments:
    """Return transformers' arguments of a run.

    Raises:
        UserError: a precision that the hardware has not.
    """
    training = settings.training
    try:
        return TrainingArguments(
            output_dir=str(folder),
            max_steps=training.steps,
            per_device_train_batch_size=training.batch_size,
            gradient_accumulation_steps=training.gradient_accumulation,
            learning_rate=training.peak_learning_rate,
            weight_decay=training.weight_decay,
            adam_beta1=training.beta1,
            adam_beta2=training.beta2,
            max_grad_norm=training.gradient_clip or 0.0,
            bf16=training.precision == "bfloat16",
            fp16=training.precision == "float16",
            seed=settings.seed,
            data_seed=settings.seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",  # `tracker_callbacks` are given to the trainer
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            ignore_data_skip=True,  # the mixture goes on from its own state
            average_tokens_across_devices=True,
            # batches of text alone do not reach the connector
            ddp_find_unused_parameters=True,
            # without it several processes on a machine without accelerator would not find each other
            use_cpu=not torch.accelerator.is_available(),
        )
    except ValueError as error:
        raise UserError(f"training.precision={training.precision}: {error}") from error
