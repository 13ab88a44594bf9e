"""`tugofwar routing` on routers set by hand, whose tables are known, and on trained runs of Uni-Med."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analyses.routing_weights.checkpoints import chosen_checkpoints
from analyses.routing_weights.images import chosen_pictures, file_stems, token_table
from analyses.routing_weights.measuring import Runs, Settings, measure_routing
from tugofwar.cli import main
from tugofwar.errors import UserError
from unimed_model.probing import load_for_probing

from ..tugofwar.routing import hand_router
from ..unimed_model.report_roots import command, write_root
from ..unimed_model.report_roots import trained as train_run

STUDY = f"""
import sys
sys.path.insert(0, {str(Path(hand_router.__file__).parent)!r})
from hand_router import Mixture, batches_of

def study(weights, **more):
    return {{"model": Mixture(), "datasets": {{name: batches_of(row) for name, row in weights.items()}}, **more}}

def uniform():
    third = (1 / 3, 1 / 3, 1 / 3)
    return study({{"a": third, "b": third}}, tasks={{"a": "VQA", "b": "RG"}})

def hard():
    one, two = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    found = study({{"a": one, "b": two, "c": two}}, tasks={{"a": "VQA", "b": "RG", "c": "RG"}})
    found["datasets"]["text"] = batches_of(one, text=True)
    found["tasks"]["text"] = "QA"
    return found

def mixed():
    return study({{"a": (0.75, 0.25, 0.0), "b": (0.25, 0.75, 0.0)}})

def many():
    return study({{f"{{number:02d}}" + 58 * "x": (0.5, 0.3, 0.2) for number in range(40)}})

def one():
    return study({{"a": (0.5, 0.3, 0.2)}}, tasks={{"a": "VQA"}})
