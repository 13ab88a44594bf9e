"""The published raw layouts by name, and the published datasets that come in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from unimed_model.data.readers import (
    jsonl,
    medmnist,
    medqa,
    mimic_cxr,
    mpx,
    path_vqa,
    pubmedqa,
    sa_med2d,
    slake,
    vqa_rad,
)
from unimed_model.data.readers.regions import RegionOptions
from unimed_model.data.readers.request import ImageOptions, LayoutOptions, Request
from unimed_model.data.readers.slake import questions as slake_questions
from unimed_model.data.readers.slake import regions as slake_regions
from unimed_model.data.sample import Samples


@dataclass(frozen=True, slots=True)
class Layout:
    """One raw format: how to tell that a folder holds it, and how to read it.

    Attributes:
        task: of its samples; None where the files tell (`task_in`).
        options: what may be chosen.
        holds: whether a folder holds it.
        read: samples of a split.
        splits: those that partition the dataset; a reader may know further ones, which overlap with these.
        unit: the attribute of `Sample` by which samples are dealt out to splits.
        drawn: whether splits are drawn from among more, so that an earlier preparation's are kept to.
        rule: how samples are dealt out to splits, in words, for the manifest.
        task_in: reads the task off the files; called with the folder, the dataset's name and the options.
    """

    task: str | None
    options: type[LayoutOptions]
    holds: Callable[[Path, Any], bool]
    read: Callable[[Request, Any], Samples]
    splits: tuple[str, ...] = ("train", "test")
    unit: Literal["image_id", "sample_id"] = "sample_id"
    drawn: bool = False
    rule: str = "the published files"
    task_in: Callable[[Path, str, Any], str] | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A published dataset: its layout, its default folder under a data root, and the layout's options."""

    layout: str
    folder: str
    options: Mapping[str, Any] = field(default_factory=dict)


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "medqa": Layout("QA", medqa.MedQAOptions, medqa.holds, medqa.read, medqa.SPLITS),
        "pubmedqa": Layout("QA", LayoutOptions, pubmedqa.holds, pubmedqa.read),
        "slake_vqa": Layout(
            "VQA", ImageOptions, slake_questions.holds, slake_questions.read, unit="image_id", rule=slake.RULE
        ),
        "slake_rec": Layout(
            "REC", RegionOptions, slake_regions.holds, slake_regions.read, unit="image_id", rule=slake.RULE
        ),
        "slake_reg": Layout(
            "REG", RegionOptions, slake_regions.holds, slake_regions.read, unit="image_id", rule=slake.RULE
        ),
        "path_vqa": Layout("VQA", ImageOptions, path_vqa.holds, path_vqa.read, path_vqa.SPLITS),
        "sa_med2d_rec": Layout(
            "REC",
            sa_med2d.SAMed2DOptions,
            sa_med2d.holds,
            sa_med2d.read,
            drawn=True,
            rule=sa_med2d.RULE,
        ),
        "sa_med2d_reg": Layout(
            "REG",
            sa_med2d.SAMed2DOptions,
            sa_med2d.holds,
            sa_med2d.read,
            drawn=True,
            rule=sa_med2d.RULE,
        ),
        "mimic_cxr": Layout(
            "RG",
            mimic_cxr.MimicOptions,
            mimic_cxr.holds,
            mimic_cxr.read,
            mimic_cxr.SPLITS,
            unit="image_id",
            drawn=True,
            rule=mimic_cxr.RULE,
        ),
        "mpx_single": Layout("RG", mpx.MPxOptions, mpx.holds, mpx.read),
        "medmnist": Layout("CLS", medmnist.MedMNISTOptions, medmnist.holds, medmnist.read, medmnist.SPLITS),
        "vqa_rad": Layout("VQA", ImageOptions, vqa_rad.holds, vqa_rad.read),
        "jsonl": Layout(None, jsonl.JsonlOptions, jsonl.holds, jsonl.read, jsonl.SPLITS, task_in=jsonl.task_in),
    }
)
"""Name of a layout -> how to read it."""

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "medqa": Published("medqa", "medqa"),
        "pubmedqa": Published("pubmedqa", "pubmedqa"),
        "slake_vqa": Published("slake_vqa", "slake"),
        "slake_rec": Published("slake_rec", "slake"),
        "slake_reg": Published("slake_reg", "slake"),
        "path_vqa": Published("path_vqa", "path_vqa"),
        "sa_med2d_rec": Published("sa_med2d_rec", "sa_med2d"),
        "sa_med2d_reg": Published("sa_med2d_reg", "sa_med2d"),
        "mimic_cxr": Published("mimic_cxr", "mimic_cxr"),
        "mpx_single": Published("mpx_single", "mpx"),
        "dermamnist": Published("medmnist", "medmnist", {"flag": "dermamnist"}),
        "organsmnist": Published("medmnist", "medmnist", {"flag": "organsmnist"}),
        "vqa_rad": Published("vqa_rad", "vqa_rad"),
    }
)
"""Name of a dataset -> where and how it comes: the paper's in the order of its Table 4, then others."""
