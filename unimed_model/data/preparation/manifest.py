"""The manifest of a dataset's splits: which samples are in which, by what rule, and what leaks between them.

It holds neither times nor paths, so equal data give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unimed_model.data.files import read_json
from unimed_model.data.layouts import LAYOUTS
from unimed_model.data.preparation.leakage import Leak
from unimed_model.data.prepared import Entry
from unimed_model.data.sample import Samples
from unimed_model.data.splits import Lists
from unimed_model.data.terms import TERMS
from unimed_model.errors import UserError

FORMAT = 1


def manifest(entry: Entry, splits: Mapping[str, Samples], leaks: Sequence[Leak]) -> dict[str, Any]:
    """Return the manifest as JSON values."""
    layout, terms = LAYOUTS[entry.layout], TERMS.get(entry.dataset)
    unit = layout.unit
    return {
        "format": FORMAT,
        "dataset": entry.dataset,
        "layout": entry.layout,
        "task": entry.task,
        "options": dict(entry.options),
        "language": entry.language,
        "seed": entry.seed,
        "rule": layout.rule,
        "paper": dict(zip(("train", "test"), terms.paper, strict=True)) if terms and terms.paper else None,
        "licence": terms.licence if terms else None,
        "known": terms.known if terms else None,
        "leakage": [asdict(leak) for leak in leaks],
        "unit": unit,
        "splits": {
            split: {
                "samples": len(samples),
                "images": entry.splits[split].images,
                "patients": len({sample.patient_id for sample in samples} - {None}),
                "findings": {kind: found.count for kind, found in samples.findings.items()},
                "units": list(dict.fromkeys(str(getattr(sample, unit)) for sample in samples)),
            }
            for split, samples in splits.items()
        },
    }


def units_of(path: Path, seed: int) -> Lists | None:
    """Return split -> units of a manifest that was made with ``seed``; None with another one.

    Raises:
        UserError: the file is damaged.
    """
    content = read_json(path)
    try:
        if content["format"] != FORMAT or content["seed"] != seed:
            return None
        return {split: frozenset(value["units"]) for split, value in content["splits"].items()}
    except (TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged; remove it and prepare again.") from error
