"""Files that are no checkpoint, damaged or do not fit, and arguments that contradict them: one sentence each."""

import random
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from unimed_model.errors import UserError
from unimed_model.released_checkpoint import convert
from unimed_model.released_file import open_released

from .released_layout import (  # noqa: F401 - fixtures
    ENCODER,
    LLM,
    PEFT,
    WIDTH,
    config_entry,
    llm_state_fixture,
    mixture,
    preset_fixture,
    run_fixture,
    save,
    weights_fixture,
)


def broken(state, key, change):
    return state | {key: change(state[key].clone())}


def poisoned(value):
    def change(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    return change


def without(state, *keys):
    return {key: tensor for key, tensor in state.items() if key not in keys}


Q_A, Q_B = (f"{PEFT}model.layers.1.self_attn.q_proj.lora_{letter}.default.weight" for letter in "AB")

WRONG_TENSORS = {
    "NaN": (lambda s: broken(s, "moe_layers.3.2.bias", poisoned(float("nan"))), r"moe_layers\.3\.2\.bias.*NaN"),
    "infinite": (lambda s: broken(s, "router.fc1.weight", poisoned(-float("inf"))), r"router\.fc1\.weight.*infinite"),
    "whole numbers": (lambda s: broken(s, "router.fc2.bias", torch.Tensor.long), r"router\.fc2\.bias"),
    "expert's shape": (
        lambda s: broken(s, "moe_layers.2.0.weight", lambda t: t[:-1]),
        rf"moe_layers\.2\.0\.weight has the shape \({LLM - 1}, {WIDTH}\), where \({LLM}, {WIDTH}\) is needed",
    ),
    "other LLM": (
        lambda s: {k: torch.cat([t, t]) if re.match(r"(moe_layers|llm_proj)\.\d\.2", k) else t for k, t in s.items()},
        rf"moe_layers\.0\.2\.weight has the shape \({2 * LLM}, {LLM}\), where \({LLM}, {LLM}\) is needed",
    ),
    "task token's shape": (
        lambda s: broken(s, "task_tokens.caption", lambda t: t[..., 1:]),
        rf"task_tokens\.caption has the shape \(1, 1, {WIDTH - 1}\)",
    ),
    "two task tokens": (
        lambda s: {k: t.repeat(1, 2, 1) if k.startswith("task") else t for k, t in s.items()},
        rf"task_tokens\.vqa has the shape \(1, 2, {WIDTH}\), where \(1, 1, {WIDTH}\)",
    ),
    "router's outputs": (
        lambda s: broken(s, "router.fc2.weight", lambda t: t[:4]),
        r"router\.fc2\.weight has the shape",
    ),
    "router's inputs": (
        lambda s: broken(s, "router.fc1.weight", lambda t: t[:, 1:]),
        rf"router\.fc1\.weight has {2 * WIDTH - 1} columns.*{WIDTH} for token.*{2 * WIDTH} for token_task",
    ),
    "no matrix": (lambda s: broken(s, "router.fc1.weight", lambda t: t[0]), r"router\.fc1\.weight has the shape"),
    "nothing": (
        lambda s: broken(s, "moe_layers.0.0.weight", lambda t: t[:0]),
        r"moe_layers\.0\.0\.weight has the shape",
    ),
    "scalar task token": (lambda s: broken(s, "task_tokens.vqa", lambda t: t.sum()), r"router\.fc1\.weight has"),
    "LoRA's rank": (lambda s: broken(s, Q_A, lambda t: t[:2]), r"lora_A\.default\.weight has the shape \(2, 16\)"),
    "expert missing": (
        lambda s: without(s, *(k for k in s if k.startswith("moe_layers.2."))),
        r"holds no moe_layers\.2\.0\.weight",
    ),
    "bias missing": (lambda s: without(s, "moe_layers.4.0.bias"), r"holds no moe_layers\.4\.0\.bias"),
    "last layer missing": (lambda s: without(s, "moe_layers.0.2.weight"), r"holds no moe_layers\.0\.2\.weight"),
    "router missing": (lambda s: without(s, "router.fc1.weight"), r"holds no router\.fc1\.weight"),
    "task token missing": (lambda s: without(s, "task_tokens.cls"), r"holds no task_tokens\.cls"),
    "half a LoRA": (lambda s: without(s, Q_B), rf"holds no {re.escape(Q_B)}"),
    "one layer's LoRA": (lambda s: without(s, Q_A, Q_B), rf"holds no {re.escape(Q_A)}"),
    "a layer too many": (lambda s: s | {Q_A.replace("s.1.", "s.2."): s[Q_A]}, r"layers\.2.*the LLM has no place"),
    "LoRA on the head": (
        lambda s: s | {f"{PEFT}lm_head.lora_A.default.weight": torch.ones(3, 16)},
        r"lm_head\.lora_A.*the LLM has no place",
    ),
    "no connector": (
        lambda s: {k: t for k, t in s.items() if not k.startswith(("moe_layers", "llm_proj"))},
        "neither experts .moe_layers. nor a projection",
    ),
    "twins that differ": (
        lambda s: broken(s, "llm_proj.1.0.weight", poisoned(9.0)),
        r"llm_proj\.1\.0\.weight and moe_layers\.1\.0\.weight",
    ),
    "twins of two types": (
        lambda s: broken(s, "llm_proj.1.0.weight", torch.Tensor.double),
        r"llm_proj\.1\.0\.weight and",
    ),
    "trained encoder": (
        lambda s: s | {"visual_encoder.cls_token": torch.ones(1)},
        r"visual_encoder\.cls_token.*freeze_vit",
    ),
}


@pytest.mark.parametrize(("change", "sentence"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_tensors_that_do_not_fit(run, tmp_path, llm_state, change, sentence):
    torch.manual_seed(12)
    with pytest.raises(UserError, match=sentence):
        run(change(mixture() | llm_state), {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_0.pth"]


WRONG_ARGUMENTS = {
    "strategy open": ({"reads": WIDTH}, {}, None, "--strategy token or task"),
    "strategy of another width": ({}, {"strategy": "token"}, None, "does not fit token"),
    "unknown strategy": ({}, {"strategy": "tokens"}, None, "does not fit tokens"),
    "resampler open": ({"width": ENCODER, "reads": 2 * ENCODER}, {}, None, "--resampler average, max or projection"),
    "resampler of another width": ({}, {"resampler": "max"}, None, "does not fit max"),
    "unknown resampler": ({"width": ENCODER, "reads": 2 * ENCODER}, {"resampler": "mean"}, None, "'resampler.kind'"),
    "no multiple": ({"width": 12, "reads": 24}, {}, None, r"moe_layers\.0\.0\.weight has 12 columns"),
    "unknown router": ({}, {"router": "softt"}, None, r"connector\.router"),
    "too few experts": ({"num_experts": 4}, {"router": "hard"}, None, "num_experts 4 is too few"),
    "too large k": ({}, {"router": "sparse", "top_k": 6}, None, "top_k 6 is more"),
    "k of a soft router": ({}, {"top_k": 2}, None, "without top_k"),
    "strategy of a hard router": ({}, {"router": "hard", "strategy": "token"}, None, "without strategy"),
    "alpha": ({}, {"alpha": 0.0}, None, "alpha"),
    "contradiction": ({}, {"router": "hard"}, config_entry(router_type="soft"), "with router soft.*not hard"),
    "entry of another router": ({}, {}, config_entry(router_method="router_token"), "does not fit token"),
    "entry of another LLM": ({}, {}, config_entry(sft_type="full"), "sft_type full.*sft_type lora"),
    "entry of lists": ({}, {}, config_entry(router_type=["soft"]), r"model\.router_type"),
    "entry of another image": ({}, {}, config_entry(image_size=18), "image_size"),
    "preset": ({}, {"preset": "tiny"}, None, "vision.pretrained"),
    "weights": ({}, {"weights": "nowhere"}, None, "no folder nowhere"),
}


@pytest.mark.parametrize(("layout", "arguments", "entry", "sentence"), WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_arguments_that_do_not_fit(tmp_path, weights, preset, llm_state, layout, arguments, entry, sentence):
    others = {} if entry is None else {"config": entry}
    path = save(tmp_path / "checkpoint_0.pth", mixture(**layout) | llm_state, **others)
    given = {"weights": weights, "preset": preset} | arguments
    given["weights"] = Path(given["weights"])
    with pytest.raises(UserError, match=sentence):
        convert(path, tmp_path / "out", quiet=True, **given)
    assert not (tmp_path / "out").exists()


def test_no_checkpoint(tmp_path):
    for path in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(UserError, match="There is no checkpoint"):
            convert(path, tmp_path / "out", quiet=True)


def test_what_stands_in_the_folders_place_is_not_touched(tmp_path, run):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UserError, match="there already"):
        run(mixture())
    assert (tmp_path / "out" / "mine").read_text() == "mine"


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_a_truncated_file(tmp_path, kept):
    path = save(tmp_path / "checkpoint_0.pth", mixture())
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(UserError, match="truncated"):
        convert(path, tmp_path / "out", quiet=True)


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "checkpoint_0.pth"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"no file that torch\.save writes"):
        convert(path, tmp_path / "out", quiet=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(UserError, match="damaged"):
        convert(path, tmp_path / "out", quiet=True)
    torch.save(mixture(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"no file that torch\.save writes"):
        convert(path, tmp_path / "out", quiet=True)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"model": {}}, {"model": 3}, torch.ones(2)])
def test_a_file_with_other_content(tmp_path, content):
    path = tmp_path / "checkpoint_0.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="no entry 'model' with tensors"):
        convert(path, tmp_path / "out", quiet=True)


@pytest.mark.parametrize("model", [{"a": 1}, {3: torch.ones(1)}, {"a": torch.ones(1), "b": [torch.ones(1)]}])
def test_a_model_entry_that_holds_no_tensors(tmp_path, model):
    path = tmp_path / "checkpoint_0.pth"
    torch.save({"model": model}, path)
    with pytest.raises(UserError, match="is no tensor"):
        convert(path, tmp_path / "out", quiet=True)


def test_damage_anywhere_is_one_sentence(tmp_path):
    """Random bytes replaced: the file opens, or it is refused; nothing else is raised."""
    path = save(tmp_path / "checkpoint_0.pth", {f"key{i}": torch.randn(3) for i in range(3)})
    whole, chance, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            open_released(path)
        except UserError:
            refused += 1
    assert 100 < refused < 600


def test_a_damaged_pickle(tmp_path):
    whole, path = tmp_path / "whole.pth", tmp_path / "checkpoint_0.pth"
    save(whole, mixture())
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, data[: len(data) // 2] if name.endswith("data.pkl") else data)
    with pytest.raises(UserError, match="damaged"):
        convert(path, tmp_path / "out", quiet=True)


def test_classes_of_its_own_are_named_and_never_made(tmp_path, run, weights, preset, llm_state):
    """As with a config entry that was not turned into plain values: a marker shows that nothing of it was run."""
    module = tmp_path / "its_own.py"
    module.write_text(
        "from pathlib import Path\n"
        "class Node:\n"
        "    def __reduce__(self):\n"
        f"        return make, ({str(tmp_path / 'it ran')!r},)\n"
        "def make(path):\n"
        "    Path(path).touch()\n"
        "    return Node()\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import its_own

        path = save(tmp_path / "checkpoint 0's.pth", mixture() | llm_state, config=its_own.Node())
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("its_own", None)
    with pytest.raises(UserError, match=r"its_own\.make") as caught:
        convert(path, tmp_path / "out", weights=weights, preset=preset, quiet=True)
    assert not (tmp_path / "it ran").exists()

    command = shlex.split(str(caught.value)[str(caught.value).index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], check=True, cwd=tmp_path)
    alone = tmp_path / "checkpoint 0's_model.pth"
    assert convert(alone, tmp_path / "out", weights=weights, preset=preset, quiet=True).tensors > 0


def test_tensors_stay_on_disk_until_they_are_looked_at(tmp_path):
    """So does the optimizer's state, to which nobody looks."""
    process = pytest.importorskip("psutil").Process()
    path = save(tmp_path / "checkpoint_0.pth", {"large": torch.zeros(2**26)})
    before = process.memory_info().rss
    file = open_released(path)
    assert process.memory_info().rss - before < 2**26
    assert file.tensors["large"].sum() == 0
    assert process.memory_info().rss - before > 2**27


def test_interrupted_writing_leaves_nothing(tmp_path, run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("unimed_model.released_checkpoint.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(mixture())
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_0.pth"]


def test_the_file_is_opened_as_it_was_saved(tmp_path):
    state = mixture()
    file = open_released(save(tmp_path / "checkpoint_0.pth", state))
    assert list(file.tensors) == list(state)
    assert all(torch.equal(file.tensors[key], tensor) for key, tensor in state.items())
