"""Several processes: the configurations that ship, FSDP2 as they ask for it, and ``accelerate launch unimed-train``."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn
from transformers.utils import is_accelerate_available

from unimed_model.building import build
from unimed_model.data import discover, open_source
from unimed_model.data.collator import Collator
from unimed_model.errors import UserError
from unimed_model.feature_cache import FeatureCache
from unimed_model.presets.distributed import config_names, config_path

from .conftest import on_bases

WORLD = 2


def test_every_configuration_is_one_that_accelerate_reads():
    from accelerate.commands.config.config_args import load_config_from_file

    kinds = {name: load_config_from_file(str(config_path(name))).distributed_type.value for name in config_names()}
    assert kinds == {
        "ddp": "MULTI_GPU",
        "fsdp2": "FSDP",
        "deepspeed_zero2": "DEEPSPEED",
        "deepspeed_zero3": "DEEPSPEED",
    }


@pytest.mark.parametrize("name", config_names())
def test_accelerate_takes_every_key_of_a_configuration(name):
    """Keys that it does not know would be passed over in silence."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    known = vars(launch_command_parser().parse_args(["script"]))
    config = load_config_from_file(str(config_path(name)))
    assert set(config.fsdp_config) | set(config.deepspeed_config) <= set(known)
    assert name in config_path(name).read_text()


def test_the_path_of_a_configuration_is_printed():
    command = [sys.executable, "-m", "unimed_model.presets.distributed"]
    done = subprocess.run([*command, "fsdp2"], capture_output=True, text=True)
    assert (done.returncode, Path(done.stdout.strip())) == (0, config_path("fsdp2"))
    done = subprocess.run([*command, "fsdp3"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "nearest is 'fsdp2'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_configuration_is_named():
    with pytest.raises(UserError, match="'deepspeed_zero3'"):
        config_path("zero3")


KINDS = {"images": True, "text": False}


def samples_of(corpus):
    """Four samples of a dataset with images, and four of one without."""
    found = {}
    for source in discover(corpus):
        samples = open_source(source, "train")
        found.setdefault("text" if samples[0].image_source is None else "images", samples[:4])
    return found


def built(bases):
    return build(on_bases("llm.adapter.dropout=0"), (), bases)


def gradients(model):
    """Name -> whole gradient, of the parameters that have one."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            whole = parameter.grad
            found[name] = (whole.full_tensor() if hasattr(whole, "full_tensor") else whole).clone()
    return found


def sharded(model):
    """The model as accelerate makes it of ``fsdp2.yaml``; accelerate itself passes FSDP over on a CPU."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import fsdp_utils
    from accelerate.utils.launch import prepare_multi_gpu_env

    command = ["--config_file", str(config_path("fsdp2")), "--num_processes", str(WORLD), "script"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(command))
    asked = prepare_multi_gpu_env(arguments)
    os.environ.update({name: value for name, value in asked.items() if name.startswith("FSDP_")})
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin()),
        device=torch.device("cpu"),
        mixed_precision="no",
        is_main_process=False,
    )
    assert accelerator.state.fsdp_plugin.activation_checkpointing
    if hasattr(fsdp_utils, "fsdp2_apply_ac"):  # older versions checkpoint while they shard
        model = fsdp_utils.fsdp2_apply_ac(accelerator, model)
    return fsdp_utils.fsdp2_prepare_model(accelerator, model)


def _sharded_steps(rank, folder, bases, corpus):
    """One process of two: its half of each batch, its loss, and the gradients that come out."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    model, processor = built(bases)
    cache = FeatureCache(Path(folder) / "cache", model, processor)
    model = sharded(model)
    assert any("CheckpointWrapper" in type(module).__name__ for module in model.modules())
    collator, told = Collator(processor), {}
    for kind, samples in samples_of(corpus).items():
        model.zero_grad()
        batch, whole = collator(samples[2 * rank : 2 * rank + 2]), collator(samples)
        share = WORLD * int((batch["labels"] != -100).sum()) / int((whole["labels"] != -100).sum())
        # as the trainer has it: a layer that is recomputed would find its own keys in a cache
        loss = model(**batch, use_cache=False).loss * share
        loss.backward()
        told[kind] = {"loss": loss.detach(), "gradients": gradients(model)}
    with pytest.raises(UserError, match="spread over them"):
        cache.complete(model, Collator(processor, cache)(samples_of(corpus)["images"]))
    torch.save(told, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not is_accelerate_available("1.7"), reason="1.6 saves no whole weights from FSDP2")
def test_a_step_sharded_by_fsdp2_is_a_plain_step(bases, corpus, tmp_path):
    spawn(_sharded_steps, (str(tmp_path), bases, corpus), nprocs=WORLD)
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    model, processor = built(bases)
    for kind, samples in samples_of(corpus).items():
        model.zero_grad()
        loss = model(**Collator(processor)(samples)).loss
        loss.backward()
        torch.testing.assert_close(sum(each[kind]["loss"] for each in told) / WORLD, loss.detach())
        wanted = gradients(model)
        assert any(name.startswith("connector.") for name in wanted) == (kind == "images")
        for each in told:
            found = {name.replace("_checkpoint_wrapped_module.", ""): g for name, g in each[kind]["gradients"].items()}
            assert found.keys() == wanted.keys()
            for name, gradient in wanted.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def free_port():
    with socket.socket() as listening:
        listening.bind(("", 0))
        return str(listening.getsockname()[1])


def run_log(folder):
    return [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("batches", ["homogeneous", "mixed"])
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(corpus, tmp_path, batches):
    unimed_train = Path(sys.executable).with_name("unimed-train")
    command = [str(unimed_train), "--preset", "tiny", "--quiet", "--data", str(corpus)]
    for override in ("training.steps=8", "training.warmup_steps=2", f"data.batches={batches}", "seed=3"):
        command += ["--set", override]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config_path("ddp"))]
    launch += ["--num_processes", str(WORLD), "--main_process_port", free_port()]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name, start, size in (("one", [sys.executable], 4), ("two", launch, 2)):
        whole = [*start, *command, "--set", f"training.batch_size={size}", "--out", str(tmp_path / name)]
        done = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    one, two = run_log(tmp_path / "one"), run_log(tmp_path / "two")
    assert len(one) == len(two) == 8
    for alone, together in zip(one, two, strict=True):
        for key, value in alone.items():
            assert together[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)
    both = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two")]
    assert both[0]["realised_mixture"] == both[1]["realised_mixture"]
