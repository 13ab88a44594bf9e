"""UniMedConfig: vision encoder, resampler, connector and LLM in one transformers configuration."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .data.sample import IMAGE_TASKS
from .settings import ConnectorSettings, EncoderUse, LanguageUse, ResamplerSettings, require_whole_windows

__all__ = ["IMAGE_TASKS", "UniMedConfig"]


class UniMedConfig(PreTrainedConfig):
    """Configuration of a Uni-Med model.

    The dictionaries hold the fields of the settings of the same name; an unknown field is an error.

    Args:
        vision_config: configuration of any transformers vision transformer.
        text_config: configuration of any transformers causal LM.
        vision: how the encoder is used, fields of ``EncoderUse``.
        resampler: fields of ``ResamplerSettings``.
        connector: fields of ``ConnectorSettings``.
        llm: how the LLM is used, fields of ``LanguageUse``.
        image_token_id: the placeholder in ``input_ids`` that an aligned visual token replaces; it may lie outside
            the LLM's vocabulary.
        bases: for ``vision`` and ``llm``, where pretrained: name, folder and digest of the weights.
        holds_bases: whether the checkpoint beside this configuration holds the frozen bases too.
    """

    model_type = "unimed"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012 - as transformers has it

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    vision: dict[str, Any] | None = None
    resampler: dict[str, Any] | None = None
    connector: dict[str, Any] | None = None
    llm: dict[str, Any] | None = None
    image_token_id: int = 0
    bases: dict[str, Any] | None = None
    holds_bases: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        vision_config = _sub_config(self.vision_config, "vit")
        self.vision_config = vision_config
        self.text_config = _sub_config(self.text_config, "llama")
        self.vision = EncoderUse(**(self.vision or {"image_size": vision_config.image_size})).model_dump()
        self.resampler = ResamplerSettings(**(self.resampler or {})).model_dump()
        self.connector = ConnectorSettings(**(self.connector or {})).model_dump()
        self.llm = LanguageUse(**(self.llm or {})).model_dump()
        self.bases = dict(self.bases or {})
        require_whole_windows(self.grid_side, self.resampler_settings)
        super().__post_init__(**kwargs)

    @property
    def encoder_use(self) -> EncoderUse:
        """How the vision encoder is used, validated."""
        return EncoderUse(**(self.vision or {}))

    @property
    def resampler_settings(self) -> ResamplerSettings:
        """The resampler's settings, validated."""
        return ResamplerSettings(**(self.resampler or {}))

    @property
    def connector_settings(self) -> ConnectorSettings:
        """The connector's settings, validated."""
        return ConnectorSettings(**(self.connector or {}))

    @property
    def language_use(self) -> LanguageUse:
        """How the LLM is used, validated."""
        return LanguageUse(**(self.llm or {}))

    @property
    def grid_side(self) -> int:
        """Patches along a side of an image."""
        vision: Any = self.vision_config
        return self.encoder_use.image_size // vision.patch_size

    @property
    def connector_width(self) -> int:
        """Width of the visual tokens that the connector reads."""
        vision: Any = self.vision_config
        resampler = self.resampler_settings
        return int(vision.hidden_size) * (resampler.rate if resampler.kind == "projection" else 1)

    @property
    def image_tokens(self) -> int:
        """Number of aligned visual tokens per image."""
        return self.grid_side**2 // self.resampler_settings.rate


def _sub_config(value: dict[str, Any] | PreTrainedConfig | None, default: str) -> Any:
    if isinstance(value, PreTrainedConfig):
        return value
    fields = dict(value or {})
    return AutoConfig.for_model(fields.pop("model_type", default), **fields)


AutoConfig.register(UniMedConfig.model_type, UniMedConfig)
