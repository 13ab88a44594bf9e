"""The feature cache against training without it, bit for bit, and against damage, full disks and other encoders."""

import errno
import os
import pickle
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from unimed_model.building import build
from unimed_model.data import discover, open_source
from unimed_model.data.cells import ImageCell
from unimed_model.data.collator import Collator
from unimed_model.data.images import ImageArray, ImageFile
from unimed_model.data.mixture import Mixture
from unimed_model.errors import UserError
from unimed_model.feature_cache import FeatureCache

from .conftest import on_bases, tiny_settings

TOY = "pretrained: hub/toy-vision, image_size: 64"


def built(bases, *overrides):
    return build(on_bases("llm.adapter.dropout=0", *overrides), (), bases)


@contextmanager
def threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(bases):
    return built(bases)


@pytest.fixture(scope="module")
def datasets(corpus):
    return {source.name: open_source(source, "train") for source in discover(corpus)}


def drawn(datasets, processor, steps, *, batches="mixed", batch_size=6, seed=0):
    mixture = Mixture(datasets, batch_size, steps, seed, processor.prompts, batches=batches)
    return [[mixture[draw] for draw in batch] for batch in mixture]


def pictures(datasets, number=3):
    """Samples with different images."""
    unlike = {sample.image_id: sample for samples in datasets.values() for sample in samples if sample.image_source}
    return list(unlike.values())[:number]


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def steps(model, batches, cache=None):
    """Losses and gradients of some steps of SGD."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    told = []
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        loss = model(**(cache.complete(model, batch) if cache else batch)).loss
        loss.backward()
        optimizer.step()
        told.append((loss.detach(), [None if p.grad is None else p.grad.clone() for p in parameters]))
    return told


def require_equal(one, other):
    for (loss, gradients), (loss_too, gradients_too) in zip(one, other, strict=True):
        assert torch.equal(loss, loss_too)
        for gradient, gradient_too in zip(gradients, gradients_too, strict=True):
            assert (gradient is None) == (gradient_too is None)
            assert gradient is None or torch.equal(gradient, gradient_too)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("vision", "kind"),
    [
        ("vision.precision=float32", torch.float32),
        ("vision.precision=bfloat16", torch.bfloat16),
        (f"vision={{{TOY}, layer: -2, final_norm: parameter_free, precision: float16}}", torch.float16),
    ],
)
def test_losses_and_gradients_are_bit_identical_to_those_without_a_cache(
    bases, datasets, tmp_path, vision, kind, number
):
    with threads(number):
        plain, processor = built(bases, vision)
        with_cache, _ = built(bases, vision)
        cache = FeatureCache(tmp_path, with_cache, processor)
        batches = drawn(datasets, processor, 3) * 2  # every image is missing first and then found
        collator = Collator(processor, cache)
        without = steps(plain, [Collator(processor)(batch) for batch in batches])
        with_it = steps(with_cache, (collator(batch) for batch in batches), cache)
        require_equal(without, with_it)
    assert files(tmp_path)
    stored = load_file(files(tmp_path)[0])["tokens"]
    assert (stored.dtype, tuple(stored.shape)) == (kind, (16, 32))


def test_homogeneous_batches_with_and_without_images_train_alike(bases, datasets, tmp_path):
    plain, processor = built(bases)
    with_cache, _ = built(bases)
    cache = FeatureCache(tmp_path, with_cache, processor)
    batches = drawn(datasets, processor, 12, batches="homogeneous", batch_size=3)
    kinds = {batch[0].image_source is None for batch in batches}
    assert kinds == {True, False}
    without = steps(plain, [Collator(processor)(batch) for batch in batches])
    require_equal(without, steps(with_cache, (Collator(processor, cache)(b) for b in batches), cache))


def test_tokens_are_the_same_under_autocast(model, datasets, tmp_path):
    uni_med, processor = model
    pixels = processor.pixels([sample.image for sample in pictures(datasets)])
    wanted = uni_med.vision_model(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(uni_med.vision_model(pixels), wanted)
    assert wanted.dtype == torch.float32


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_an_images_tokens_do_not_depend_on_the_images_beside_it(bases, datasets, precision, number):
    with threads(number):
        uni_med, processor = built(bases, f"vision.precision={precision}")
        pixels = processor.pixels([sample.image for sample in pictures(datasets, 5)])
        together = uni_med.vision_model(pixels)
        for place in range(5):
            assert torch.equal(uni_med.vision_model(pixels[place : place + 1])[0], together[place])


def test_an_image_that_is_there_is_neither_opened_nor_encoded(bases, datasets, tmp_path, monkeypatch):
    uni_med, processor = built(bases)
    cache = FeatureCache(tmp_path, uni_med, processor)
    samples = pictures(datasets, 4)
    first = cache.complete(uni_med, Collator(processor, cache)(samples))
    refuse = lambda *_, **__: pytest.fail("opened or encoded")  # noqa: E731
    for kind in {type(sample.image_source) for sample in samples}:
        monkeypatch.setattr(kind, "open", refuse)
    monkeypatch.setattr(uni_med.vision_model.model, "forward", refuse)
    again = cache.complete(uni_med, Collator(processor, cache)(samples))
    assert again.keys() == first.keys()
    assert "pixel_values" not in again
    assert torch.equal(again["vision_tokens"], first["vision_tokens"])
    assert uni_med(**again).loss.isfinite()


def test_only_the_missing_images_of_a_batch_are_encoded(model, datasets, tmp_path):
    uni_med, processor = model
    cache = FeatureCache(tmp_path, uni_med, processor)
    one, two, three = pictures(datasets)
    collator = Collator(processor, cache)
    cache.complete(uni_med, collator([two]))
    batch = collator([one, two, three])
    assert len(batch["pixel_values"]) == 2
    assert len(batch["vision_tokens"]) == 1
    wanted = uni_med.vision_model.encode(Collator(processor)([one, two, three])["pixel_values"])
    assert torch.equal(cache.complete(uni_med, batch)["vision_tokens"], wanted)


def test_a_batch_of_text_comes_back_as_it_is(model, datasets, tmp_path):
    uni_med, processor = model
    cache = FeatureCache(tmp_path, uni_med, processor)
    text = [sample for samples in datasets.values() for sample in samples if sample.image_source is None][:2]
    batch = Collator(processor, cache)(text)
    assert cache.complete(uni_med, batch) == batch
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    assert not files(tmp_path)


def test_equal_content_is_one_file_wherever_it_stands(model, tmp_path):
    uni_med, processor = model
    cache = FeatureCache(tmp_path / "cache", uni_med, processor)
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(tmp_path / name)
    sources = [ImageFile(tmp_path / "a.png"), ImageFile(tmp_path / "b.png")]
    completed = cache.complete(uni_med, cache.look_up(sources, processor))
    assert len(files(tmp_path / "cache")) == 1
    assert torch.equal(*completed["vision_tokens"])


def test_a_file_with_new_content_is_encoded_anew(model, tmp_path):
    uni_med, processor = model
    cache = FeatureCache(tmp_path / "cache", uni_med, processor)
    path = tmp_path / "a.png"
    found = []
    for level in (10, 200):
        Image.new("RGB", (40, 30), (level, level, level)).save(path)
        os.utime(path, (level, level))
        found.append(cache.complete(uni_med, cache.look_up([ImageFile(path)], processor))["vision_tokens"])
    assert not torch.equal(*found)
    assert torch.equal(found[1], uni_med.vision_model.encode(processor.pixels([Image.open(path)])))


def test_images_in_arrays_and_in_parquet_are_known_by_their_content(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    stack = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    stack[2] = stack[0]
    np.savez(tmp_path / "stack.npz", images=stack, flat=stack.reshape(3, 4, 16))
    contents = [ImageArray(tmp_path / "stack.npz", "images", index).content() for index in range(3)]
    assert contents[0] == contents[2] != contents[1]
    assert ImageArray(tmp_path / "stack.npz", "flat", 0).content() != contents[0]
    Image.fromarray(stack[0]).save(tmp_path / "a.png")
    held = (tmp_path / "a.png").read_bytes()
    pq.write_table(pa.table({"image": [{"bytes": held, "path": None}]}), tmp_path / "a.parquet")
    assert ImageCell(tmp_path / "a.parquet", "image", 0).content() == ImageFile(tmp_path / "a.png").content() == held


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.png is missing; complete the download"):
        ImageFile(tmp_path / "gone.png").content()


@pytest.mark.parametrize(
    "override",
    [
        "vision={pretrained: hub/toy-vision, image_size: 32}",
        f"vision={{{TOY}, layer: 2, final_norm: none}}",
        f"vision={{{TOY}, final_norm: none}}",
        "vision.precision=bfloat16",
    ],
)
def test_another_use_of_the_encoder_has_another_key(bases, model, tmp_path, override):
    assert FeatureCache(tmp_path, *built(bases, override)).folder != FeatureCache(tmp_path, *model).folder


def test_the_key_is_that_of_weights_image_processor_and_threads(bases, model, tmp_path):
    uni_med, processor = built(bases)
    same = FeatureCache(tmp_path, *model).folder
    assert FeatureCache(tmp_path, uni_med, processor).folder == same
    seen = {same}
    for name, value in (("image_mean", [0.4] * 3), ("image_std", [0.3] * 3), ("resample", 0)):
        setattr(processor.image_processor, name, value)
        seen.add(FeatureCache(tmp_path, uni_med, processor).folder)
    with threads(torch.get_num_threads() + 1):
        seen.add(FeatureCache(tmp_path, uni_med, processor).folder)
    with torch.no_grad():
        next(uni_med.vision_model.model.parameters()).view(-1)[0] += 1
    seen.add(FeatureCache(tmp_path, uni_med, processor).folder)
    assert len(seen) == 6
    assert all((folder / "encoder.json").is_file() for folder in seen)


def test_the_norm_without_parameters_does_not_change_the_key(bases, tmp_path):
    folders = {
        FeatureCache(tmp_path, *built(bases, f"vision={{{TOY}, layer: 2, final_norm: {norm}}}")).folder
        for norm in ("none", "parameter_free")
    }
    assert len(folders) == 1


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _another_shape(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"tokens": torch.zeros(2, 2), "digest": torch.zeros(16, dtype=torch.uint8)}, path)


def _something_else(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"else": torch.zeros(2, 2)}, path)


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _another_shape, _something_else])
def test_a_damaged_file_is_named_and_written_again(model, datasets, tmp_path, damage):
    uni_med, processor = model
    cache = FeatureCache(tmp_path, uni_med, processor)
    collator = Collator(processor, cache)
    samples = pictures(datasets, 1)
    wanted = cache.complete(uni_med, collator(samples))["vision_tokens"]
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    damage(path)
    with pytest.warns(UserWarning, match=path.name):
        batch = collator(samples)
    assert torch.equal(cache.complete(uni_med, batch)["vision_tokens"], wanted)
    assert path.read_bytes() == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "pixel_values" not in collator(samples)


def test_a_trained_encoder_is_refused(corpus, tmp_path):
    texts = ["<1><2><3><4> where?"] * 9
    with pytest.raises(UserError, match=r"vision\.trainable=false"):
        FeatureCache(tmp_path / "cache", *build(tiny_settings(), texts))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "cannot be written")])
def test_a_full_disk_is_one_sentence_and_leaves_no_half_file(model, datasets, tmp_path, monkeypatch, number, said):
    uni_med, processor = model
    cache = FeatureCache(tmp_path, uni_med, processor)
    batch = Collator(processor, cache)(pictures(datasets, 1))
    write = Path.write_bytes

    def full(path, content):
        write(path, content[:10])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=said) as raised:
        cache.complete(uni_med, batch)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["encoder.json"]


def test_a_folder_that_is_a_file_is_one_sentence(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        FeatureCache(tmp_path / "file", *model)


def _fill(bases, corpus, folder):
    torch.set_num_threads(1)
    uni_med, processor = built(bases)
    cache = FeatureCache(folder, uni_med, processor)
    datasets = {source.name: open_source(source, "train") for source in discover(corpus)}
    for sample in pictures(datasets, 12):
        cache.complete(uni_med, Collator(processor, cache)([sample]))
    return {path.name: path.read_bytes() for path in files(folder)}


def test_several_processes_may_fill_one_folder(bases, corpus, tmp_path):
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        one, two = pool.map(_fill, [bases] * 2, [corpus] * 2, [tmp_path] * 2)
    assert one == two
    assert len(one) == 12
    assert all(path.suffix in (".json", ".safetensors") for path in tmp_path.rglob("*") if path.is_file())


def test_it_works_in_the_workers_of_a_loader(bases, datasets, tmp_path):
    uni_med, processor = built(bases)
    cache = FeatureCache(tmp_path, uni_med, processor)
    collator = Collator(processor, cache)
    assert pickle.loads(pickle.dumps(collator)).cache.folder == cache.folder
    samples = pictures(datasets, 6)
    wanted = uni_med.vision_model.encode(Collator(processor)(samples)["pixel_values"])
    cache.complete(uni_med, collator(samples[:3]))
    loader = DataLoader(samples, batch_size=2, num_workers=1, collate_fn=collator, multiprocessing_context="spawn")
    batches = list(loader)
    assert [len(batch.get("vision_tokens", ())) for batch in batches] == [2, 1, 0]
    tokens = [cache.complete(uni_med, batch)["vision_tokens"] for batch in batches]
    assert torch.equal(torch.cat(tokens), wanted)


def test_wrappers_of_the_model_are_seen_through(model, datasets, tmp_path):
    uni_med, processor = model
    cache = FeatureCache(tmp_path, uni_med, processor)
    batch = Collator(processor, cache)(pictures(datasets, 1))
    completed = cache.complete(torch.nn.DataParallel(uni_med), batch)
    assert torch.equal(completed["vision_tokens"], uni_med.vision_model.encode(batch["pixel_values"]))


def test_rounded_pixels_never_reach_the_cache(model, datasets, tmp_path):
    uni_med, processor = model
    cache = FeatureCache(tmp_path, uni_med, processor)
    batch = Collator(processor, cache)(pictures(datasets, 1))
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    with pytest.raises(ValueError, match="bfloat16"):
        cache.complete(uni_med, batch)
    assert not files(tmp_path)


def test_answers_are_generated_from_tokens_as_from_pixels(model, datasets, tmp_path):
    uni_med, processor = model
    from unimed_model.processing import Turn

    uni_med.eval()
    samples = [s for s in pictures(datasets, 20) if s.task == "VQA"][:2]
    batch = processor.generation_batch([Turn.of(processor.prompts.for_evaluation(sample)) for sample in samples])
    options = {"max_new_tokens": 4, "do_sample": False}
    wanted = uni_med.generate(**batch, **options)
    batch["vision_tokens"] = uni_med.vision_model.encode(batch.pop("pixel_values"))
    assert torch.equal(uni_med.generate(**batch, **options), wanted)


def test_images_given_twice_are_refused(model, datasets):
    uni_med, processor = model
    batch = Collator(processor)(pictures(datasets, 1))
    tokens = uni_med.vision_model.encode(batch["pixel_values"])
    with pytest.raises(ValueError, match="either as pixel_values or as vision_tokens"):
        uni_med(**batch, vision_tokens=tokens)
