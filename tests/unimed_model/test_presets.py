"""Presets and the paper's arms, built at full size on the meta device."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from unimed_model.building import config_without_files
from unimed_model.data.proportions import by_ratios
from unimed_model.dry_run import dry_run
from unimed_model.errors import UserError
from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.presets import arms, preset_names, resolve

ADAPTERS = 19_988_480
EXPERTS = {"linear": 23_072_768, "two": 39_854_080}
ROUTER = 507_781_125


def trainable(settings):
    with torch.device("meta"):
        model = UniMedForConditionalGeneration(config_without_files(settings))
    return {
        "all": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "connector": sum(p.numel() for p in model.connector.parameters()),
    }


def test_the_shipped_presets():
    assert preset_names() == ["paper", "released", "small", "tiny"]


def test_datasets_are_mixed_by_size_in_the_paper_and_by_ratios_in_the_released_code():
    assert resolve("paper").data.mixing.by == "size"
    released = resolve("released").data
    sizes = dict.fromkeys(released.datasets, 100) | {"dermamnist": 7_007, "organsmnist": 13_932}
    weights = by_ratios(sizes, released.mixing.arguments["weights"])
    assert sum(weights.values()) == pytest.approx(50)
    shares = {name: weights[name] / 50 for name in ("medqa", "path_vqa", "slake_reg", "mimic_cxr", "mpx_single")}
    assert shares == {"medqa": 0.04, "path_vqa": 0.1, "slake_reg": 0.08, "mimic_cxr": 0.16, "mpx_single": 0.16}
    assert weights["dermamnist"] == pytest.approx(4 * 7_007 / 20_939)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_sizes_of_the_released_model(preset):
    run = dry_run(resolve(preset))
    parts = {part.name: part for part in run.parts}
    assert parts["connector.experts"].trainable == 5 * EXPERTS["two"] == 199_270_400
    assert parts["connector.router"].trainable == ROUTER
    assert parts["connector.task_tokens"].trainable == 5 * 5632
    assert parts["LoRA"].trainable == ADAPTERS
    assert run.trainable == 727_068_165
    assert 985e6 < parts["vision encoder"].frozen < 987e6
    assert parts["vision encoder"].trainable == parts["LLM"].trainable == 0
    assert parts["LLM"].frozen == 6_738_415_616
    # LLM, gradients and moments, as the reference counts them
    assert parts["LLM"].weights == (4 if preset == "released" else 2) * parts["LLM"].frozen
    assert sum(p.weights + p.gradients + p.optimizer for p in run.parts if p.trainable) == 16 * run.trainable


def test_mlp_baseline_and_fair_mlp():
    assert trainable(resolve("paper", arm="2a-mlp"))["all"] == 59_842_560
    fair = trainable(resolve("paper", arm="fair-mlp"))["all"]
    assert abs(fair - 727_068_165) < 9729  # the parameters of one hidden unit
    light = trainable(resolve("paper", arm="fair-light-router"))
    assert light["connector"] == 199_270_400 + 5 * 5632 + 11264 * 64 + 64 + 64 * 5 + 5


def test_lora_moe_counts():
    parts = {part.name: part.trainable for part in dry_run(resolve("paper", arm="2e-lora-moe-soft")).parts}
    widths = [(4096, 4096)] * 4 + [(4096, 11008)] * 2 + [(11008, 4096)]
    assert parts["LoRA"] == 32 * sum(5 * 4 * (a + b) for a, b in widths) == 49_971_200
    assert parts["LoRA-MoE routers"] == 32 * sum(5 * a for a, _ in widths) == 5_693_440


def expected_connector(arm):
    """Parameters of an arm's connector, by hand."""
    rate = {"2b-rate-1": 1, "2b-rate-2": 2, "2b-max": 1, "2b-average": 1}.get(arm, 4)
    width, llm, n = 1408 * rate, 4096, int(arm.rsplit("-", 1)[1]) if arm.startswith("2c") else 5
    expert = width * llm + llm + llm * llm + llm
    if arm == "2a-linear":
        return width * llm + llm
    if arm.endswith("mlp"):
        return expert
    if arm.endswith(("hard", "constant")):
        return n * expert
    strategy = (
        "token"
        if arm.endswith(("sparse", "soft-token", "5-neither", "5-text"))
        else "task"
        if arm.endswith("soft-task")
        else "both"
    )
    read = 2 * width if strategy == "both" else width
    router = read * 4 * read + 4 * read + 4 * read * n + n
    return n * expert + router + (0 if strategy == "token" else 5 * width)


@pytest.mark.parametrize("arm", [name for name in arms() if not name.startswith("fair")])
def test_every_arm_of_tables_2_and_5_at_full_size(arm):
    assert trainable(resolve("paper", ["llm.architecture.layers=2"], arm=arm))["connector"] == expected_connector(arm)


def test_arms_cover_the_tables():
    names = list(arms())
    counts = {table: sum(name.startswith(table) for name in names) for table in ("2a", "2b", "2c", "2d", "2e", "5")}
    assert counts == {"2a": 8, "2b": 5, "2c": 5, "2d": 15, "2e": 4, "5": 5}


def test_arms_keep_what_they_do_not_name_and_overrides_come_last():
    settings = resolve("tiny", ["connector.num_experts=6"], arm="2a-hard")
    assert (settings.connector.router, settings.connector.num_experts) == ("hard", 6)
    assert settings.connector.router_hidden == 64
    with pytest.raises(UserError, match="nearest is '2a-hard'"):
        resolve("tiny", arm="2a-hart")


@pytest.mark.parametrize("quantisation", ["8bit", "4bit"])
def test_quantised_bases_are_counted_smaller(quantisation):
    plain = {p.name: p for p in dry_run(resolve("paper")).parts}["LLM"]
    less = {p.name: p for p in dry_run(resolve("paper", [f"llm.quantisation={quantisation}"])).parts}["LLM"]
    assert less.frozen == plain.frozen
    # embeddings and head stay in bfloat16
    kept = 2 * 2 * 32000 * 4096
    share = {"8bit": 1 / 2, "4bit": 9 / 32}[quantisation]
    assert less.weights == pytest.approx(kept + share * (plain.weights - kept), rel=1e-3)


def test_learning_rates_rise_and_fall():
    rates = dry_run(resolve("paper")).learning_rates
    assert rates == pytest.approx({0: 0.0, 5000: 5e-7, 10000: 1e-6, 50000: rates[50000], 100000: 1e-7}, rel=1e-6)
    assert 1e-7 < rates[50000] < 1e-6


def test_activations_are_those_that_autograd_keeps():
    """Against the same count on real tensors, at toy size, with the attention that meta has."""
    from unimed_model.dry_run import TEXT_TOKENS, _kept_bytes

    settings = resolve("tiny", ["llm.architecture.vocabulary=300", "training.batch_size=2"])
    config = config_without_files(settings)
    model = UniMedForConditionalGeneration(config).train()
    ids = torch.ones(2, config.image_tokens + TEXT_TOKENS, dtype=torch.long)
    ids[:, : config.image_tokens] = config.image_token_id
    with sdpa_kernel(SDPBackend.MATH), _kept_bytes(model) as kept:
        model(
            input_ids=ids,
            labels=ids,
            pixel_values=torch.zeros(2, 3, 64, 64),
            task_ids=torch.zeros(2, dtype=torch.long),
        )
    assert dry_run(settings).activations == sum(kept.values())
