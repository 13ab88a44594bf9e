"""How the memory that a recording may use is divided."""

from dataclasses import dataclass

from tugofwar.sizes import available_memory, parse_bytes

# More than this makes neither the products nor the statistics better or faster.
_LARGEST_BUFFER = 256 * 2**20
_LARGEST_SAMPLE = 16 * 2**20
_SHARE_OF_FREE_MEMORY = 0.8


@dataclass(frozen=True)
class Budget:
    """Bytes for each use; ``factors`` is None where the system does not tell how much memory is free.

    Attributes:
        factors: what the passes leave behind; more spills to disk.
        buffer: the gradients that are rebuilt at a time.
        sample: gradients kept of a block for intervals of its statistics scores.
    """

    factors: int | None
    buffer: int
    sample: int

    @classmethod
    def of(cls, memory: int | str | None) -> "Budget":
        """Divide ``memory`` (bytes, or text such as ``"8GB"``); by default most of what is free now.

        Raises:
            UserError: not a positive size.
        """
        total = _free() if memory is None else parse_bytes(memory)
        if total is None:
            return cls(None, _LARGEST_BUFFER, _LARGEST_SAMPLE)
        buffer = min(_LARGEST_BUFFER, total // 4)
        sample = min(_LARGEST_SAMPLE, total // 16)
        # As much again as the sample: its resamples are drawn beside it.
        return cls(max(0, total - buffer - 2 * sample), buffer, sample)


def _free() -> int | None:
    available = available_memory()
    return None if available is None else int(_SHARE_OF_FREE_MEMORY * available)
