"""A data root of two datasets of captions, of which one may not be passed on; and the commands, in this process."""

import csv
import sys

import pytest
import yaml
from PIL import Image

PLANTED = "Quixotic wombats juggle seventeen marmalade barometers"
"""Stands in every report of the restricted dataset."""


def write_root(folder):
    """Datasets `private` (restricted) and `open`, each with 8 training and 3 test captions of 32 x 24 pixels."""
    entries = []
    for name, text, restricted in (("private", PLANTED, True), ("open", "A grey square", False)):
        root = folder / name
        (root / "images").mkdir(parents=True)
        for split, count in (("train", 8), ("test", 3)):
            rows = [[f"{split}{i}.png", f"{text}, number {i}.", "caption"] for i in range(count)]
            for i, (image, *_) in enumerate(rows):
                Image.new("L", (32, 24), 20 * i).save(root / "images" / image)
            with (root / f"MedPix_single_{split}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([["name", "context", "type"], *rows])
        entries.append({"name": name, "layout": "mpx_single", "root": name, "options": {"restricted": restricted}})
    (folder / "datasets.yaml").write_text(yaml.safe_dump(entries))
    return folder


def command(main, *arguments):
    """Run a command's entry point; return its status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["command", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return end.code or 0
    return 0


def trained(root, out, *options):
    """Run ``unimed-train`` for three steps; return its status."""
    from unimed_model.cli import train_main

    short = ("training.steps=3", "training.warmup_steps=1", "training.batch_size=2", "data.batches=mixed")
    overrides = [word for setting in short for word in ("--set", setting)]
    return command(train_main, "--preset", "tiny", *overrides, "--data", root, "--out", out, *options)
