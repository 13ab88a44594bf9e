"""record_routing(): batches in, what every router did with them out."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from tugofwar.engine.collecting import check_length, first_batches
from tugofwar.errors import UserError
from tugofwar.probing import Loss, default_loss, move_to
from tugofwar.restoring import probing_state
from tugofwar.routing.capture import Captured, SampleSums, capturing, find_routers, sums_of_calls, switched_off
from tugofwar.routing.outputs import LOGITS, RouterOutput

Units = Mapping[str, Sequence[Sequence[Hashable]]]
"""Dataset -> per batch, per sample, what the sample is a part of."""


@dataclass
class RouterRecord:
    """What one router did.

    Attributes:
        name: dotted name of the module.
        experts: number of experts.
        gives: ``weights`` or ``logits``.
        counted: which tokens count: ``all``, or the entry of the batches that says so.
        switchable: whether experts can be switched off: there are two or more, and the form of the output is known.
        samples: dataset -> sums over the tokens of each sample, or of each unit's samples; only datasets that reach
            the router.
        sizes: dataset -> number of samples behind them.
        switched: dataset -> loss with each expert switched off, ``(experts, batches)``; empty where that was not done.
    """

    name: str
    experts: int
    gives: str
    counted: str
    switchable: bool
    samples: dict[str, SampleSums] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    switched: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class RoutingRecord:
    """What the routers of a model did with batches of every dataset.

    Attributes:
        routers: those that were reached, in the model's order.
        losses: dataset -> loss of each batch, ``(batches,)``.
        untouched: datasets none of whose samples reaches a router.
        tasks: task of each dataset; empty where none is known.
    """

    routers: tuple[RouterRecord, ...]
    losses: Mapping[str, NDArray[np.float64]]
    untouched: tuple[str, ...]
    tasks: Mapping[str, str]


def record_routing(
    model: nn.Module,
    datasets: Mapping[str, Iterable[Any]],
    routers: str = "connector.router",
    batches: int = 25,
    loss: Loss | None = None,
    seed: int = 0,
    progress: bool = True,
    tasks: Mapping[str, str] | None = None,
    *,
    top_k: int | None = None,
    switching: bool = True,
    units: Units | None = None,
) -> RoutingRecord:
    """Pass batches of every dataset through a mixture of experts and keep what its routers do.

    Tokens are summed per sample, so that memory does not grow with their number. With ``switching`` every batch is
    passed once more for every expert that any of its tokens gives weight to, with that expert switched off.

    The model is in evaluation mode meanwhile; modes, hooks and random generators are afterwards as they were.

    Args:
        model: any model with modules that weigh experts (see ``routing_outputs`` for the forms that are known).
        datasets: name to an iterable of batches, each batch of that dataset only.
        routers: glob of the routers' module names; of nested modules the outermost.
        batches: batches per dataset, from the start of each iterable.
        loss: ``loss(model, batch)``, a scalar; by default ``model(**batch).loss``.
        seed: of the random generators, as in ``record``.
        progress: show a progress bar on stderr.
        tasks: task of each dataset.
        top_k: of routers that give logits, how many experts the model keeps of them; None for all.
        switching: also measure the loss without each expert.
        units: name -> per batch what each of its samples is a part of, such as its image: samples of one unit are no
            independent evidence, and are resampled together. Datasets that are not named: each sample by itself.

    Raises:
        UserError: no such module, one that is no router, no dataset that reaches one, too few batches, or a loss that
            is not a finite scalar.
        ValueError: another number of units than of samples.
    """
    found = find_routers(model, routers)
    for name, source in datasets.items():
        check_length(name, source, batches)
    recorder = _Recorder(model, found, loss or default_loss, top_k, switching, units or {})
    bar = tqdm(desc="routing", unit="batch", disable=not progress, total=len(datasets) * batches)
    with bar, probing_state(model, None, seed), torch.no_grad():
        for name, source in datasets.items():
            bar.set_postfix_str(name)
            for batch in first_batches(name, source, batches, seed):
                recorder.add(name, batch)
                bar.update()
    return recorder.result(list(found), routers, tasks or {})


class _Recorder:
    def __init__(
        self,
        model: nn.Module,
        routers: Mapping[str, nn.Module],
        loss: Loss,
        top_k: int | None,
        switching: bool,
        units: Units,
    ) -> None:
        self.model = model
        self.routers = routers
        self.loss = loss
        self.top_k = top_k
        self.switching = switching
        self.units = units
        self.device = next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))
        self.records: dict[str, RouterRecord] = {}
        self.losses: dict[str, list[float]] = {}
        self.samples: dict[tuple[str, str], list[SampleSums]] = {}
        self.unit_of: dict[tuple[str, str], list[Hashable]] = {}
        # (router, dataset) -> number of the batch -> loss without each expert
        self.without: dict[tuple[str, str], dict[int, list[float]]] = {}

    def add(self, dataset: str, batch: Any) -> None:
        """Pass one batch."""
        losses = self.losses.setdefault(dataset, [])
        where = f"batch {len(losses) + 1} of dataset {dataset!r}"
        moved = move_to(batch, self.device)
        with capturing(self.routers) as captured:
            value = self._loss(moved, where)
        for name, calls in captured.outputs.items():
            if calls:
                self._keep(name, dataset, calls, moved)
        if self.switching:
            self._switch_off(captured, dataset, len(losses), moved, value)
        losses.append(value)

    def result(self, names: Sequence[str], pattern: str, tasks: Mapping[str, str]) -> RoutingRecord:
        """All batches together."""
        for (name, dataset), parts in self.samples.items():
            joined = SampleSums.joined(parts)
            size = int((joined.tokens > 0).sum())
            if size:
                together = joined.pooled(self.unit_of[name, dataset]) if dataset in self.units else joined
                self.records[name].samples[dataset] = together.with_tokens()
                self.records[name].sizes[dataset] = size
        for (name, dataset), changed in self.without.items():
            if dataset in self.records[name].samples:
                intact = [[value] * self.records[name].experts for value in self.losses[dataset]]
                rows = [changed.get(number, same) for number, same in enumerate(intact)]
                self.records[name].switched[dataset] = np.array(rows).T
        reached = [self.records[name] for name in names if name in self.records and self.records[name].samples]
        touched = {dataset for record in reached for dataset in record.samples}
        if not reached:
            raise UserError(f"No sample of {', '.join(self.losses)} reaches a router {pattern!r}.")
        return RoutingRecord(
            tuple(reached),
            {name: np.array(values) for name, values in self.losses.items()},
            tuple(name for name in self.losses if name not in touched),
            {name: task for name, task in tasks.items() if name in self.losses},
        )

    def _keep(self, name: str, dataset: str, calls: list[RouterOutput], batch: Any) -> None:
        experts = calls[0].main.shape[-1]
        gives = calls[0].gives
        if self.top_k is not None and gives == LOGITS and self.top_k > experts:
            raise UserError(f"top_k is {self.top_k}, but {name} has {experts} experts.")
        sums, counted = sums_of_calls(name, calls, batch, self.top_k)
        switchable = experts > 1 and all(call.switchable for call in calls)
        record = self.records.setdefault(name, RouterRecord(name, experts, gives, counted, switchable))
        for call in calls:
            if (call.main.shape[-1], call.gives) != (record.experts, record.gives):
                raise UserError(
                    f"{name} is no router: it gives {record.gives} of {record.experts} experts in one call and "
                    f"{call.gives} of {call.main.shape[-1]} in another."
                )
        if counted not in record.counted.split(" or "):
            record.counted = f"{record.counted} or {counted}"
        self.samples.setdefault((name, dataset), []).append(sums)
        if dataset in self.units:
            units = self.units[dataset][len(self.losses[dataset])]
            if len(units) != len(sums):
                raise ValueError(f"{len(units)} units for {len(sums)} samples of dataset {dataset!r} in {name}.")
            self.unit_of.setdefault((name, dataset), []).extend(units)

    def _switch_off(self, captured: Captured, dataset: str, number: int, batch: Any, intact: float) -> None:
        for name, calls in captured.outputs.items():
            if not calls or not self.records[name].switchable:
                continue
            losses = []
            for expert in range(self.records[name].experts):
                if not any(bool((call.weights(self.top_k)[..., expert] > 0).any()) for call in calls):
                    losses.append(intact)  # no token would notice
                    continue
                with switched_off(self.routers[name], name, expert):
                    where = f"batch {number + 1} of dataset {dataset!r} without expert {expert} of {name}"
                    losses.append(self._loss(batch, where, f"; is {name} a router? --no-switching-off leaves this out"))
            self.without.setdefault((name, dataset), {})[number] = losses

    def _loss(self, batch: Any, where: str, advice: str = "") -> float:
        value = self.loss(self.model, batch)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(f"The loss of {where} is not a scalar tensor but {got}; return the mean loss of the batch.")
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"The loss of {where} is {float(value)}, not a finite number{advice}.")
        return float(value)
