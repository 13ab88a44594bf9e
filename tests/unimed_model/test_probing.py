import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.errors import UserError
from unimed_model.probing import draw_batches, load_for_probing


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 9))
def test_draws_are_without_replacement_seeded_and_named(batches, size, seed):
    rows = draw_batches("a", 40, batches, size, seed, False)
    flat = [index for row in rows for index in row]
    assert len(rows) == batches
    assert all(len(row) == size for row in rows)
    assert len(set(flat)) == len(flat)
    assert rows == draw_batches("a", 40, batches, size, seed, False)


@given(st.integers(1, 5), st.integers(0, 4), st.integers(1, 4), st.integers(0, 9), st.booleans())
def test_a_longer_draw_begins_with_the_shorter_one(batches, more, size, seed, with_replacement):
    shorter = draw_batches("a", 40, batches, size, seed, with_replacement)
    longer = draw_batches("a", 40, batches + more, size, seed, with_replacement)
    assert longer[:batches] == shorter


def test_every_sample_is_as_likely_as_any_other():
    drawn = [draw_batches("a", 8, 1, 2, seed, False)[0] for seed in range(4000)]
    first, second = (np.bincount([row[place] for row in drawn], minlength=8) for place in (0, 1))
    # 500 expected; five standard deviations of a binomial count.
    assert abs(first - 500).max() < 5 * 21
    assert abs(second - 500).max() < 5 * 21


def test_too_few_samples_say_how_many_there_are():
    with pytest.raises(UserError, match="a has 10 training samples, enough for 2 batches of 4, but 3 were asked for"):
        draw_batches("a", 10, 3, 4, 0, False)
    rows = draw_batches("a", 10, 3, 4, 0, True)
    assert len(rows) == 3
    assert max(index for row in rows for index in row) < 10


def test_batches_are_the_same_whenever_they_are_read(trained, corpus):
    setup = load_for_probing(trained, [corpus], ["mni_vqa", "mni_t1"], 2, 3, 0, False)
    assert setup.tasks == {"mni_vqa": "VQA", "mni_t1": "CLS"}
    for batches in setup.batches.values():
        first, second = list(batches), list(batches)
        assert len(first) == len(batches) == 2
        for one, other in zip(first, second, strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)
            assert one["input_ids"].shape[0] == 3


@pytest.mark.parametrize(
    ("datasets", "batches", "says"),
    [(["mni_tq"], 2, "nearest is 'mni_t1'"), (["mni_t1"], 999, "999 were asked for")],
)
def test_mistakes_about_the_data_are_told_before_the_weights_are_read(
    trained, corpus, monkeypatch, datasets, batches, says
):
    monkeypatch.setattr("unimed_model.probing.open_run", lambda _: pytest.fail("the weights were read"))
    with pytest.raises(UserError, match=says):
        load_for_probing(trained, [corpus], datasets, batches, 3, 0, False)


def test_digest_follows_the_weights(trained, corpus, tmp_path):
    copy = shutil.copytree(trained, tmp_path / "copy")
    digest = load_for_probing(copy, [corpus], ["mni_t1"], 2, 2, 0, False).metadata["weights_sha256"]
    assert digest == load_for_probing(trained, [corpus], ["mni_t1"], 2, 2, 0, False).metadata["weights_sha256"]


def damaged(run, name):
    path = run / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda run: (run / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda run: (run / "config.json").unlink(), "holds no config.json"),
        (lambda run: damaged(run, "model.safetensors"), "cannot be opened"),
        (lambda run: damaged(run, "config.json"), "not valid JSON"),
        (lambda run: damaged(run, "tokenizer.json"), "cannot be opened"),
        (lambda run: (run / "tokenizer.json").write_text("[]"), "cannot be opened"),
        (lambda run: (run / "processor_config.json").write_text("[1]"), "cannot be opened"),
        (lambda run: (run / "config.json").write_text('{"model_type": "bert"}'), "describes a 'bert' model"),
        (shutil.rmtree, "no run folder"),
    ],
)
def test_a_damaged_run_is_one_clear_sentence(trained, corpus, tmp_path, damage, says):
    run = shutil.copytree(trained, tmp_path / "run")
    damage(run)
    with pytest.raises(UserError) as error:
        load_for_probing(run, [corpus], None, 2, 2, 0, False)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_of_another_configuration_are_refused(trained, corpus, tmp_path):
    import json

    run = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["connector"]["num_experts"] = 6
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit its configuration"):
        load_for_probing(run, [corpus], None, 2, 2, 0, False)
