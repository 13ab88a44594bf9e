"""LoRA-MoE (Appendix A.2): a router over LoRA experts at every linear layer of a frozen LLM (eq. 15).

How eq. 15, h = W_0 x_i + (alpha / r) sum_k R(x_i) A_k B_k x_i, is read:

- With W_0 (d_in x d_out), A_k (d_in x r) and B_k (r x d_out) as declared, x stands on the left: x W_0 and x A_k B_k.
- R(x_i) lacks the index of the expert: R(x_i)_k, the k-th of N weights.
- "Learning rate scaling factor" alpha is LoRA's numerator; no learning rate is changed by it.
- "Sparse router, top 2 experts": scores outside the top k are minus infinity before the softmax, not zero as eq. 13
  prints, which would leave all N experts a weight.

The paper says neither what the router is nor how it starts. Here: one linear map from d_in to N without bias in each
layer, read by every token for itself, with torch's default initial values (all zero would be a tie, which the same k
experts win for every token). There is no balancing loss.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .closed import validated
from .errors import UserError
from .lora_moe_files import LoraMoESettings, read_adapter, write_adapter

ADDED = ("lora_A", "lora_B", "lora_router")


class LoraMoELinear(nn.Module):
    """A frozen linear layer and N LoRA experts, k of them for each token.

    ``y = base_layer(x) + alpha / r * sum_k R(x)_k B_k A_k x`` with ``A_k`` (r, d_in) and ``B_k`` (d_out, r).

    The adapter is kept in float32 (float64 on a float64 base) whatever the base's precision, quantised ones included;
    as in peft's LoRA the input is cast to the adapter's precision, the sum back to the base's, and dropout acts on the
    experts' input alone: the router reads what the base reads.

    ``A_k`` start Gaussian with variance 1 / (3 d_in), that of peft's default (uniform) initial A, so that LoRA
    and LoRA-MoE start at the same scale and ``A x`` does not grow with the layer's width, as it would with a fixed
    deviation such as 1 / r. ``B_k`` start at zero: the layer is the base layer until it is trained.

    Attributes:
        base_layer: the layer that was wrapped; ``weight`` and ``bias`` read through to it.
        lora_A: (N r, d_in), the experts' A_k above one another.
        lora_B: (d_out, N r), the experts' B_k beside one another.
        lora_router: (N, d_in).
        in_features, out_features: d_in and d_out.
        settings: r, alpha, N, k and dropout.
    """

    def __init__(self, base_layer: nn.Module, settings: LoraMoESettings) -> None:
        super().__init__()
        self.in_features, self.out_features = _widths(base_layer)
        self.settings = settings
        self.base_layer: Any = base_layer
        # Quantised layers differ in what they call their weight, but each of them holds some tensor
        held = next(chain(base_layer.parameters(), base_layer.buffers()))
        like: dict[str, Any] = {
            "bias": False,
            "device": held.device,
            "dtype": torch.float64 if held.dtype == torch.float64 else torch.float32,
        }
        channels = settings.num_experts * settings.rank
        self.lora_A = nn.Linear(self.in_features, channels, **like)
        self.lora_B = nn.Linear(channels, self.out_features, **like)
        self.lora_router = nn.Linear(self.in_features, settings.num_experts, **like)
        self.lora_dropout = nn.Dropout(settings.dropout) if settings.dropout else nn.Identity()
        self.reset_lora_parameters()

    @torch.no_grad()
    def reset_lora_parameters(self) -> None:
        """Draw A and the router anew from torch's global generator, and make B zero."""
        self.lora_A.weight.normal_(std=(3 * self.in_features) ** -0.5)
        self.lora_B.weight.zero_()
        self.lora_router.weight.uniform_(-(self.in_features**-0.5), self.in_features**-0.5)
        for name in ADDED:
            # Otherwise the post_init of a model around the LLM draws these again, B included, as it does for every
            # linear layer that was not there when the LLM was built. On meta nothing is drawn yet.
            module = getattr(self, name)
            module._is_hf_initialized = not module.weight.is_meta

    @property
    def weight(self) -> Tensor:
        """The base layer's weight, frozen; LLMs read its dtype or device."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias, frozen, or None."""
        return self.base_layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, d_in) to (…, d_out), each token by its own k experts."""
        result = self.base_layer(x)
        x = x.to(self.lora_A.weight.dtype)
        weights = self.routing_weights(self.lora_router(x)) * (self.settings.alpha / self.settings.rank)
        hidden = self.lora_A(self.lora_dropout(x)).unflatten(-1, (self.settings.num_experts, self.settings.rank))
        # sum_k w_k B_k (A_k x) is one product of [B_1 … B_N] with the groups w_k A_k x above one another: scaling the
        # N r channels between the two products, which are far fewer than d_out, leaves the sum to the second one
        update = self.lora_B((hidden * weights.unsqueeze(-1)).flatten(-2))
        return (result + update).to(result.dtype)

    def routing_weights(self, scores: Tensor) -> Tensor:
        """Return R(x), (…, N): softmax over the k highest of each token's N scores, exactly zero elsewhere."""
        best, chosen = scores.topk(self.settings.top_k, dim=-1)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, best).softmax(dim=-1)

    def extra_repr(self) -> str:
        """Return the settings, for printed models."""
        return ", ".join(f"{name}={value}" for name, value in self.settings)


