"""Importing this module makes transformers' Auto classes know Uni-Med."""

from .configuration import UniMedConfig
from .modeling import UniMedForConditionalGeneration
from .processing import UniMedProcessor

__all__ = ["UniMedConfig", "UniMedForConditionalGeneration", "UniMedProcessor"]