"""


def left():
    """What is in the folder, but for what Python keeps of modules."""
    return {path.name for path in Path().iterdir()} - {"__pycache__"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.py").write_text(STUDY)
    return tmp_path


def look(function, *options):
    status = command(main, "routing", "--setup", f"study.py:{function}", "--out", function, "--batches", 3, *options)
    assert status == 0
    return {path.stem: pd.read_csv(path) for path in Path(function).glob("*.csv")}


def pick(table, value="value", **where):
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    assert len(table) == 1
    return table[value].item()


def test_equal_weights_give_the_closed_forms(here):
    tables = look("uniform")
    assert tables["weights"]["weight"].to_numpy() == pytest.approx(1 / 3, abs=1e-12)
    assert tables["load"]["load"].to_numpy() == pytest.approx(1 / 3, abs=1e-12)
    assert not tables["load"]["dead"].any()
    assert tables["measures"]["value"].to_numpy() == pytest.approx(1, abs=1e-12)
    assert (tables["information"]["value"] == 0).all()
    assert (tables["information"]["p_value"] == 1).all()
    assert (tables["divergence"]["value"] == 0).all()
    assert pick(tables["switched_off"], "change", expert=2, level="task", name="RG") == pytest.approx(1.5 - 7 / 3)


def test_an_expert_for_each_task_gives_the_closed_forms(here):
    tables = look("hard")
    tasks = tables["weights"].query("level == 'task'").pivot(index="name", columns="expert", values="weight")
    np.testing.assert_array_equal(tasks.loc[["VQA", "RG"]], [[1, 0, 0], [0, 1, 0]])
    assert pick(tables["information"], level="task") == 1
    assert pick(tables["divergence"], level="task", row="VQA", column="RG") == 1
    assert pick(tables["divergence"], level="dataset", row="b", column="c") == 0
    # over all: 1/3 and 2/3 of the weight, one of three experts dead
    used = pick(tables["measures"], level="all", measure="utilisation_entropy")
    assert used == pytest.approx((np.log2(3) - 2 / 3) / np.log2(3))
    assert pick(tables["measures"], level="all", measure="token_entropy") == 0
    assert tables["load"].query("level == 'all'")["dead"].tolist() == [False, False, True]
    off = tables["switched_off"]
    assert pick(off, "change", expert=0, level="task", name="VQA") == -1
    assert pick(off, "change", expert=0, level="task", name="RG") == 0
    assert pick(off, "change", expert=1, level="task", name="RG") == -2
    assert "text" not in set(tables["weights"]["name"])
    manifest = json.loads(Path("hard/manifest.json").read_text())
    assert (manifest["untouched"], manifest["datasets"]) == (["text"], ["a", "b", "c"])
    assert manifest["samples"] == {"a": 6, "b": 6, "c": 6}


def test_mixtures_without_tasks_have_no_level_of_tasks(here):
    tables = look("mixed")
    assert pick(tables["information"], level="dataset") == pytest.approx(1 - 0.8112781244591328)
    assert set(tables["weights"]["level"]) == {"all", "dataset"}
    assert not (here / "mixed" / "images").exists()
    assert "tokens" not in tables


def test_no_table_has_a_hole_and_intervals_hold_their_values(here):
    for name in ("uniform", "hard", "mixed", "one"):
        for file, table in look(name).items():
            assert len(table)
            assert not table.isna().any(axis=None), file
            value = table[next(c for c in ("weight", "load", "change", "value") if c in table)]
            assert (table["low"] <= value).all()
            assert (value <= table["high"]).all()


def test_one_dataset_alone_has_nothing_to_compare(here, capsys):
    assert {"information", "divergence"}.isdisjoint(look("one"))
    assert "switched off, the loss of 1.9000 changes by" in capsys.readouterr().out


def test_forty_datasets_with_long_names(here, capsys):
    assert len(look("many")["divergence"]) == 1600
    assert "and 28 more, in weights.csv" in capsys.readouterr().out


def test_columns_are_those_of_the_formats_page(here):
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = text.split("## Routing weights")[1].split("\n## ")[0]
    for name, table in look("hard").items():
        row = next(line for line in section.splitlines() if line.startswith(f"| `{name}.csv`"))
        listed = re.split(r"[:.]", row.split("|")[2])[0].strip()
        assert ", ".join(table.columns) == listed


def test_the_same_again_gives_the_same_bytes_and_replaces_the_output(here):
    look("hard")
    first = {path.name: path.read_bytes() for path in Path("hard").iterdir()}
    look("hard", "--quiet")
    assert {path.name: path.read_bytes() for path in Path("hard").iterdir()} == first
    assert left() == {"study.py", "hard"}


def test_json_in_a_process_of_its_own(here):
    words = ["routing", "--setup", "study.py:hard", "--out", "out", "--batches", "2", "--json", "--quiet"]
    done = subprocess.run([sys.executable, "-m", "tugofwar.cli", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    assert content["routers"][0]["gives"] == "weights"
    assert [row["value"] for row in content["tables"]["information"] if row["level"] == "task"] == [1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--setup", "study.py:one"), "--setup needs --out"),
        (("--ckpt", "run"), "--ckpt needs --data"),
        ((), "Give either --ckpt RUN"),
        (("--ckpt", "run", "--data", "data"), "There is no checkpoint folder run"),
        (("--setup", "study.py:one", "--out", "o", "--batch-size", 3), "--batch-size has no meaning with --setup"),
        (("--setup", "study.py:one", "--out", "o", "--batches", 1), "--batches is 1, but an interval needs at least 2"),
        (("--setup", "study.py:one", "--out", "o", "--batches", 9), "Dataset 'a' has 3 batches but 9 are asked for"),
        (("--setup", "study.py:one", "--out", "o", "--batches", 3, "--router", "gate"), "no router 'gate'"),
        (("--setup", "study.py:one", "--out", "o", "--batches", 3, "--router", ""), "no router ''"),
        (("--setup", "study.py:one", "--out", "o", "--top-k", 0), "--top-k is 0"),
        (
            ("--setup", "study.py:one", "--out", "o", "--batches", 2, "--top-k", 1, "--quiet"),
            "--top-k is for routers that give logits, but connector.router gives weights",
        ),
        (("--setup", "study.py:one", "--out", ".", "--batches", 3), "holds something other than an earlier routing"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(here, capsys, words, sentence):
    assert command(main, "routing", *words) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert "Traceback" not in printed
    assert left() == {"study.py"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_root(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "cmoe"
    assert train_run(root, out) == 0
    return out


def test_a_run_is_looked_at_after_its_warm_up_and_at_its_end(root, run, capsys):
    words = ("--ckpt", run, "--data", root, "--batches", 2, "--batch-size", 2, "--quiet")
    assert command(main, "routing", *words) == 0
    out = run / "routing"
    manifest = json.loads((out / "manifest.json").read_text())
    assert [(each["name"], each["step"]) for each in manifest["checkpoints"]] == [("checkpoint-1", 1), ("final", 3)]
    assert manifest["checkpoints"][0]["label"] == "after warm-up (step 1)"
    weights = pd.read_csv(out / "weights.csv")
    assert set(weights["checkpoint"]) == {"checkpoint-1", "final"}
    sums = weights.groupby(["checkpoint", "level", "name"])["weight"].sum()
    assert sums.to_numpy() == pytest.approx(1, abs=1e-6)
    assert str(root) not in (out / "manifest.json").read_text()
    assert "mutual information of dataset and expert" in capsys.readouterr().out


def test_checkpoints_of_a_run_are_written_into_the_run(root, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "cmoe", ignore=shutil.ignore_patterns("routing"))
    few = ("--data", root, "--batches", 2, "--batch-size", 2, "--no-switching-off", "--quiet")
    assert command(main, "routing", "--ckpt", copy, "--ckpt", copy / "checkpoint-1", *few) == 0
    assert (copy / "routing" / "manifest.json").is_file()
    assert not (copy / "checkpoint-1" / "routing").exists()
    assert command(main, "routing", "--ckpt", copy / "checkpoint-1", *few) == 0
    assert (copy / "checkpoint-1" / "routing" / "manifest.json").is_file()


def test_what_is_captured_is_what_the_model_says_it_used(root, run, tmp_path):
    """The model returns its routing weights itself, and its batches are those that gradients are measured with."""
    found = measure_routing(Runs([run / "checkpoint-1"], [root], 2), tmp_path / "out", Settings(batches=3, quiet=True))
    probed = load_for_probing(run / "checkpoint-1", [root], None, 3, 2, 0, False)
    for dataset, batches in probed.batches.items():
        outputs = [probed.model(**batch, output_router_weights=True) for batch in batches]
        expected = np.mean([output.router_weights.detach().double().numpy() for output in outputs], axis=(0, 1, 2))
        rows = _of_dataset(found.tables["weights"], dataset)
        np.testing.assert_allclose(rows["weight"], expected, atol=1e-7)
        losses = [output.loss.item() for output in outputs]
        off = _of_dataset(found.tables["switched_off"], dataset)
        np.testing.assert_allclose(off["loss"], np.mean(losses), rtol=1e-6)


def test_questions_about_one_image_are_resampled_together(root, run, tmp_path):
    twice = shutil.copytree(root, tmp_path / "data")
    captions = twice / "open" / "MedPix_single_train.csv"
    captions.write_text(re.sub(r"train([1357])", lambda found: f"train{int(found[1]) - 1}", captions.read_text()))
    settings = Settings(batches=4, quiet=True, switching=False)
    found = measure_routing(Runs([run / "checkpoint-1"], [twice], 2), tmp_path / "out", settings)
    assert found.manifest["samples"] == {"private": 8, "open": 8}
    assert found.manifest["units"] == {"private": 8, "open": 4}
    assert (_of_dataset(found.tables["weights"], "open")["samples"] == 8).all()


def _of_dataset(table, name):
    return table[(table["level"] == "dataset") & (table["name"] == name)]


def test_images_of_a_restricted_dataset_reach_no_file(root, run, tmp_path):
    found = measure_routing(Runs([run / "checkpoint-1"], [root], 2), tmp_path / "out", Settings(batches=2, quiet=True))
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["open-0.png", "open-1.png"]
    assert set(found.tables["tokens"]["dataset"]) == {"open"}
    assert set(found.tables["tokens"]["image"]) == {"open-0.png", "open-1.png"}
    assert "private" in set(found.tables["weights"]["name"])


def test_files_of_images_are_safe_and_no_two_alike():
    names = ["slake", "Slake", "chest/x-ray", "chest x-ray", "chest-x-ray", "chest-x-ray_2", "../up", "."]
    names += ["ö" * 200, "ö" * 200 + "2"]
    stems = file_stems(names)
    assert list(stems) == names
    assert stems["slake"] == "slake"
    assert len({stem.casefold() for stem in stems.values()}) == len(names)
    for stem in stems.values():
        assert re.fullmatch(r"[\w-][\w.-]*", stem)
        assert len(f"{stem}-0.png".encode()) < 256


def test_strips_tile_the_image_that_the_model_saw(root, run, tmp_path):
    out = tmp_path / "out"
    tokens = measure_routing(Runs([run], [root], 2), out, Settings(batches=2, quiet=True)).tables["tokens"]
    probed = load_for_probing(run, [root], None, 2, 2, 0, False)
    side, rate = probed.model.resampler.side, probed.model.resampler.rate
    one = tokens.query("checkpoint == 'final' and image == 'open-0.png' and expert == 0")
    width, height = one["right"] - one["left"], one["bottom"] - one["top"]
    assert width.to_numpy() == pytest.approx(rate / side)  # strips of 1 x alpha
    assert height.to_numpy() == pytest.approx(1 / side)
    assert (width * height).sum() == pytest.approx(1)
    assert one["token"].tolist() == list(range(side * side // rate))
    assert (one["top"].diff().dropna() >= 0).all()  # in raster order
    sums = tokens.groupby(["checkpoint", "dataset", "image", "token"])["weight"].sum()
    assert sums.to_numpy() == pytest.approx(1, abs=1e-6)
    pixels = np.asarray(Image.open(out / "images" / "open-0.png"))
    assert pixels.shape == (64, 64, 3)
    # the images are of one grey, 20 times their number
    assert pixels.min() == pixels.max()
    assert pixels[0, 0, 0] % 20 == 0


def test_weights_of_a_picture_are_the_models_own(root, run):
    probed = load_for_probing(run, [root], ["open"], 2, 2, 0, False)
    pictures = chosen_pictures(probed.batches, 0)
    table = token_table(probed.model, pictures, probed.tasks, 0)
    expected = probed.model(**pictures[1].batch, output_router_weights=True).router_weights[0]
    found = table.query("image == 'open-1.png'").pivot(index="token", columns="expert", values="weight")
    np.testing.assert_allclose(found, expected.detach(), atol=1e-6)


def test_checkpoints_of_different_routers_are_not_compared(root, run, tmp_path):
    other = tmp_path / "wider"
    assert train_run(root, other, "--set", "connector.num_experts=6") == 0
    with pytest.raises(UserError, match=r"cmoe/final has connector\.router with 5 experts, wider/final has .* 6"):
        measure_routing(Runs([run, other], [root], 2), tmp_path / "out", Settings(batches=2, quiet=True))
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_named_once(root, run, tmp_path):
    with pytest.raises(UserError, match="named twice"):
        measure_routing(Runs([run, run], [root], 2), tmp_path / "out", Settings(batches=2, quiet=True))
    copy = shutil.copytree(run, tmp_path / "cmoe")
    with pytest.raises(UserError, match="would both be called cmoe/final; rename a run"):
        measure_routing(Runs([run, copy], [root], 2), tmp_path / "out", Settings(batches=2, quiet=True))


def test_a_run_without_a_mixture_has_no_router(root, tmp_path, capsys):
    mlp = tmp_path / "mlp"
    assert train_run(root, mlp, "--set", "connector.kind=mlp") == 0
    capsys.readouterr()
    assert command(main, "routing", "--ckpt", mlp, "--data", root, "--batches", 2, "--batch-size", 2) == 2
    sentence = rf"The model in {mlp}\S* has no router: its connector is no mixture of experts"
    assert re.search(sentence, capsys.readouterr().err)
    assert not (mlp / "routing").exists()


@pytest.mark.parametrize("foreign", [{"settings": []}, {"settings": None}, {"settings": {"training": 3}}, []])
def test_a_foreign_run_file_does_not_matter_for_the_choice_of_checkpoints(tmp_path, foreign):
    (tmp_path / "run.json").write_text(json.dumps(foreign))
    assert [each.folder for each in chosen_checkpoints([tmp_path])] == [tmp_path]


def test_a_module_that_is_no_router_is_said(root, run, tmp_path):
    settings = Settings(router="connector.experts.0", batches=2, quiet=True)
    with pytest.raises(UserError, match=r"names connector\.experts\.0, which is no router.*connector\.router"):
        measure_routing(Runs([run], [root], 2), tmp_path / "out", settings)


def test_routers_of_lora_moe_are_read_as_their_layers_use_them(root, tmp_path):
    run = tmp_path / "lora"
    adapter = ("llm.trainable=false", "llm.adapter.kind=lora_moe", "llm.adapter.rank=2")
    assert train_run(root, run, *(word for setting in adapter for word in ("--set", setting))) == 0
    settings = Settings(router="layers.0.self_attn.q_proj.lora_router", batches=2, quiet=True, switching=False)
    found = measure_routing(Runs([run / "checkpoint-1"], [root], 2), tmp_path / "out", settings)
    (router,) = found.manifest["routers"]
    assert (router["gives"], router["top_k"], router["tokens_counted"]) == ("logits", 2, "attention_mask")
    probed = load_for_probing(run / "checkpoint-1", [root], ["open"], 2, 2, 0, False)
    weights, tokens = 0, 0
    for batch in probed.batches["open"]:
        used = probed.model(**batch, output_router_weights=True).lora_router_weights
        (name,) = [name for name in used if name.endswith("layers.0.self_attn.q_proj")]
        mask = batch["attention_mask"].unsqueeze(-1)
        weights, tokens = weights + (used[name] * mask).sum(dim=(0, 1)).detach(), tokens + mask.sum().item()
    rows = found.tables["weights"].query("name == 'open'")
    np.testing.assert_allclose(rows["weight"], weights / tokens, atol=1e-6)
    assert (rows["tokens"] == tokens).all()
    assert not (tmp_path / "out" / "images").exists()
