"""The same Gram matrix by other libraries, each used in the cheapest way found that its documentation allows.

Their unit is the sample. The Gram matrix of batches is the sum over samples of both batches.
"""

import tempfile
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from gradient_cost.methods import Gram, Method
from gradient_cost.pacing import Batches
from gradient_cost.scale import SAMPLES
from gradient_cost.workload import (
    Batch,
    VisionLanguageModel,
    loss_of_each_sample,
    mean_loss,
    parameters_of,
)


def torchjd(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """TorchJD on the losses of separate batches: each of ``n`` backward passes walks all ``n`` graphs."""
    engine = import_module("torchjd.autogram").Engine(model.connector, batch_dim=None)
    losses = torch.stack([mean_loss(model, batch) for batch in batches])
    return _float64(engine.compute_gramian(losses))


def torchjd_joined(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """TorchJD on all batches in one forward pass: a single backward pass, in the memory of all of them."""
    engine = import_module("torchjd.autogram").Engine(model.connector, batch_dim=0)
    gramian = engine.compute_gramian(loss_of_each_sample(model, _joined(batches)))
    return _of_batches(gramian) / SAMPLES**2


def dattri_llm(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """dattri-llm with factors kept and products routed by its own cost model.

    As it recommends for a probe, the weights are frozen and the features require a gradient. The tokens of a
    batch's samples are put after one another in its factors, so that it has one unit per batch.
    """
    library, modules = import_module("dattri_llm.gradient"), import_module("dattri_llm.gradient.gradient")
    model.requires_grad_(False)
    capture = library.CaptureCallback()
    config = library.HookManagerConfig(linear_io=[r"connector\."], include_frozen=True)
    manager = library.HookManager(model, config=config, callbacks=[capture])
    kept: Any = None
    with manager.collect():
        for batch in batches:
            mean_loss(model, {**batch, "features": batch["features"].requires_grad_()}).backward()
            gradient = capture.record.gradient
            units = {name: _one_unit(modules.Factorized, pair) for name, pair in gradient.data.items()}
            gradient = replace(gradient, data=units)
            kept = gradient if kept is None else kept.concatenate(gradient)
    return _float64(kept.similarity(kept, reduce="all"))


def _one_unit(factorized: Any, pair: Any) -> Any:
    activation, gradient = (each.reshape(1, -1, each.shape[-1]) for each in (pair.activation, pair.pre_activation_grad))
    return factorized(activation, gradient, pair.module_kwargs)


def kronfluence(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """kronfluence's pairwise scores without preconditioning (strategy ``identity``), all queries resident."""
    library, arguments = import_module("kronfluence"), import_module("kronfluence.arguments")
    task = _kronfluence_task(model)
    samples = [{name: value[at] for name, value in batch.items()} for batch in batches for at in range(SAMPLES)]
    prepared: nn.Module = import_module("kronfluence.analyzer").prepare_model(model, task)
    with tempfile.TemporaryDirectory() as folder:
        analyzer = library.Analyzer("gram", prepared, task, cpu=True, disable_tqdm=True, output_dir=folder)
        analyzer.fit_all_factors(
            "none", samples, per_device_batch_size=SAMPLES, factor_args=arguments.FactorArguments("identity")
        )
        analyzer.compute_pairwise_scores(
            "gram",
            "none",
            samples,
            samples,
            per_device_query_batch_size=len(samples),
            per_device_train_batch_size=SAMPLES,
            score_args=arguments.ScoreArguments(damping_factor=0.0),
        )
        scores = analyzer.load_pairwise_scores("gram")
    return _of_batches(scores["all_modules"]) / SAMPLES**2


def _kronfluence_task(model: VisionLanguageModel) -> Any:
    base = import_module("kronfluence.task").Task
    names = [name for name, module in model.named_modules() if "connector" in name and isinstance(module, nn.Linear)]

    class SumOfLosses(base):  # type: ignore[misc, valid-type]
        """Sums over samples, whose gradients are then the samples' own."""

        def compute_train_loss(self, batch: Batch, model: nn.Module, sample: bool = False) -> Tensor:
            return loss_of_each_sample(model, batch).sum()

        def compute_measurement(self, batch: Batch, model: nn.Module) -> Tensor:
            return loss_of_each_sample(model, batch).sum()

        def get_influence_tracked_modules(self) -> list[str]:
            return names

    return SumOfLosses()


def opacus(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """opacus' per-sample gradients, summed over each batch, kept and multiplied as in the naive loop."""
    # It listens in training mode only; there is no dropout in the connector.
    import_module("opacus").GradSampleModule(model.connector.train(), loss_reduction="sum", strict=False)
    return _from_sample_gradients(model, batches, "grad_sample")


def backpack(model: VisionLanguageModel, batches: Batches, _: int) -> Gram:
    """BackPACK's per-sample gradients, summed over each batch, kept and multiplied as in the naive loop."""
    library, extensions = import_module("backpack"), import_module("backpack.extensions")
    for module in model.connector.modules():
        if isinstance(module, nn.Linear):
            library.extend(module)
    with library.backpack(extensions.BatchGrad()):
        return _from_sample_gradients(model, batches, "grad_batch")


def _from_sample_gradients(model: VisionLanguageModel, batches: Batches, attribute: str) -> Gram:
    parameters = parameters_of(model)
    gradients = torch.empty(len(batches), sum(parameter.numel() for parameter in parameters))
    for row, batch in zip(gradients, batches, strict=True):
        mean_loss(model, batch).backward()
        torch.cat([getattr(parameter, attribute).sum(0).flatten() for parameter in parameters], out=row)
        for parameter in parameters:
            parameter.grad = None
            setattr(parameter, attribute, None)
    return _float64(gradients @ gradients.T)


def _joined(batches: Batches) -> Batch:
    every = list(batches)
    return {name: torch.cat([batch[name] for batch in every]) for name in every[0]}


def _of_batches(of_samples: Tensor) -> Gram:
    size = len(of_samples) // SAMPLES
    return of_samples.double().reshape(size, SAMPLES, size, SAMPLES).sum((1, 3)).numpy()


def _float64(gram: Tensor) -> Gram:
    return gram.detach().double().numpy()


PEERS: dict[str, Method] = {
    "TorchJD, batches apart": torchjd,
    "TorchJD, batches joined": torchjd_joined,
    "dattri-llm": dattri_llm,
    "kronfluence (identity)": kronfluence,
    "opacus": opacus,
    "BackPACK": backpack,
}
