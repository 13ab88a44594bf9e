"""Oracles: Adam's second moments by hand; the scaled Gram from autograd's own gradients."""

import shutil
import sys

import numpy as np
import pytest
import torch
from torch import nn

import tugofwar as tow
from tugofwar import cli
from unimed_model.errors import UserError
from unimed_model.moments import SECOND_MOMENTS, read_second_moments, write_second_moments
from unimed_model.probing import load_for_probing


def test_moments_are_those_of_adam_by_hand(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(4, 4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.8), eps=1e-6)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        model[1](model[0](torch.randn(5, 3))).square().sum().backward()
        expected = 0.8 * expected + 0.2 * model[0].weight.grad.double() ** 2
        optimizer.step()
    write_second_moments(tmp_path, model, optimizer)
    saved = read_second_moments(tmp_path)
    assert saved.eps == 1e-6
    torch.testing.assert_close(saved.values["0.weight"].double(), expected / (1 - 0.8**3), rtol=1e-5, atol=0)
    assert set(saved.values) == {"0.weight", "0.bias", "1.weight", "1.bias"}, "no gradient reached the third layer"


def test_a_run_holds_the_moments_of_what_it_trained(trained, opened):
    saved = read_second_moments(trained)
    model, _ = opened
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assert saved.values.keys() <= shapes.keys()
    assert all(value.shape == shapes[name] and value.dtype == torch.float32 for name, value in saved.values.items())
    assert any(name.startswith("connector.") for name in saved.values)
    assert saved.eps == 1e-8


def measure(monkeypatch, run, corpus, out, *options):
    words = ["gradients", "--ckpt", run, "--data", corpus, "--datasets", "mni_vqa,mni_t1", "--batch-size", 2]
    monkeypatch.setattr(sys, "argv", ["tugofwar", *map(str, words), "--out", str(out), "--quiet", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code or 0


def test_the_geometry_of_a_runs_update(trained, corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert measure(monkeypatch, trained, corpus, out, "--batches", "2", "--preconditioner", "adam") == 0
    recording = tow.Recording.load(out)
    assert recording.metadata["second_moments_sha256"] == read_second_moments(trained).sha256
    setup = load_for_probing(trained, [corpus], ["mni_vqa", "mni_t1"], 2, 2, 0, False)
    moments = setup.preconditioner
    chosen = {name: p for name, p in setup.model.named_parameters() if name.startswith("connector.")}
    rows = []
    for batches in setup.batches.values():
        for batch in batches:
            gradients = torch.autograd.grad(setup.model(**batch).loss, list(chosen.values()))
            scaled = [
                g.double() / (moments.values[name].double().sqrt() + moments.eps)
                for name, g in zip(chosen, gradients, strict=True)
            ]
            rows.append(torch.cat([each.flatten() for each in scaled]))
    exact = (torch.stack(rows) @ torch.stack(rows).T).numpy()
    norms = np.sqrt(np.diagonal(exact))
    assert list(recording.rows) == list(setup.batches)
    assert abs((recording.in_geometry("adam").gram - exact) / np.outer(norms, norms)).max() < 2e-5
    assert (out / "adam" / "gd_dataset.csv").is_file()


def test_a_run_of_uni_med_is_extended(trained, corpus, tmp_path, monkeypatch):
    assert measure(monkeypatch, trained, corpus, tmp_path / "out", "--batches", "2", "--keep-factors") == 0
    assert measure(monkeypatch, trained, corpus, tmp_path / "out", "--extend", "1") == 0
    assert measure(monkeypatch, trained, corpus, tmp_path / "whole", "--batches", "3") == 0
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes(), path.name


def test_a_run_without_moments_is_one_sentence(trained, corpus, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / SECOND_MOMENTS).unlink()
    assert measure(monkeypatch, run, corpus, run / "gradients", "--preconditioner", "adam", "--batches", "2") == 2
    printed = capsys.readouterr().err
    assert f"holds no {SECOND_MOMENTS}" in printed
    assert printed.count("\n") == 1
    assert not (run / "gradients").exists()


@pytest.mark.parametrize("content", [b"", b"junk" * 10])
def test_damaged_moments_are_one_sentence(tmp_path, content):
    (tmp_path / SECOND_MOMENTS).write_bytes(content)
    with pytest.raises(UserError, match="damaged or not what unimed-train wrote"):
        read_second_moments(tmp_path)
