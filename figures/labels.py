"""Names as they stand in a picture: long ones shortened in the middle, and still told apart."""

from collections.abc import Sequence

ELLIPSIS = "…"


def shortened(names: Sequence[str], width: int = 24) -> list[str]:
    """Names of at most ``width`` characters, in the given order, no two different ones alike.

    Args:
        names: as tables have them; equal ones stay equal.
        width: most characters of a label, at least 8.

    Returns:
        One label per name; beginning and end are kept, and a number tells labels apart that would be equal.
    """
    if width < 8:
        raise ValueError(f"width is {width}; a label needs at least 8 characters")
    # Names that fit keep their own text, whatever a longer one would be shortened to.
    labels = {name: name for name in names if len(name) <= width}
    taken = set(labels)
    for name in names:
        if name in labels:
            continue
        label, number = _cut(name, width, ELLIPSIS), 2
        while label in taken:
            label, number = _cut(name, width, f"{ELLIPSIS}{number}{ELLIPSIS}"), number + 1
        labels[name] = label
        taken.add(label)
    return [labels[name] for name in names]


def _cut(name: str, width: int, middle: str) -> str:
    kept = max(width - len(middle), 2)
    tail = kept // 2
    return name[: kept - tail] + middle + name[len(name) - tail :]