def inject_lora_moe(
    model: nn.Module,
    *,
    rank: int = 4,
    alpha: float = 8.0,
    num_experts: int = 5,
    top_k: int = 2,
    dropout: float = 0.0,
) -> list[str]:
    """Give every linear layer of an LLM but its output head a LoRA-MoE, in place; freeze all other parameters.

    Linear layers are ``nn.Linear``, GPT-2's ``Conv1D``, and quantised layers that tell their ``in_features`` and
    ``out_features``. The head is what ``get_output_embeddings`` returns, tied to the embeddings or not. A layer that
    stands in several places gets one adapter, shared likewise. What an LLM keeps as a bare parameter, such as the
    stacked experts of a mixture, has no layer to wrap and stays frozen; an adapter is bypassed where an LLM reads a
    layer's weight instead of calling the layer, as the fused kernels of state-space models do.

    On the meta device the adapters are on meta too; after ``to_empty`` call ``reset_lora_parameters`` of each layer.
    Reentrant gradient checkpointing needs an input with a gradient, as with any adapter: transformers'
    ``enable_input_require_grads``, which its own switch for checkpointing calls.

    bitsandbytes' 4-bit layers choose their kernel by whether the input needs a gradient, so compare logits of base and
    adapted model under ``no_grad``. On a CPU its release 0.50.2 repacks them in the first evaluation pass for a kernel
    without a backward: every adapter, peft's too, is then trained on wrong gradients. Reload the base before training.

    Args:
        model: a transformers causal LM, or any module.
        rank: r, the rank of each expert.
        alpha: the experts' sum is scaled by alpha / r.
        num_experts: N, experts per layer.
        top_k: k, experts per token.
        dropout: probability that an input of the experts is dropped in training.

    Returns:
        Dotted names of the layers that were replaced, in the model's order.

    Raises:
        UserError: an argument is out of its range, the model has no linear layer, or it carries adapters already.
            The model is unchanged then.
    """
    values = {"rank": rank, "alpha": alpha, "num_experts": num_experts, "top_k": top_k, "dropout": dropout}
    settings = validated(LoraMoESettings, values, "LoRA-MoE")
    linears = _linears(model)
    _wrap(model, linears, settings)
    return list(linears)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that LoRA-MoE added, themselves and not copies, by their full name in ``model``."""
    return {
        ".".join(filter(None, (name, part, "weight"))): getattr(layer, part).weight
        for name, layer in _layers(model).items()
        for part in ADDED
    }


def save_adapter(model: nn.Module, folder: Path) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors``, whole or not at all.

    The folder must be the adapter's own: next to a model's ``config.json``, transformers would take the pair for a
    peft adapter.

    Raises:
        UserError: the model carries no LoRA-MoE, carries several with different settings, or is on the meta device;
            or the folder is a file or holds something else.
    """
    settings = {layer.settings for layer in _adapted(model).values()}
    if len(settings) > 1:
        raise UserError("The model's LoRA-MoE layers differ in their settings, which one adapter cannot hold.")
    state = adapter_state(model)
    if any(tensor.is_meta for tensor in state.values()):
        raise UserError("The model's LoRA-MoE is on the meta device, where it has no values to save.")
    write_adapter(folder, settings.pop(), {name: tensor.detach().cpu() for name, tensor in state.items()})


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Give a plain model the LoRA-MoE that ``save_adapter`` wrote, in the precision it was saved in; freeze the rest.

    Raises:
        UserError: the folder or a file is missing, damaged, or of another kind of adapter; it was made for a model
            with other layers or widths; the model carries adapters already, has no linear layer, or is on the meta
            device. The model is unchanged then.
    """
    settings, tensors = read_adapter(folder)
    linears = _linears(model)
    _require_fitting(linears, settings, tensors, folder)
    if any(tensor.is_meta for layer in linears.values() for tensor in layer.parameters()):
        raise UserError("The model is on the meta device; load its own weights before an adapter's.")
    _wrap(model, linears, settings)
    for name, parameter in adapter_state(model).items():
        parameter.data = tensors[name].to(parameter.device)


@contextmanager
def recording_router_weights(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that every forward pass inside fills: layer name -> routing weights (batch, sequence, N).

    A layer's passes are joined along the sequence, so that generation with a cache gives the weights of all tokens
    that the LLM has read. A layer that its LLM feeds with flattened tokens gives (batch * sequence, N). Weights are
    detached. Gradient checkpointing recomputes a forward pass in ``backward``: call that outside.

    Raises:
        UserError: the model carries no LoRA-MoE, or a pass's batch size differs from the one before it.
    """
    recorded: dict[str, Tensor] = {}
    handles = [
        layer.lora_router.register_forward_hook(partial(_record, recorded, name, layer))
        for name, layer in _adapted(model).items()
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _record(
    recorded: dict[str, Tensor], name: str, layer: LoraMoELinear, router: nn.Module, inputs: Any, scores: Tensor
) -> None:
    weights = layer.routing_weights(scores)
    if name in recorded:
        before = recorded[name]
        if before.shape[:-2] != weights.shape[:-2]:
            raise UserError(
                f"Routing weights of batches of {before.shape[0]} and of {weights.shape[0]} samples cannot be joined; "
                "record each batch by itself."
            )
        weights = torch.cat([before, weights], dim=-2)
    recorded[name] = weights


def _layers(model: nn.Module) -> dict[str, LoraMoELinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraMoELinear)}


