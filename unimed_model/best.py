"""Which checkpoint is the best: by held-out loss where there is one, else by the loss of the steps before it."""

from collections import Counter
from typing import Any

from .errors import UserError


class Best:
    """The lowest loss at a checkpoint so far.

    A loss is a mean over datasets, each weighing the same, so that a large dataset does not decide alone. Without
    validation it is taken over the steps since the checkpoint before.

    Args:
        by: ``validation loss`` or ``training loss``.

    Attributes:
        step: of the best checkpoint; None: there is none yet.
        value: its loss.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self.step: int | None = None
        self.value: float | None = None
        self._sums: dict[str, list[float]] = {}
        self._validated: float | None = None

    def note_training(self, datasets: Counter[str], summed: float, tokens: int) -> None:
        """Take note of a batch: loss summed over its answer tokens, shared out by samples where datasets are mixed."""
        samples = datasets.total()
        for name, count in datasets.items():
            sums = self._sums.setdefault(name, [0.0, 0.0])
            sums[0] += summed * count / samples
            sums[1] += tokens * count / samples

    def note_validation(self, loss: float) -> None:
        """Take note of a mean held-out loss."""
        self._validated = loss

    def at_checkpoint(self, step: int) -> None:
        """Decide whether the checkpoint of a step is the best, and begin anew to collect losses.

        One that is written out of turn, because a signal came, is for no decision: its loss is of too few steps.
        """
        means = [summed / tokens for summed, tokens in self._sums.values()]
        training = sum(means) / len(means) if means else None
        value = self._validated if self.by == "validation loss" else training
        self._sums, self._validated = {}, None
        if value is not None and (self.value is None or value < self.value):
            self.step, self.value = step, value

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it, as JSON has it: also what was collected since the last decision."""
        return {"by": self.by, "step": self.step, "value": self.value, "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            UserError: it was chosen by another loss.
        """
        if state["by"] != self.by:
            raise UserError(f"The best checkpoint was chosen by {state['by']} before, and would be by {self.by} now.")
        self.step, self.value = state["step"], state["value"]
        self._sums = {name: list(sums) for name, sums in state["sums"].items()}
