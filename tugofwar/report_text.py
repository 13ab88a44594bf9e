"""What the commands print about measurements and recordings, as plain text from plain mappings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tugofwar.plain_table import plain_table


def measurement_text(content: Mapping[str, Any], patterns: str, folder: str) -> str:
    """Indexes with intervals, what is not touched, what is not to be trusted, and where the tables are.

    Args:
        content: what ``analyses.interference.summary`` returns.
        patterns: the selected parameters, as the user wrote them.
        folder: where the tables are.
    """
    return "\n".join(_measurement_lines(content, patterns, folder))


def _measurement_lines(content: Mapping[str, Any], patterns: str, folder: str) -> Iterator[str]:
    header = ["dataset", "task", "batches", f"index / max [{content['interval_level']:.0%} interval]"]
    yield plain_table(
        header,
        [
            [name, row.get("task", ""), str(row["batches"]), _with_interval(row)]
            for name, row in content["dataset"].items()
        ],
    )
    if content["untouched"]:
        yield f"not touching {patterns}: {', '.join(content['untouched'])}"
    for level, names in content["sign_uncertain"].items():
        for name in names:
            yield f"{level} {name}: the sign of its denominator is uncertain; do not trust its row of GD"
    for level, names in content["unstable"].items():
        if names:
            yield f"unstable by leave_one_out, a mean of ratios: {level} {', '.join(names)}"
    for level, reason in content["left_out"].items():
        yield f"no measures between {level}s: {reason}"
    yield from _missing_lines(content["missing_images"])
    yield from _score_lines(content["scores"])
    if "sketch" in content:
        yield from _sketch_lines(content["sketch"])
    if "target_width" in content:
        yield _forecast_line(content["target_width"])
    yield f"estimator {content['estimator']}; tables in {folder}"


def _missing_lines(missing: Mapping[str, int]) -> Iterator[str]:
    if missing:
        yield f"left out, image file missing: {', '.join(f'{count} of {name}' for name, count in missing.items())}"


def _score_lines(scores: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    nulls = {"null_signs": "if signs were independent", "null_no_conflict": "if nothing conflicted"}
    for level, shares in scores.items():
        compared = [f"{shares[null]:.1%} {words}" for null, words in nulls.items() if null in shares]
        beside = f" ({', '.join(compared)})" if compared else ""
        yield f"statistics score over 0.9 between {level}s: {shares['share']:.1%} of parameters{beside}"


def _sketch_lines(sketch: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"sketched to {sketch['dimension']} numbers per part: expected error of an inner product "
        f"{sketch['expected_error']:.2g} of the product of the norms"
    )
    shares = [f"{name} {share:.0%}" for name, share in sketch["share_of_denominator"].items()]
    if shares:
        yield f"as a share of GD's denominator: {', '.join(shares)}"


def _forecast_line(forecast: Mapping[str, Any]) -> str:
    if "reason" in forecast:
        return f"no forecast for intervals of width {forecast['width']:g}: {forecast['reason']}"
    row, column = forecast["widest"]
    line = (
        f"intervals of GD no wider than {forecast['width']:g} need about {forecast['batches']:,} batches per dataset; "
        f"the widest now is {forecast['widest_width']:.3g} ({row}, {column})"
    )
    left_out = forecast["sign_uncertain"]
    return f"{line}; left out, because their sign is uncertain: {', '.join(left_out)}" if left_out else line


def _with_interval(row: Mapping[str, Any]) -> str:
    if "index_normalised" not in row:
        return "undefined: no index is positive"
    text = f"{row['index_normalised']:.3f}"
    if "index_normalised_low" not in row:
        return text
    return f"{text} [{row['index_normalised_low']:.3f}, {row['index_normalised_high']:.3f}]"


def inspection_text(content: Mapping[str, Any]) -> str:
    """Datasets, blocks and indexes of a recording.

    Args:
        content: what ``inspection.inspection`` returns.
    """
    return "\n".join(_inspection_lines(content))


def _inspection_lines(content: Mapping[str, Any]) -> Iterator[str]:
    datasets = content["datasets"]
    rows = [[n, d["task"] or "", str(d["batches"]), f"{d['mean_loss']:.4f}"] for n, d in datasets.items()]
    yield plain_table(["dataset", "task", "batches", "mean loss"], rows)
    if content["untouched"]:
        yield f"not touching the selected parameters: {', '.join(content['untouched'])}"
    yield from _missing_lines(content["metadata"].get("missing_images", {}))
    blocks = content["blocks"]
    sizes = [[name, str(len(block)), f"{sum(block.values()):,}"] for name, block in blocks.items()]
    total = sum(sum(block.values()) for block in blocks.values())
    yield "\n" + plain_table(["block", "tensors", "parameters"], [*sizes, ["all", "", f"{total:,}"]])
    if content["choices"]:
        yield "\nHow the gradients were kept"
        yield _choices_table(content["choices"])
    for level, undefined in content["undefined"].items():
        yield f"without a statistics score between {level}s (no gradient reaches them): {undefined:,} parameters"
    if content["geometries"]:
        yield f"also recorded in the geometry of: {', '.join(content['geometries'])}"
    yield "\nTug-of-war index (eq. 4) by estimator"
    yield from _index_lines(content["index"])


def _choices_table(choices: Sequence[Mapping[str, Any]]) -> str:
    rows = [[c["part"], f"{c['parameters']:,}", c["kept"], c["multiplied"], c["reason"]] for c in choices]
    return plain_table(["part", "parameters", "kept as", "products", "why"], rows)


def _index_lines(indexes: Mapping[str, Mapping[str, float] | str]) -> Iterator[str]:
    defined = {name: index for name, index in indexes.items() if not isinstance(index, str)}
    names = list(dict.fromkeys(dataset for index in defined.values() for dataset in index))
    yield plain_table(
        ["dataset", *defined], [[name, *(f"{index[name]:.4f}" for index in defined.values())] for name in names]
    )
    for name, index in indexes.items():
        if isinstance(index, str):
            yield f"{name}: {index}"
