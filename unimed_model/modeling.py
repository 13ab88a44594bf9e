"""UniMedForConditionalGeneration: vision encoder, resampler, connector and LLM (Figure 3 of the paper)."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration import IMAGE_TASKS, UniMedConfig
from .connector import ConnectorOutput, build_connector
from .resampler import ProjectionResampler


@dataclass
class UniMedOutput(ModelOutput):
    """What a forward pass returns.

    Attributes:
        loss: mean cross-entropy over all answer tokens of the batch; None without labels.
        logits: (batch, sequence, vocabulary).
        past_key_values: the LLM's cache.
        router_weights: (images, tokens, experts); None without a router or without images.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any | None = None
    router_weights: Tensor | None = None


class UniMedPreTrainedModel(PreTrainedModel):
    """How transformers loads, saves and initialises this model."""

    config_class = UniMedConfig
    config: UniMedConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        """Leave weights as built: the parts initialise themselves, the connector by torch's own default."""


class UniMedForConditionalGeneration(UniMedPreTrainedModel, GenerationMixin):
    """A causal LM that reads images through a connector.

    Text-only samples never reach the connector. One batch may mix samples with and without an image and of
    different tasks: ``pixel_values`` and ``task_ids`` have one row per image, in the order of the images'
    placeholders in ``input_ids``.
    """

    def __init__(self, config: UniMedConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        text: Any = config.text_config
        self.vision_model = AutoModel.from_config(vision)
        # the pooler on the CLS token is never used, so it must not stand among the trained parameters
        self.vision_model.pooler = None
        self.resampler = ProjectionResampler(config.resampler_rate)
        self.connector = build_connector(
            config.connector_settings,
            vision.hidden_size * config.resampler_rate,
            text.hidden_size,
            len(IMAGE_TASKS),
        )
        self.language_model = AutoModelForCausalLM.from_config(text)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the LLM's token embeddings."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """Return the LLM's head."""
        return self.language_model.get_output_embeddings()

    def get_image_features(self, pixel_values: Tensor, task_ids: Tensor) -> ConnectorOutput:
        """Encode images (images, 3, height, width) into aligned tokens (images, tokens, text width).

        Args:
            pixel_values: normalised images.
            task_ids: (images,) indices into ``IMAGE_TASKS``.
        """
        hidden = self.vision_model(pixel_values=pixel_values).last_hidden_state
        patches = hidden[:, 1:]  # the CLS token is dropped, as released
        return self.connector(self.resampler(patches), task_ids)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        task_ids: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> UniMedOutput:
        """Run the model.

        Args:
            input_ids: (batch, sequence), image placeholders where aligned visual tokens go.
            attention_mask: (batch, sequence), 0 on padding.
            pixel_values: (images, 3, height, width); None for text alone.
            task_ids: (images,) index of each image's task in ``IMAGE_TASKS``; needed with ``pixel_values``.
            labels: (batch, sequence), -100 where no loss is taken.
            past_key_values: cache of an earlier call.
            inputs_embeds: (batch, sequence, width) instead of ``input_ids``.
            **kwargs: passed on to the LLM.

        Raises:
            ValueError: images without task ids, or placeholders that do not match the visual tokens.
        """
        router_weights = None
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            if task_ids is None or input_ids is None:
                raise ValueError("pixel_values need input_ids with placeholders and the task of each image in task_ids")
            aligned = self.get_image_features(pixel_values, task_ids)
            router_weights = aligned.router_weights
            inputs_embeds = self._place(input_ids, inputs_embeds, aligned.tokens)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            labels=labels,
            past_key_values=past_key_values,
            **kwargs,
        )
        return UniMedOutput(outputs.loss, outputs.logits, outputs.past_key_values, router_weights)

    def _place(self, input_ids: Tensor, inputs_embeds: Tensor, tokens: Tensor) -> Tensor:
        placeholders = input_ids == self.config.image_token_id
        wanted, given = int(placeholders.sum()), tokens.shape[0] * tokens.shape[1]
        if wanted != given:
            raise ValueError(f"input_ids hold {wanted} image placeholders but the images give {given} visual tokens")
        return inputs_embeds.masked_scatter(placeholders.unsqueeze(-1), tokens.to(inputs_embeds.dtype))

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        task_ids: Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Give the images to the first step alone: later steps find them in the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs["pixel_values"], inputs["task_ids"] = pixel_values, task_ids
        return inputs
