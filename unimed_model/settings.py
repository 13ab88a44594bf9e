"""Every setting of a run, typed and closed.

This module imports neither torch nor transformers, so that a misspelt key is reported at once.
``unimed_model.presets`` reads the files and applies overrides.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .closed import Closed
from .data.proportions import LEAST_TEMPERATURE
from .data.sample import IMAGE_TASKS

Precision = Literal["float32", "bfloat16", "float16"]


class VisionArchitecture(Closed):
    """Sizes of a vision transformer on square images."""

    type: Literal["vit", "dinov2", "blip_2_vision_model"] = Field("vit", description="model type of transformers")
    image_size: int = Field(224, ge=1, description="pixels of a side that its position embeddings are for")
    patch_size: int = Field(14, ge=1, description="pixels of a side of a patch")
    width: int = Field(ge=1, description="hidden size")
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    feedforward: int = Field(ge=1, description="hidden size of the feed-forward layers")
    initial_scale: float = Field(0.02, gt=0, description="standard deviation of initial weights")

    @model_validator(mode="after")
    def _whole_heads(self) -> "VisionArchitecture":
        if self.width % self.heads or (self.type == "vit" and self.width % (4 * self.heads)):
            times = "4 times heads" if self.type == "vit" else "heads"
            raise ValueError(f"width {self.width} is not a multiple of {times} ({self.heads})")
        if self.type == "dinov2" and self.feedforward % self.width:
            raise ValueError(f"feedforward {self.feedforward} is not a multiple of width ({self.width})")
        return self


class EncoderUse(Closed):
    """How a vision encoder is used; saved with the model."""

    image_size: int = Field(224, ge=1, description="pixels of a side that images are resized to")
    layer: int = Field(-1, description="layer whose hidden state is read: -1 the last, -2 the one before, 12 the 12th")
    final_norm: Literal["model", "none", "parameter_free"] = Field(
        "model", description="the encoder's own last norm, none, or a LayerNorm without parameters (as released)"
    )
    precision: Precision = Field("float32", description="of the encoder's weights and activations")
    trainable: bool = Field(False, description="whether the encoder is trained")

    @model_validator(mode="after")
    def _norm_of_its_layer(self) -> "EncoderUse":
        if self.layer == 0:
            raise ValueError("layer 0 is no layer; the first is 1, the last -1")
        if self.layer != -1 and self.final_norm == "model":
            raise ValueError("the encoder's own final norm belongs to its last layer; set final_norm=none")
        if self.trainable and self.precision == "float16":
            raise ValueError("float16 weights cannot be trained; set precision=float32")
        return self


class VisionSettings(EncoderUse):
    """The vision encoder: a pretrained one by name or folder, or one from scratch by its architecture."""

    pretrained: str | None = Field(None, description="hub name or folder; null: from scratch")
    architecture: VisionArchitecture | None = Field(
        None, description="from scratch: what is built; pretrained: what is counted where the files are not at hand"
    )

    @model_validator(mode="after")
    def _something_to_build(self) -> "VisionSettings":
        if self.pretrained is None and self.architecture is None:
            raise ValueError("either pretrained or architecture must be given")
        if self.architecture is not None:
            if self.image_size % self.architecture.patch_size:
                raise ValueError(
                    f"image_size {self.image_size} is not a multiple of patch_size {self.architecture.patch_size}"
                )
            if not -self.architecture.layers <= self.layer <= self.architecture.layers:
                raise ValueError(f"there is no layer {self.layer} among {self.architecture.layers}")
        return self


class ResamplerSettings(Closed):
    """Fewer visual tokens before the connector (eq. 7, Table 2b)."""

    kind: Literal["projection", "average", "max"] = Field(
        "projection", description="concatenate (the connector's first layer projects), or pool"
    )
    rate: int = Field(4, ge=1, description="alpha, visual tokens made into one")
    shape: Literal["strip", "block"] | None = Field(
        None, description="1 x alpha tokens of a row, or a square of them; null: as released (strip; block for pooling)"
    )

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of patches that become one token."""
        side = math.isqrt(self.rate)
        block = self.shape == "block" or (self.shape is None and self.kind != "projection")
        return (side, side) if block else (1, self.rate)

    @model_validator(mode="after")
    def _square_block(self) -> "ResamplerSettings":
        rows, columns = self.window
        if rows * columns != self.rate:
            raise ValueError(f"a block of {self.rate} tokens is no square; set shape=strip")
        return self


