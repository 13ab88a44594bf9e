"""What a recording leaves besides its Gram matrix: means, scores, sketches, Adam's geometry; against float64."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import tugofwar as tow
from tugofwar import metrics
from tugofwar.engine import passes
from tugofwar.engine.choice import Keeping

from . import small

DATA = {"a": small.batches(3, 1), "b": small.batches(3, 2, idle=(1,)), "c": small.batches(3, 5, idle=(1,))}
TASKS = {"a": "VQA", "b": "CLS", "c": "VQA"}


def record(model, data=DATA, parameters="*", **settings):
    return tow.record(model, data, parameters, 3, settings.pop("loss", small.loss), progress=False, **settings)


def mean_gradients(model, data=DATA):
    """Per dataset and parameter name the mean gradient, in the parameter's shape."""
    rows = small.gradients(model, data)
    sizes = [parameter.numel() for parameter in model.parameters()]
    means = {}
    for number, name in enumerate(data):
        pieces = rows[3 * number : 3 * number + 3].mean(0).split(sizes)
        for (parameter, value), piece in zip(model.named_parameters(), pieces, strict=True):
            means[f"{name}/{parameter}"] = piece.view(value.shape).numpy()
    return means


@pytest.mark.parametrize("keeping", ["factors", "dense"])
@pytest.mark.parametrize("memory", [None, "3kB"])
def test_kept_means_are_those_of_autograd(tmp_path, monkeypatch, keeping, memory):
    monkeypatch.setattr(passes, "choose_keeping", lambda *_: Keeping(keeping, "forced"))
    model = small.build()
    record(model, workspace=tmp_path, keep_means=True, memory=memory)
    kept, exact = load_file(tmp_path / "means.safetensors"), mean_gradients(model)
    assert set(kept) == set(exact)
    for name, value in kept.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, exact[name], rtol=1e-6, atol=1e-12)
    assert [path.name for path in tmp_path.iterdir()] == ["means.safetensors"]


@pytest.mark.parametrize("memory", [None, "3kB"])
def test_kept_scores_are_those_of_the_means_and_undefined_ones_are_marked(tmp_path, memory):
    model = small.build()
    record(model, workspace=tmp_path, keep_scores=True, memory=memory, tasks=TASKS)
    kept, means = load_file(tmp_path / "scores.safetensors"), mean_gradients(model)
    groups = {"dataset": [["a"], ["b"], ["c"]], "task": [["a", "c"], ["b"]]}
    names = [name for name, _ in model.named_parameters()]
    assert set(kept) == {f"{level}/{name}{end}" for level in groups for name in names for end in ("", "/undefined")}
    for level, members in groups.items():
        for name in names:
            pooled = [np.mean([means[f"{dataset}/{name}"] for dataset in group], axis=0) for group in members]
            exact, undefined = metrics.statistics_score(pooled)
            assert kept[f"{level}/{name}"].dtype == np.float16
            assert (kept[f"{level}/{name}/undefined"] == undefined).all()
            assert (kept[f"{level}/{name}"][undefined] == 0).all()
            np.testing.assert_allclose(kept[f"{level}/{name}"][~undefined], exact[~undefined], rtol=1e-3, atol=1e-3)


def test_a_score_without_any_gradient_is_undefined(tmp_path):
    data = {name: small.batches(3, seed, idle=(1,)) for name, seed in (("a", 1), ("b", 2))}
    recording = record(small.build(), data, workspace=tmp_path, keep_scores=True)
    kept = load_file(tmp_path / "scores.safetensors")
    idle = [name for name in kept if "experts.1." in name and name.endswith("undefined")]
    assert len(idle) == 4
    assert all(kept[name].all() for name in idle)
    assert (recording.select("experts.1.*").gram == 0).all()


