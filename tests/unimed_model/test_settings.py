import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.errors import UserError
from unimed_model.presets import preset_names, resolve


def test_every_shipped_preset_resolves():
    for name in preset_names():
        assert resolve(name).model_dump() == resolve(name).model_dump()


def test_overrides_reach_every_depth_and_keep_the_rest():
    plain, changed = resolve("tiny"), resolve("tiny", ["connector.kind=mlp", "training.steps=7", "seed=3"])
    assert (changed.connector.kind, changed.training.steps, changed.seed) == ("mlp", 7, 3)
    assert changed.vision == plain.vision


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("conector.kind=mlp", "nearest valid key is 'connector'"),
        ("connector.knd=mlp", "nearest valid key is 'connector.kind'"),
        ("training.stepz=3", "nearest valid key is 'training.steps'"),
        ("connector.kind=moe", "'linear', 'mlp' or 'cmoe'"),
        ("training.steps=0", "greater than or equal to 1"),
        ("vision.architecture.patch_size=7", "'vision': image_size 64 is not a multiple of patch_size 7."),
        ("vision.architecture.widht=7", "nearest valid key is 'vision.architecture.width'"),
        ("vision.final_norm=none and vision.layer=9", "there is no layer 9 among 2"),
        ("vision.layer=1", "'vision': the encoder's own final norm belongs to its last layer; set final_norm=none."),
        ("resampler.rate=5", "Preset tiny: 16 patches cannot be concatenated or pooled 5 at a time."),
        ("resampler.kind=max and resampler.rate=2", "'resampler': a block of 2 tokens is no square; set shape=strip."),
        ("connector.router=hard and connector.num_experts=4", "num_experts 4 is too few"),
        ("connector.router=sparse and connector.top_k=6", "top_k 6 is more than num_experts 5"),
        ("llm.adapter={kind: lora}", "an adapter is for frozen weights"),
        ("llm.adapter={kind: lora_moe, num_experts: 2, top_k: 3}", "top_k 3 is more than num_experts 2"),
        ("llm.adapter={knd: lora}", "nearest valid key is 'llm.adapter.kind'"),
        ("connector.hidden=0", "greater than or equal to 1"),
        ("llm.adapter={alpha: .inf}", "'llm.adapter.alpha'"),
        ("llm.architecture.heads=5", "width 96 is not a multiple of 2 times heads (5)"),
        ("llm.architecture.key_value_heads=3", "heads 4 is not a multiple of key_value_heads (3)"),
        ("data.mixing.tempurature=2", "nearest valid key is 'data.mixing.temperature'"),
        ("data.mixing.temperature=0", "greater than or equal to 0.1"),
        ("data.mixing.by=ratios", "'data.mixing': by=ratios needs ratios, a weight for every dataset."),
        ("data.mixing.ratios={a: 1, b: 0}", "'data.mixing.ratios.b': Input should be greater than 0 (found 0)."),
        ("data.mixing.by=ratio", "'size', 'temperature' or 'ratios'"),
        ("data.batches=mixd", "'homogeneous' or 'mixed'"),
        ("training.floor_learning_rate=1", "floor_learning_rate 1 is above peak_learning_rate 0.001"),
        ("prompt.profile=papr", "'paper', 'released' or 'chat'"),
        ("seed", "key=value"),
        ("=3", "key=value"),
        ("seed.deep=1", "is a value, not a section"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_wrong_overrides_say_what_would_be_right(override, says):
    with pytest.raises(UserError) as error:
        resolve("tiny", override.split(" and "))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="'tinny'; the nearest is 'tiny'"):
        resolve("tinny")


def test_preset_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("vision: [")
    with pytest.raises(UserError, match="not valid YAML"):
        resolve(str(path))
    path.write_text("- 1")
    with pytest.raises(UserError, match="must hold sections"):
        resolve(str(path))
    with pytest.raises(UserError, match="does not exist"):
        resolve(str(tmp_path / "absent.yaml"))


@given(st.text(min_size=1, max_size=12))
def test_no_key_ends_in_a_traceback(text):
    with pytest.raises(UserError, match=r"\A.*\S.*"):
        resolve("tiny", [f"training.x{text}=1"])
