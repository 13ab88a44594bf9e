"""Small awkward architectures whose gradients must come out right; ``test_zoo.py`` compares them with autograd."""

from . import late, layers, pretrained, sharing, traps
from .frame import ARCHITECTURES, Architecture, Specimen

__all__ = ["ARCHITECTURES", "Architecture", "Specimen", "late", "layers", "pretrained", "sharing", "traps"]