def test_histograms_count_the_scores_of_all_parameters():
    model = small.build()
    recording, means = record(model), mean_gradients(small.build())
    for block in recording.blocks:
        scores = []
        for name in block.parameters:
            exact, undefined = metrics.statistics_score([means[f"{dataset}/{name}"] for dataset in DATA])
            scores.append(exact[~undefined])
        expected = np.histogram(np.concatenate([score.ravel() for score in scores]), bins=10, range=(0, 1))[0]
        assert (recording.statistics.levels["dataset"][block.name].ten == expected).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_means": True}, "need `workspace`"),
        ({"keep_scores": True}, "need `workspace`"),
        ({"keep_factors": True}, "need `workspace`"),
        ({"keep_means": True, "statistics": False, "workspace": "."}, "do not set statistics=False"),
        ({"keep_scores": True, "sketch": 9, "workspace": "."}, "A sketch has no single parameters"),
        ({"keep_means": True, "sketch": 9, "workspace": "."}, "A sketch has no single parameters"),
        ({"preconditioner": {}, "sketch": 9}, "A sketch has no single parameters"),
        ({"sketch": 0}, "positive number of dimensions"),
        ({"seed": -1}, "`seed` is a whole number from 0"),
        ({"preconditioner": {}}, "no second moments for token"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_batch(settings, message):
    with pytest.raises(tow.UserError, match=message):
        record(small.build(), loss=lambda *_: pytest.fail("a batch was passed"), **settings)


def test_means_are_not_begun_where_the_disk_has_no_room(tmp_path, monkeypatch):
    from tugofwar.engine import store

    monkeypatch.setattr(store, "free_disk", lambda _: 10)
    with pytest.raises(tow.UserError, match="which has 10 B left"):
        record(small.build(), workspace=tmp_path, keep_means=True, resume=False)
    assert list(tmp_path.iterdir()) == []


def test_a_sketch_no_smaller_than_the_gradient_is_exact():
    model = small.build()
    recording = record(model, sketch=10_000)
    assert small.relative_error(recording.gram, small.gram(model, DATA)) <= 1e-12
    assert recording.metadata["sketch"] == {"dimension": 10_000, "expected_error": 0.0}
    assert recording.statistics is None


def errors(dimension, seeds):
    """Errors of the cosines, ``(seeds, n, n)``, of the weight of one layer that is sketched."""
    model = small.build()
    exact = small.gram(model, DATA, names=["experts.0.0.weight"])
    norms = np.sqrt(np.diagonal(exact))
    grams = [
        record(model, parameters="experts.0.0.weight", sketch=dimension, seed=seed, resume=False).gram for seed in seeds
    ]
    return np.stack([(gram - exact) / np.outer(norms, norms) for gram in grams]), exact / np.outer(norms, norms)


def test_sketched_products_are_unbiased_and_as_uncertain_as_stated():
    found, cosine = errors(32, range(120))
    uncertainty = np.sqrt((1 + cosine**2) / 32)
    off_diagonal = ~np.eye(9, dtype=bool)
    assert (abs(found.mean(0)) < 4.5 * uncertainty / np.sqrt(len(found))).all()
    ratio = (found.std(0) / uncertainty)[off_diagonal]
    assert 0.7 < ratio.mean() < 1.15


def test_a_wider_sketch_errs_less():
    few, many = (errors(dimension, range(30))[0].std() for dimension in (8, 128))
    assert 2.5 < few / many < 6


def test_a_sketch_states_its_error():
    recording = record(small.build(), sketch=100)
    assert recording.metadata["sketch"] == {"dimension": 100, "expected_error": 0.1}
    kinds = {choice.part: choice.kept for choice in recording.choices}
    assert set(kinds.values()) == {"sketch"}
    assert "as asked" in recording.report()


def stepped(model, **settings):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, **settings)
    for batch in small.batches(4, 7):
        optimizer.zero_grad()
        small.loss(model, batch).backward()
        optimizer.step()
    optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("keeping", ["factors", "dense"])
@pytest.mark.parametrize("merged", [(), ("experts.*",)])
@pytest.mark.parametrize("memory", [None, "3kB"])
def test_the_geometry_of_adam_is_that_of_scaled_gradients(tmp_path, monkeypatch, keeping, merged, memory):
    monkeypatch.setattr(passes, "choose_keeping", lambda *_: Keeping(keeping, "forced"))
    model = small.build()
    optimizer = stepped(model)
    scale = {}
    for name, parameter in model.named_parameters():
        moments = optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.999**4)
        scale[name] = 1 / (moments.sqrt() + 1e-8)
    recording = record(
        model, preconditioner=optimizer, group_blocks=merged, memory=memory, workspace=tmp_path, tasks=TASKS
    )
    adam = recording.in_geometry("adam")
    assert small.relative_error(recording.gram, small.gram(model, DATA)) <= 1e-12
    assert small.relative_error(adam.gram, small.gram(model, DATA, scale=scale)) <= 1e-11
    names = {name for name in scale if name.startswith("experts.1.")}
    if not merged:
        scaled = small.gram(model, DATA, scale=scale, names=names)
        assert small.relative_error(adam.select("experts.1.*").gram, scaled) <= 1e-11
    # Whichever way round.
    assert (recording.select("norm").in_geometry("adam").gram == adam.select("norm").gram).all()
    recording.save(tmp_path / "saved")
    loaded = tow.Recording.load(tmp_path / "saved")
    assert (loaded.in_geometry("adam").gram == adam.gram).all()
    assert (loaded.gram == recording.gram).all()
    assert json.loads((tmp_path / "saved" / "manifest.json").read_text())["geometries"] == ["adam"]


def test_products_that_overflow_are_one_sentence():
    model = small.build(dtype=torch.float32)
    data = {"a": small.batches(3, 1, dtype=torch.float32)}
    with pytest.raises(tow.UserError, match="overflow"):
        record(model, data, loss=lambda model, batch: 1e25 * small.loss(model, batch), statistics=False)