class ConnectorSettings(Closed):
    """What a connector is made of; the names are those of the paper's Table 2."""

    kind: Literal["linear", "mlp", "cmoe"] = "cmoe"
    layers: int = Field(2, ge=1, description="linear layers of the MLP, or of each expert")
    hidden: Annotated[int, Field(ge=1)] | Literal["as_cmoe"] | None = Field(
        None,
        description="width between two layers; null: that of the output, as released; as_cmoe: so wide that an mlp "
        "has as many parameters as the mixture that the other keys describe",
    )
    num_experts: int = Field(5, ge=1, description="N, the number of projection experts (cmoe)")
    router: Literal["constant", "hard", "sparse", "soft"] = Field("soft", description="how experts are weighted (cmoe)")
    strategy: Literal["token", "task", "token_task"] = Field(
        "token_task", description="what a sparse or soft router reads; token: no vision-level task tokens (cmoe)"
    )
    normalisation: Literal["sigmoid", "softmax"] | None = Field(
        None,
        description="sigmoid over its sum (eq. 14) or softmax (eq. 8); null: as released, sigmoid for soft, softmax "
        "for sparse (cmoe)",
    )
    top_k: int = Field(2, ge=1, description="experts that a sparse router keeps (cmoe)")
    masking: Literal["infinity", "zero"] = Field(
        "infinity",
        description="what becomes of the other scores: minus infinity, so that their weight is 0 (as released), or 0 "
        "(eq. 13 as printed), so that it is not (cmoe)",
    )
    router_hidden: int | None = Field(
        None,
        ge=1,
        description="width of the router's hidden layer; null: 4 times its input, as released (cmoe)",
    )

    @property
    def reads_tasks(self) -> bool:
        """Whether the connector's output depends on the image's task."""
        if self.kind != "cmoe" or self.router == "constant":
            return False
        return self.router == "hard" or self.strategy != "token"

    @model_validator(mode="after")
    def _enough_experts(self) -> "ConnectorSettings":
        if self.kind != "cmoe":
            if self.hidden == "as_cmoe" and (self.kind != "mlp" or self.layers < 2):
                raise ValueError("hidden=as_cmoe needs kind=mlp with two layers or more")
            return self
        if self.hidden == "as_cmoe":
            raise ValueError("hidden=as_cmoe is for kind=mlp")
        if self.router == "hard" and self.num_experts < len(IMAGE_TASKS):
            raise ValueError(
                f"a hard router gives each of the {len(IMAGE_TASKS)} image tasks an expert of its own; num_experts "
                f"{self.num_experts} is too few"
            )
        if self.router == "sparse" and self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        return self


