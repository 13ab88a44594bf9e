"""Routers set by hand, whose sums and switched-off losses are known, and the mixtures of transformers."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import tugofwar as tow
from tugofwar.errors import UserError

from .hand_router import Mixture, batches_of

UNEQUAL, THIRDS = (0.5, 0.3, 0.2), (1 / 3, 1 / 3, 1 / 3)


def record(model, datasets, routers="connector.router", **more):
    return tow.record_routing(model, datasets, routers, batches=3, progress=False, **more)


@pytest.mark.parametrize("logits", [False, True])
def test_switching_off_renormalises_the_others(logits):
    found = record(Mixture(logits), {"a": batches_of(UNEQUAL)})
    (router,) = found.routers
    assert (router.name, router.experts, router.gives) == ("connector.router", 3, "logits" if logits else "weights")
    np.testing.assert_allclose(found.losses["a"], [0.5 * 1 + 0.3 * 2 + 0.2 * 4] * 3)
    without = [(0.3 * 2 + 0.2 * 4) / 0.5, (0.5 * 1 + 0.2 * 4) / 0.7, (0.5 * 1 + 0.3 * 2) / 0.8]
    np.testing.assert_allclose(router.switched["a"], np.repeat(without, 3).reshape(3, 3))


def test_a_token_whose_whole_weight_is_switched_off_gets_nothing():
    found = record(Mixture(), {"a": batches_of((0.0, 1.0, 0.0))})
    np.testing.assert_allclose(found.routers[0].switched["a"], [[2] * 3, [0] * 3, [2] * 3])


def test_experts_without_weight_are_not_passed_again():
    model = Mixture()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    record(model, {"a": batches_of((0.0, 1.0, 0.0))})
    assert len(calls) == 3 * 2


def test_samples_are_summed_and_not_mixed_between_datasets():
    found = record(Mixture(), {"a": batches_of(UNEQUAL), "b": batches_of(THIRDS, samples=1, tokens=5)})
    samples = found.routers[0].samples
    np.testing.assert_allclose(samples["a"].weights, [np.multiply(4, UNEQUAL)] * 6)
    assert samples["a"].tokens.tolist() == [4] * 6
    np.testing.assert_allclose(samples["a"].largest, [[4, 0, 0]] * 6)
    np.testing.assert_allclose(samples["b"].weights, [[5 / 3] * 3] * 3)
    np.testing.assert_allclose(samples["b"].entropy, [5 * np.log2(3)] * 3)


def test_samples_of_one_unit_are_kept_as_one():
    datasets = {"a": batches_of(UNEQUAL), "b": batches_of(THIRDS)}
    found = record(Mixture(), datasets, units={"a": [["x", "y"], ["y", "z"], ["x", "x"]]})
    (router,) = found.routers
    assert router.samples["a"].tokens.tolist() == [12, 8, 4]
    np.testing.assert_allclose(router.samples["a"].weights, np.outer([12, 8, 4], UNEQUAL))
    assert router.samples["b"].tokens.tolist() == [4] * 6
    assert router.sizes == {"a": 6, "b": 6}
    with pytest.raises(ValueError, match=r"1 units for 2 samples of dataset .a. in connector\.router"):
        record(Mixture(), datasets, units={"a": [["x"], ["y"], ["z"]]})


def test_text_never_reaches_the_router_and_is_said():
    found = record(Mixture(), {"text": batches_of(THIRDS, text=True), "a": batches_of(THIRDS)})
    assert found.untouched == ("text",)
    assert list(found.routers[0].samples) == ["a"]
    assert found.losses["text"].tolist() == [7] * 3


def test_a_single_expert_is_not_switched_off():
    model = Mixture(values=torch.ones(1, dtype=torch.float64))
    found = record(model, {"a": batches_of((1.0,))})
    assert not found.routers[0].switchable
    assert found.routers[0].switched == {}


def test_without_switching_every_batch_is_passed_once():
    model = Mixture()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    assert record(model, {"a": batches_of(UNEQUAL)}, switching=False).routers[0].switched == {}
    assert len(calls) == 3


def test_the_model_is_left_as_it_was():
    model = Mixture().train()
    state = torch.get_rng_state()
    record(model, {"a": batches_of(UNEQUAL)})
    assert model.training
    assert not model.connector["router"]._forward_hooks
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_left_as_it_was_after_an_error():
    model = Mixture().train()
    broken = batches_of(UNEQUAL)
    broken[2] |= {"text": True}
    broken[2]["weights"][0] = torch.nan
    with pytest.raises(UserError, match="batch 3 of dataset 'a' is nan"):
        record(model, {"a": broken})
    assert model.training
    assert not model.connector["router"]._forward_hooks


@pytest.mark.parametrize(
    ("datasets", "more", "message"),
    [
        ({"a": batches_of(UNEQUAL, count=2)}, {}, "'a' has 2 batches but 3 are asked for"),
        ({"a": batches_of(UNEQUAL)}, {"routers": "gate"}, "no router 'gate'"),
        ({"a": batches_of(UNEQUAL, text=True)}, {}, "No sample of a reaches a router 'connector.router'"),
        ({"a": batches_of(UNEQUAL)}, {"loss": lambda model, batch: 3.0}, "is not a scalar tensor but float"),
        (
            {"a": batches_of(UNEQUAL, count=2) + batches_of((0.5, 0.5), count=1)},
            {"loss": lambda model, batch: model.connector["router"](batch["weights"]).sum()},
            "weights of 3 experts in one call and weights of 2 in another",
        ),
    ],
)
def test_what_the_caller_can_mend_is_one_sentence(datasets, more, message):
    with pytest.raises(UserError, match=message):
        record(Mixture(), datasets, **more)


def test_a_module_that_is_no_router_may_have_no_loss_without_one_of_its_numbers():
    classes = nn.Sequential(nn.Linear(2, 3))
    batches = [{"x": torch.ones(4, 2)} for _ in range(3)]

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), torch.zeros(4, dtype=torch.long))

    with pytest.raises(UserError, match=r"without expert 0 of 0 is inf.*is 0 a router\?.*--no-switching-off"):
        record(classes, {"a": batches}, routers="0", loss=loss)


def test_more_experts_to_keep_than_there_are_is_said():
    with pytest.raises(UserError, match=r"top_k is 4, but connector\.router has 3 experts"):
        record(Mixture(logits=True), {"a": batches_of(UNEQUAL)}, top_k=4)


SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
MIXTURES = {
    "mixtral": ({"num_local_experts": 4, "num_experts_per_tok": 2}, "mlp.gate"),
    "qwen2_moe": (
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 12,
            "norm_topk_prob": False,
        },
        "mlp.gate",
    ),
    "olmoe": ({"num_experts": 4, "num_experts_per_tok": 2}, "mlp.gate"),
}


def language_model(kind):
    transformers = pytest.importorskip("transformers")
    settings, _ = MIXTURES[kind]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **settings, pad_token_id=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if "gate.weight" in name or "experts" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def text_batches(seed, padded):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 40, (2, 6), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 4:] = 0
    return [{"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}] * 3


@pytest.mark.parametrize("kind", MIXTURES)
def test_gates_of_transformers_are_read_as_their_mixture_uses_them(kind):
    model = language_model(kind)
    glob = MIXTURES[kind][1]
    found = record(model, {"a": text_batches(1, padded=True)}, glob)
    assert [router.name for router in found.routers] == [f"model.layers.{n}.mlp.gate" for n in range(2)]
    seen = []
    gate = model.model.layers[0].mlp.gate
    gate.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].reshape(-1, 16)))
    batch = text_batches(1, padded=True)[0]
    with torch.no_grad():
        model(**batch)
    # the two best of the softmax, made to sum to 1, of tokens that are no padding
    probabilities = (seen[0] @ gate.weight.T).softmax(-1).reshape(2, 6, 4)
    best = probabilities.topk(2, dim=-1)
    weights = torch.zeros_like(probabilities).scatter(-1, best.indices, best.values / best.values.sum(-1, keepdim=True))
    expected = (weights * batch["attention_mask"].unsqueeze(-1)).sum(dim=1)
    router = found.routers[0]
    assert (router.gives, router.counted) == ("weights", "attention_mask")
    assert router.samples["a"].tokens.tolist() == [4, 6] * 3
    np.testing.assert_allclose(router.samples["a"].weights[:2], expected.detach(), rtol=1e-5)


@pytest.mark.parametrize("kind", MIXTURES)
def test_an_expert_of_transformers_that_is_switched_off_adds_nothing(kind):
    """Against the same model whose expert is cut out by hand: its chosen scores at 0, the others scaled up."""
    model = language_model(kind)
    found = record(model, {"a": text_batches(2, padded=False)}, f"layers.1.{MIXTURES[kind][1]}")
    gate = model.model.layers[1].mlp.gate
    (router,) = found.routers
    assert router.switched["a"].std() > 0

    def by_hand(module, inputs, output):
        logits, scores, numbers = output
        kept = torch.where(numbers == 2, 0.0, scores)
        return logits, kept * scores.sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp(min=1e-30), numbers

    gate.register_forward_hook(by_hand)
    with torch.no_grad():
        loss = float(model(**text_batches(2, padded=False)[0]).loss)
    assert router.switched["a"][2] == pytest.approx(loss, rel=1e-6)
    assert abs(found.losses["a"][0] - loss) > 1e-6
