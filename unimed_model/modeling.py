"""UniMedForConditionalGeneration: vision encoder, resampler, connector and LLM (Figure 3 of the paper)."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from .checkpoint import load_trained, open_bases, required_bases, trained_state
from .configuration import UniMedConfig
from .connector import ConnectorOutput, build_connector
from .errors import UserError
from .language import freeze, fresh_language_model, make_trainable
from .lora_moe import recording_router_weights
from .resampler import Resampler
from .vision import VisionEncoder

_ADDED_BY_AUTO_CLASSES = {"trust_remote_code", "revision", "adapter_kwargs", "_from_auto", "_commit_hash"}
_TAKEN_WITHOUT_BASES = {"config", "dtype", "torch_dtype"} | _ADDED_BY_AUTO_CLASSES


@dataclass
class UniMedOutput(ModelOutput):
    """What a forward pass returns.

    Attributes:
        loss: mean cross-entropy over all answer tokens of the batch; None without labels.
        logits: (batch, sequence, vocabulary).
        past_key_values: the LLM's cache.
        hidden_states: the LLM's, if asked for.
        attentions: the LLM's, if asked for.
        router_weights: the connector's, (images, tokens, experts), if asked for; None without a mixture or images.
        lora_router_weights: LoRA-MoE's, layer name -> (batch, sequence, experts), if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    router_weights: Tensor | None = None
    lora_router_weights: dict[str, Tensor] | None = None


class UniMedPreTrainedModel(PreTrainedModel):
    """How transformers loads, saves and initialises this model."""

    config_class = UniMedConfig
    config: UniMedConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # what is trained stays in full precision when the rest is opened in half
    _keep_in_fp32_modules_strict = {"connector", "lora_A", "lora_B", "lora_router"}  # noqa: RUF012 - as transformers has it

    def _init_weights(self, module: nn.Module) -> None:
        """Leave weights as built: the parts initialise themselves, the connector by torch's own default."""


