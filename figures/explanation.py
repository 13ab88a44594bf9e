"""What stands beside a picture: how to read it, what it shows and how surely, and what it was made from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """Text beside one picture, plain text without markup.

    Attributes:
        title: a few words.
        reading: two sentences on how to read it.
        finding: a computed sentence on what it shows, hedged, only where the interval supports it; None where
            nothing is supported.
        caption: sample sizes, estimator, interval.
        warnings: what makes numbers in it untrustworthy, one sentence each.
    """

    title: str
    reading: str
    finding: str | None
    caption: str
    warnings: tuple[str, ...] = ()