class AdapterSettings(Closed):
    """What is trained in a frozen LLM: LoRA, or LoRA-MoE (Appendix A.2), on every linear layer but the head."""

    kind: Literal["lora", "lora_moe"] = "lora"
    rank: int = Field(8, ge=1, description="rank of a LoRA or of each LoRA expert")
    alpha: float = Field(16.0, gt=0, description="products are scaled by alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1)
    num_experts: int = Field(5, ge=1, description="N, LoRA experts per layer (lora_moe)")
    top_k: int = Field(2, ge=1, description="LoRA experts that a token uses (lora_moe)")

    @model_validator(mode="after")
    def _enough_experts(self) -> "AdapterSettings":
        if self.kind == "lora_moe" and self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        return self


class LanguageArchitecture(Closed):
    """Sizes of a LLaMA."""

    width: int = Field(ge=1, description="hidden size")
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    key_value_heads: int | None = Field(None, ge=1, description="null: as many as heads")
    feedforward: int = Field(ge=1, description="hidden size of the feed-forward layers")
    context: int = Field(1024, ge=1, description="longest sequence in tokens")
    vocabulary: int | None = Field(None, ge=1, description="null: that of the tokenizer trained on the run's corpus")
    tied: bool = Field(True, description="whether the head is the embedding")
    initial_scale: float = Field(0.02, gt=0, description="standard deviation of initial weights")

    @model_validator(mode="after")
    def _whole_heads(self) -> "LanguageArchitecture":
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not a multiple of 2 times heads ({self.heads})")
        if self.heads % (self.key_value_heads or self.heads):
            raise ValueError(f"heads {self.heads} is not a multiple of key_value_heads ({self.key_value_heads})")
        return self


class LanguageUse(Closed):
    """How the LLM is used; saved with the model."""

    precision: Precision = Field("float32", description="of the LLM's own weights")
    quantisation: Literal["8bit", "4bit"] | None = Field(None, description="of frozen weights, through bitsandbytes")
    trainable: bool = Field(False, description="whether the LLM's own weights are trained")
    adapter: AdapterSettings | None = Field(None, description="what is trained beside frozen weights")

    @model_validator(mode="after")
    def _one_way_of_training(self) -> "LanguageUse":
        if self.trainable and self.adapter is not None:
            raise ValueError("an adapter is for frozen weights; set trainable=false or adapter=null")
        if self.trainable and (self.quantisation or self.precision == "float16"):
            raise ValueError("quantised or float16 weights cannot be trained")
        return self


class LanguageSettings(LanguageUse):
    """The LLM: a pretrained causal LM by name or folder, or a LLaMA from scratch by its architecture."""

    pretrained: str | None = Field(None, description="hub name or folder; null: from scratch")
    architecture: LanguageArchitecture | None = Field(
        None, description="from scratch: what is built; pretrained: what is counted where the files are not at hand"
    )

    @model_validator(mode="after")
    def _something_to_build(self) -> "LanguageSettings":
        if self.pretrained is None and self.architecture is None:
            raise ValueError("either pretrained or architecture must be given")
        if self.pretrained is None and self.quantisation:
            raise ValueError("quantisation is for pretrained weights")
        return self


class PromptSettings(Closed):
    """How instructions, answers and boxes are written (``unimed_model.prompts``)."""

    profile: Literal["paper", "released", "chat"] = Field(
        "paper", description="the paper's format, that of the released code, or the LLM's own chat template"
    )
    identifiers: bool = Field(True, description="text-level task identifiers such as [vqa] (Table 1, Table 5)")


class TokenizerSettings(Closed):
    """A byte-level BPE tokenizer trained on the run's own corpus, for an LLM from scratch."""

    vocabulary: int = Field(600, ge=260, description="largest number of tokens; 256 bytes and 4 special ones included")


class MixingSettings(Closed):
    """How often each dataset is drawn."""

    by: Literal["size", "temperature", "ratios"] = Field(
        "size", description="in proportion to the number of samples, to a power of it, or as given"
    )
    temperature: float = Field(
        1.0,
        ge=LEAST_TEMPERATURE,
        description="T, a dataset of n samples weighs n^(1/T): 1 is by size, a large one draws all alike (temperature)",
    )
    ratios: dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description="dataset: weight, for exactly those that are trained on; datasets joined by + share one, by size "
        "(ratios)",
    )

    @property
    def arguments(self) -> dict[str, Any]:
        """Weights and temperature as ``Mixture`` takes them."""
        if self.by == "ratios":
            return {"weights": self.ratios}
        return {"temperature": self.temperature if self.by == "temperature" else 1.0}

    @model_validator(mode="after")
    def _ratios_where_asked_for(self) -> "MixingSettings":
        if self.by == "ratios" and not self.ratios:
            raise ValueError("by=ratios needs ratios, a weight for every dataset")
        return self


class DataSettings(Closed):
    """Which datasets are trained on, and how they are mixed."""

    datasets: tuple[str, ...] | None = Field(None, description="names; null: all that the data root offers")
    mixing: MixingSettings = MixingSettings()
    batches: Literal["homogeneous", "mixed"] = Field(
        "homogeneous", description="each of one dataset, or every sample drawn from any"
    )