def _adapted(model: nn.Module) -> dict[str, LoraMoELinear]:
    layers = _layers(model)
    if not layers:
        raise UserError(f"This {type(model).__name__} carries no LoRA-MoE.")
    return layers


def _linears(model: nn.Module) -> dict[str, nn.Module]:
    """Linear layers that LoRA-MoE wraps, by the first name of each."""
    if any(part.startswith("lora_") for name, _ in model.named_parameters() for part in name.split(".")):
        raise UserError(f"This {type(model).__name__} carries LoRA adapters already.")
    find_head = getattr(model, "get_output_embeddings", None)
    head = find_head() if callable(find_head) else None
    linears = {
        name: module
        for name, module in model.named_modules()
        if module is not head and module is not model and _is_linear(module)
    }
    if not linears:
        raise UserError(f"This {type(model).__name__} has no linear layer, besides its head, that could be adapted.")
    return linears


def _is_linear(module: nn.Module) -> bool:
    if isinstance(module, (nn.Linear, Conv1D)):
        return True
    features = (getattr(module, name, None) for name in ("in_features", "out_features"))
    return not any(module.children()) and all(isinstance(width, int) for width in features)


def _widths(linear: Any) -> tuple[int, int]:
    if isinstance(linear, Conv1D):
        return linear.nx, linear.nf
    return linear.in_features, linear.out_features


def _wrap(model: nn.Module, linears: dict[str, nn.Module], settings: LoraMoESettings) -> None:
    model.requires_grad_(False)
    wrapped = {id(linear): LoraMoELinear(linear, settings) for linear in linears.values()}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) in wrapped:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, wrapped[id(module)].train(module.training))


def _require_fitting(
    linears: dict[str, nn.Module], settings: LoraMoESettings, tensors: dict[str, Tensor], folder: Path
) -> None:
    channels = settings.num_experts * settings.rank
    wanted: dict[str, tuple[int, int]] = {}
    for name, linear in linears.items():
        width_in, width_out = _widths(linear)
        shapes = ((channels, width_in), (width_out, channels), (settings.num_experts, width_in))
        wanted |= {f"{name}.{part}.weight": shape for part, shape in zip(ADDED, shapes, strict=True)}
    for problem, names in (("lacks", wanted.keys() - tensors.keys()), ("has", tensors.keys() - wanted.keys())):
        if names:
            raise UserError(
                f"The adapter in {folder} does not fit this model: it {problem} {len(names)} of its tensors, the first "
                f"{min(names)}."
            )
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape or not tensors[name].is_floating_point():
            raise UserError(
                f"The adapter in {folder} does not fit this model: {name} is {tensors[name].dtype} of shape "
                f"{tuple(tensors[name].shape)}, which should be {shape}."
            )
