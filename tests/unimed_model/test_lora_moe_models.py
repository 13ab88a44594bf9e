"""Whole LLMs with LoRA-MoE: training, gradient checkpointing, generation, recorded routing weights."""

import copy

import pytest
import torch
from torch import nn

from unimed_model.errors import UserError
from unimed_model.lora_moe import adapter_state, inject_lora_moe, recording_router_weights

from .lora_moe_models import KINDS, LLAMA_LINEARS, adapted, descend, llama, tokens


@KINDS
def test_training_moves_the_adapters_alone(build):
    model = build().train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = copy.deepcopy(model.state_dict())
    inject_lora_moe(model)
    start = {name: parameter.detach().clone() for name, parameter in adapter_state(model).items()}
    losses = descend(model, tokens(4, 12))
    assert losses[-1] < 0.8 * losses[0]
    after = {name.replace(".base_layer", ""): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if "lora_" not in name)
    assert all(not torch.equal(parameter, start[name]) for name, parameter in adapter_state(model).items())


def test_autocast():
    model = adapted()
    ids = tokens(2, 5)
    wanted = model(ids).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(ids, labels=ids)
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in adapter_state(model).values())
    torch.testing.assert_close(output.logits.float(), wanted, atol=0.1 * wanted.abs().max().item(), rtol=0)


def checkpointed(model, **kwargs):
    """Switch checkpointing on by whichever name this version of transformers gives to it."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable(kwargs)
    model.enable_input_require_grads()
    return model.train()


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(reentrant):
    ids = tokens(2, 10)

    def gradients(model):
        model(ids, labels=ids, use_cache=False).loss.backward()
        return {name: parameter.grad for name, parameter in adapter_state(model).items()}

    wanted = gradients(adapted().train())
    model = checkpointed(adapted(), use_reentrant=reentrant)
    calls = []
    model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda *_: calls.append(None))
    found = gradients(model)
    assert len(calls) == 2  # once forward, once again in backward: it was checkpointed
    assert all(grad is not None and grad.abs().max() > 0 for grad in found.values())
    assert all(torch.equal(found[name], grad) for name, grad in wanted.items())


@pytest.mark.parametrize("reentrant", [False, True])
def test_it_trains_under_gradient_checkpointing(reentrant):
    """Dropout too: what is recomputed must drop the same inputs, or the loss would not fall as it does."""
    ids = tokens(4, 12)
    plain, saving = (adapted(dropout=0.1).train() for _ in range(2))
    checkpointed(saving, use_reentrant=reentrant)
    losses = []
    for model in (plain, saving):
        torch.manual_seed(5)
        losses.append(descend(model, ids, steps=15))
    assert losses[1][-1] < 0.8 * losses[1][0]
    assert losses[0] == losses[1]


# ------------------------------------------------------------------------------------------------ generation


def left_padded(samples):
    longest = max(map(len, samples))
    ids = torch.stack([torch.cat([torch.zeros(longest - len(s), dtype=torch.long), s]) for s in samples])
    mask = torch.stack([torch.arange(longest) >= longest - len(s) for s in samples]).long()
    return ids, mask


@KINDS
def test_a_padded_batch_gives_each_sample_what_it_gets_alone(build):
    model = adapted(build).double()
    samples = [tokens(1, n, seed=n)[0] for n in (3, 9, 6)]
    ids, mask = left_padded(samples)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = model(ids, attention_mask=mask, position_ids=positions).logits
    for row, sample in zip(together, samples, strict=True):
        torch.testing.assert_close(row[-len(sample) :], model(sample[None]).logits[0], atol=1e-10, rtol=0)
    arguments = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    grown = model.generate(ids, attention_mask=mask, **arguments)
    for row, sample in zip(grown, samples, strict=True):
        alone = model.generate(sample[None], attention_mask=torch.ones_like(sample[None]), **arguments)
        assert row[len(ids[0]) :].tolist() == alone[0, len(sample) :].tolist()


def test_the_cache_changes_nothing():
    model = adapted().double()
    ids, mask = left_padded([tokens(1, 5, seed=1)[0], tokens(1, 7, seed=2)[0]])
    arguments = {"attention_mask": mask, "max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
    with_cache, without = (model.generate(ids, use_cache=use, **arguments) for use in (True, False))
    assert with_cache.tolist() == without.tolist()
    # one token by hand per step, with the cache, against a plain loop over growing inputs
    grown = ids[1:]
    for _ in range(10):
        grown = torch.cat([grown, model(grown).logits[:, -1:].argmax(-1)], dim=1)
    assert with_cache[1].tolist() == grown[0].tolist()


def test_recorded_weights_are_those_of_each_token():
    model, ids = adapted(), tokens(2, 6)
    read = {}
    for name in LLAMA_LINEARS:
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: read.update({name: args[0]}))
    with recording_router_weights(model) as weights:
        model(ids)
        assert list(weights) == LLAMA_LINEARS
    for name in LLAMA_LINEARS:
        assert weights[name].shape == (2, 6, 4)
        assert not weights[name].requires_grad
        scores = read[name] @ model.get_submodule(name).lora_router.weight.T
        second = scores.sort(-1, descending=True).values[..., 1:2]
        raw = torch.where(scores >= second, scores.exp(), 0)
        torch.testing.assert_close(weights[name], raw / raw.sum(-1, keepdim=True))


def test_recording_joins_the_steps_of_generation_and_ends():
    model = adapted().double()
    ids = tokens(2, 5)
    with recording_router_weights(model) as weights:
        grown = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    steps = grown.shape[1] - 1  # the last token is never read
    with recording_router_weights(model) as whole:
        model(grown[:, :-1])
    for name in LLAMA_LINEARS:
        assert weights[name].shape == (2, steps, 4)
        torch.testing.assert_close(weights[name], whole[name], atol=1e-10, rtol=0)
    model(ids)
    assert weights[LLAMA_LINEARS[0]].shape == (2, steps, 4)
    assert not any(module._forward_hooks for module in model.modules())


def test_recording_refuses_what_cannot_be_joined():
    model = adapted()
    with recording_router_weights(model):
        model(tokens(2, 5))
        with pytest.raises(UserError, match="batches of 2 and of 3"):
            model(tokens(3, 5))
    with pytest.raises(KeyboardInterrupt), recording_router_weights(model):
        raise KeyboardInterrupt
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(UserError, match="LlamaForCausalLM carries no LoRA-MoE"), recording_router_weights(llama()):
        pass