class TrainingSettings(Closed):
    """How long, how fast, and with which optimiser (AdamW, linear warm-up, cosine decay to a floor)."""

    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(4, ge=1, description="samples per batch")
    gradient_accumulation: int = Field(1, ge=1, description="batches per step")
    peak_learning_rate: float = Field(gt=0)
    floor_learning_rate: float = Field(ge=0)
    warmup_steps: int = Field(ge=0)
    warmup_start_learning_rate: float = Field(0.0, ge=0, description="learning rate that the warm-up begins with")
    cosine: Literal["after_warmup", "all_steps"] = Field(
        "after_warmup",
        description="which steps the cosine spans: those after the warm-up, or all (as released: a small drop when the "
        "warm-up ends)",
    )
    weight_decay: float = Field(0.05, ge=0, description="not of biases, norms and other parameters with one dimension")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    gradient_clip: float | None = Field(None, gt=0, description="largest gradient norm; null: no clipping")
    precision: Precision = Field("float32", description="of activations (mixed precision); trained weights are float32")
    gradient_checkpointing: bool = Field(False, description="recompute activations instead of keeping them")
    workers: int = Field(0, ge=0, description="processes that open images; 0: the training process does")

    @model_validator(mode="after")
    def _down_to_the_floor(self) -> "TrainingSettings":
        for name in ("floor_learning_rate", "warmup_start_learning_rate"):
            if getattr(self, name) > self.peak_learning_rate:
                raise ValueError(
                    f"{name} {getattr(self, name):g} is above peak_learning_rate {self.peak_learning_rate:g}"
                )
        return self


class CheckpointSettings(Closed):
    """When the state of training is kept."""

    every: int | None = Field(
        1000, ge=1, description="steps between checkpoints; null: only at the end of the warm-up and of the run"
    )
    keep: int = Field(2, ge=1, description="newest checkpoints kept, beside the best and that of the warm-up's end")


class ValidationSettings(Closed):
    """The loss on samples that are not trained on."""

    every: int | None = Field(
        None, ge=1, description="steps between validations, beside one at every checkpoint; null: none"
    )
    split: str = Field("val", description="split that the samples are of, in the datasets that have it")
    samples: int = Field(64, ge=1, description="at most so many of each dataset, spread evenly over it")


class LoggingSettings(Closed):
    """What is said during training, beside the loss of every step."""

    every: int = Field(50, ge=1, description="steps over which throughput, memory and routing weights are taken")
    trackers: tuple[str, ...] = Field((), description="trackers of transformers, such as tensorboard or wandb")


class RunSettings(Closed):
    """The resolved whole of a run."""

    seed: int = Field(0, ge=0)
    vision: VisionSettings
    resampler: ResamplerSettings = ResamplerSettings()
    connector: ConnectorSettings = ConnectorSettings()
    llm: LanguageSettings
    prompt: PromptSettings = PromptSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings
    checkpoints: CheckpointSettings = CheckpointSettings()
    validation: ValidationSettings = ValidationSettings()
    logging: LoggingSettings = LoggingSettings()

    @model_validator(mode="after")
    def _whole_tokens(self) -> "RunSettings":
        architecture = self.vision.architecture
        if architecture is not None:
            require_whole_windows(self.vision.image_size // architecture.patch_size, self.resampler)
        return self


def require_whole_windows(side: int, resampler: ResamplerSettings) -> None:
    """Raise a ValueError unless a grid of ``side`` x ``side`` patches falls into whole windows.

    A strip may run on into the next row, as consecutive tokens do in the released code; a block may not.
    """
    rows, columns = resampler.window
    if rows == 1 and side * side % columns:
        raise ValueError(f"{side * side} patches cannot be concatenated or pooled {columns} at a time")
    if rows > 1 and side % rows:
        raise ValueError(f"a grid of {side} x {side} patches has no whole blocks of {rows} x {rows}")