class UniMedForConditionalGeneration(UniMedPreTrainedModel, GenerationMixin):
    """A causal LM that reads images through a connector.

    Text-only samples never reach the connector. One batch may mix samples with and without an image and of
    different tasks: ``pixel_values`` and ``task_ids`` have one row per image, in the order of the images'
    placeholders in ``input_ids``.

    Args:
        config: the model's configuration.
        vision_model: the vision encoder with its weights, which is changed in place; None: fresh weights.
        language_model: the LLM with its weights, which is changed in place; None: fresh weights.
    """

    def __init__(
        self,
        config: UniMedConfig,
        vision_model: nn.Module | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        text: Any = config.text_config
        self.vision_model = VisionEncoder(config.vision_config, config.encoder_use, vision_model)
        self.resampler = Resampler(config.resampler_settings, config.grid_side)
        self.connector = build_connector(config.connector_settings, config.connector_width, text.hidden_size)
        self.language_model = language_model or fresh_language_model(text, config.language_use)
        self.post_init()
        # after post_init, which would draw an adapter's weights anew
        make_trainable(self.language_model, config.language_use)

    def _freeze(self) -> None:
        """Let be trained what the configuration says; transformers' loader lets everything."""
        self.vision_model.requires_grad_(self.config.encoder_use.trainable)
        freeze(self.language_model, self.config.language_use)

    def get_input_embeddings(self) -> nn.Module:
        """Return the LLM's token embeddings."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the LLM's head."""
        return self.language_model.get_output_embeddings()

    def get_image_features(
        self,
        pixel_values: Tensor | None = None,
        task_ids: Tensor | None = None,
        vision_tokens: Tensor | None = None,
    ) -> ConnectorOutput:
        """Encode images; both ends of the connector are returned.

        Args:
            pixel_values: normalised images (images, 3, height, width).
            task_ids: (images,) indices into ``IMAGE_TASKS``; needed where the connector reads the task.
            vision_tokens: what ``vision_model.encode`` made of the images (images, patches, width), instead of their
                pixels.

        Returns:
            Resampled tokens before the connector (images, tokens, width), aligned tokens after it (images, tokens,
            text width), and routing weights (images, tokens, experts).

        Raises:
            ValueError: neither pixels nor tokens, or both.
        """
        if (pixel_values is None) == (vision_tokens is None):
            raise ValueError("images are given either as pixel_values or as vision_tokens")
        encoded = self.vision_model(pixel_values) if vision_tokens is None else self.vision_model.finish(vision_tokens)
        return self.connector(self.resampler(encoded), task_ids)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        task_ids: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_router_weights: bool = False,
        vision_tokens: Tensor | None = None,
        **kwargs: Any,
    ) -> UniMedOutput:
        """Run the model.

        Args:
            input_ids: (batch, sequence), image placeholders where aligned visual tokens go.
            attention_mask: (batch, sequence), 0 on padding.
            pixel_values: (images, 3, height, width); None for text alone.
            task_ids: (images,) index of each image's task in ``IMAGE_TASKS``.
            labels: (batch, sequence), -100 where no loss is taken.
            past_key_values: cache of an earlier call.
            inputs_embeds: (batch, sequence, width) instead of ``input_ids``.
            position_ids: (batch, sequence); ``generate`` counts them from the first token that is no padding.
            output_router_weights: also return the weights of every router, the connector's and LoRA-MoE's.
            vision_tokens: the encoder's tokens (images, patches, width) instead of ``pixel_values``, in the same
                order, from a ``FeatureCache``.
            **kwargs: passed on to the LLM.

        Raises:
            ValueError: images without the task ids that the connector reads, placeholders that do not match the
                visual tokens, or images given twice.
        """
        features: ConnectorOutput | None = None
        if pixel_values is not None or vision_tokens is not None:
            features = self.get_image_features(pixel_values, task_ids, vision_tokens)
        if inputs_embeds is None:
            inputs_embeds = self._embed(input_ids, features)
        elif features is not None:
            raise ValueError("images need input_ids, whose placeholders say where the visual tokens go")
        if position_ids is not None:
            kwargs["position_ids"] = position_ids
        with self._recording(output_router_weights) as lora_router_weights:
            outputs = self.language_model(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                labels=labels,
                past_key_values=past_key_values,
                **kwargs,
            )
        return UniMedOutput(
            loss=outputs.loss,
            logits=outputs.logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_weights=features.router_weights if features and output_router_weights else None,
            lora_router_weights=lora_router_weights,
        )

    def _recording(self, wanted: bool) -> AbstractContextManager[dict[str, Tensor] | None]:
        adapter = self.config.language_use.adapter
        if wanted and adapter is not None and adapter.kind == "lora_moe":
            return recording_router_weights(self.language_model)
        return nullcontext()

    def _embed(self, input_ids: Tensor | None, features: ConnectorOutput | None) -> Tensor:
        """Embed tokens (batch, sequence) with aligned visual tokens in the placeholders' stead."""
        if input_ids is None:
            raise ValueError("either input_ids or inputs_embeds must be given")
        placeholders = input_ids == self.config.image_token_id
        # the placeholder's id may lie outside the vocabulary
        words: Tensor = self.get_input_embeddings()(input_ids.masked_fill(placeholders, 0))
        if features is None:
            self._require_match(placeholders, 0)
            return words
        tokens = features.tokens.flatten(0, 1)
        self._require_match(placeholders, len(tokens))
        return words.masked_scatter(placeholders.unsqueeze(-1), tokens.to(words.dtype))

    def _require_match(self, placeholders: Tensor, given: int) -> None:
        if placeholders.is_meta:
            return
        wanted = int(placeholders.sum())
        if wanted != given:
            raise ValueError(f"input_ids hold {wanted} image placeholders but the images give {given} visual tokens")

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        task_ids: Tensor | None = None,
        is_first_iteration: bool = False,
        vision_tokens: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Give the images to the first step alone: later steps find them in the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs |= {"pixel_values": pixel_values, "task_ids": task_ids, "vision_tokens": vision_tokens}
        return inputs

    def save_pretrained(self, save_directory: str | Path, *, full: bool = False, **kwargs: Any) -> None:
        """Save configuration and weights as safetensors.

        Args:
            save_directory: folder.
            full: also save frozen pretrained bases. By default their place are name and digest in the configuration,
                and ``from_pretrained`` looks for them.
            **kwargs: as transformers has them.
        """
        state = kwargs.pop("state_dict", None) or self.state_dict()
        self.config.holds_bases = full or not required_bases(self.config)
        if not self.config.holds_bases:
            state = trained_state(state, self.config)
        # parameters under the names that they have here, not under those of older versions of transformers
        super().save_pretrained(save_directory, state_dict=state, **{"save_original_format": False} | kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: Any, weights: str | Path | None = None, **kwargs: Any
    ) -> Any:
        """Open a saved model, with its frozen bases from where they are.

        Args:
            pretrained_model_name_or_path: folder, or hub name for a model saved with ``full=True``.
            *args: as transformers has them.
            weights: folder with the pretrained bases, if they are not where they were at training.
            **kwargs: as transformers has them, but for ``dtype``: precisions are in the configuration. For a model
                saved without its bases, ``config`` alone.

        Raises:
            UserError: a base that is not found or not the one trained on, weights that do not fit, or an argument that
                is not taken.
        """
        config = kwargs.get("config") or cls.config_class.from_pretrained(pretrained_model_name_or_path)
        if any(kwargs.get(name) not in (None, "auto") for name in ("dtype", "torch_dtype")):
            raise UserError("dtype is not taken: llm.precision and vision.precision of the configuration say it.")
        if config.holds_bases:
            opened = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
            (opened[0] if isinstance(opened, tuple) else opened)._freeze()
            return opened
        unused = sorted(kwargs.keys() - _TAKEN_WITHOUT_BASES)
        if args or unused:
            raise UserError(
                f"{', '.join(unused) or 'Positional arguments'}: not taken for a model saved without its bases; "
                "save it with full=True."
            )
        model = cls(config, **open_bases(config, Path(weights) if weights else None))
        load_trained(model, Path(pretrained_model_name_or_path))
        return model.eval()


AutoModelForImageTextToText.register(UniMedConfig, UniMedForConditionalGeneration)
