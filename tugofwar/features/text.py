"""What ``tugofwar features`` prints, as plain text from plain mappings."""

from collections.abc import Iterator, Mapping
from typing import Any

from tugofwar.plain_table import plain_table

_MEASURES = {"silhouette": "silhouette", "knn_purity": "kNN purity"}
_FEW = 10
"""Samples of a dataset under which leaving one out shows too little of what others would give."""


def features_text(content: Mapping[str, Any], folder: str) -> str:
    """Separation and alignment with their intervals, what to know about the pictures, and where the tables are.

    Args:
        content: what ``analyses.feature_maps.measuring.summary`` returns.
        folder: where the tables are.
    """
    return "\n".join(_lines(content, folder))


def _lines(content: Mapping[str, Any], folder: str) -> Iterator[str]:
    module, sizes = content["modules"][0], content["samples"]
    widths = content["stages"]
    yield (
        f"{module}: {sum(sizes.values())} samples of {len(sizes)} dataset{'' if len(sizes) == 1 else 's'}, width "
        f"{widths['before']} before, {widths['after']} after"
    )
    yield from _separation(content)
    yield from _alignment(content)
    yield from _pictures(content)
    if content["untouched"]:
        yield f"not reaching {module}: {', '.join(content['untouched'])}"
    wanted = content["samples_wanted"]
    fewer = [f"{name} {size}" for name, size in sizes.items() if size < wanted]
    if fewer:
        yield f"fewer than the {wanted} samples that were asked for: {', '.join(fewer)}"
    few = [name for name, size in sizes.items() if size < _FEW]
    if few:
        yield f"under {_FEW} samples, so that intervals say little: {', '.join(few)}"
    if content["calls"] > 1:
        yield f"{module} is called up to {content['calls']} times in a forward pass; tokens of all calls are averaged"
    missing = content.get("missing_images")
    if missing:
        yield f"left out, image file missing: {', '.join(f'{count} of {name}' for name, count in missing.items())}"
    yield f"tables in {folder}"


def _separation(content: Mapping[str, Any]) -> Iterator[str]:
    rows = {(row["label"], row["measure"], row["stage"]): row for row in content["separation"] if row["name"] == "all"}
    if not rows:
        yield "one dataset only, so there is nothing to tell apart"
        return
    level = content["interval_level"]
    table = [
        [
            label,
            _MEASURES[measure],
            *(text for stage in content["stages"] for text in _cells(rows[label, measure, stage])),
        ]
        for label, measure in dict.fromkeys((label, measure) for label, measure, _ in rows)
    ]
    yield plain_table(["by", "measure", f"before [{level:.0%}]", "chance", f"after [{level:.0%}]", "chance"], table)


def _cells(row: Mapping[str, Any]) -> tuple[str, str]:
    return _with_interval(row), f"{row['chance']:.2f}"


def _alignment(content: Mapping[str, Any]) -> Iterator[str]:
    found = [row for row in content["alignment"] if row["name"] == "all"]
    if found:
        yield f"linear CKA between before and after: {_with_interval(found[0])}"
    else:
        yield (
            "linear CKA between before and after does not exist: on one side all samples (but for one) are alike, or "
            "all are equally far apart"
        )


def _pictures(content: Mapping[str, Any]) -> Iterator[str]:
    shares = [f"{entry['variance']:.0%} {stage}" for stage, entry in content["pca"].items()]
    yield (
        f"t-SNE: perplexity {content['perplexity']:g}, of principal components with {', '.join(shares)} of the variance"
    )
    for dimensions, (drawn, total) in content["points"].items():
        overlaps = {
            stage: [
                row["value"]
                for row in content["stability"]
                if (row["stage"], str(row["dimensions"]), row["measure"]) == (stage, dimensions, "neighbour_overlap")
            ]
            for stage in content["stages"]
        }
        shared = [f"{min(each):.0%} to {max(each):.0%} {stage}" for stage, each in overlaps.items() if each]
        part = f", {drawn:,} of {total:,} samples drawn" if drawn < total else ""
        if shared:
            yield f"neighbours that the {dimensions}-D pictures of two seeds share: {', '.join(shared)}{part}"


def _with_interval(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
