"""UniMedConfig: vision encoder, resampler, connector and LLM in one transformers configuration."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .settings import ConnectorSettings

IMAGE_TASKS = ("VQA", "REC", "REG", "RG", "CLS")
"""Tasks that own a vision-level task token, in the order of the released code. QA never sees an image."""


class UniMedConfig(PreTrainedConfig):
    """Configuration of a Uni-Med model.

    Args:
        vision_config: configuration of any transformers vision encoder with patch tokens and a CLS token.
        text_config: configuration of any transformers causal LM.
        resampler_rate: alpha of eq. 7, how many visual tokens are concatenated into one.
        connector: fields of ``ConnectorSettings``; an unknown field is an error.
        image_token_id: the placeholder in ``input_ids`` that an aligned visual token replaces.
    """

    model_type = "unimed"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012 - as transformers has it

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    resampler_rate: int = 4
    connector: dict[str, Any] | None = None
    image_token_id: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        self.vision_config = _sub_config(self.vision_config, "vit")
        self.text_config = _sub_config(self.text_config, "llama")
        self.connector = ConnectorSettings(**(self.connector or {})).model_dump()
        super().__post_init__(**kwargs)

    @property
    def connector_settings(self) -> ConnectorSettings:
        """The connector's settings, validated."""
        return ConnectorSettings(**(self.connector or {}))

    @property
    def image_tokens(self) -> int:
        """Number of aligned visual tokens per image."""
        vision: Any = self.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return patches // self.resampler_rate


def _sub_config(value: dict[str, Any] | PreTrainedConfig | None, default: str) -> PreTrainedConfig:
    if isinstance(value, PreTrainedConfig):
        return value
    fields = dict(value or {})
    return AutoConfig.for_model(fields.pop("model_type", default), **fields)
