import json
import subprocess
import sys

import pytest

from unimed_model import UserError
from unimed_model.weights import NEEDS, listing, table


def test_every_shipped_preset_is_listed():
    from importlib.resources import files

    names = {
        entry.name for entry in files("unimed_model").joinpath("presets").iterdir() if entry.name.endswith(".yaml")
    }
    assert {f"{name}.yaml" for name in NEEDS} == names - {"arms.yaml"}


@pytest.mark.parametrize("preset", ["paper", "released", "small", "tiny"])
def test_a_preset_asks_for_what_is_listed(preset):
    from importlib.resources import files

    import yaml

    content = yaml.safe_load(files("unimed_model").joinpath(f"presets/{preset}.yaml").read_text(encoding="utf-8"))
    asked = {content[part].get("pretrained") for part in ("llm", "vision")} - {None}
    assert asked == {asset.reference for asset in NEEDS[preset]}


def test_the_listing_is_plain_and_names_sources_licences_and_sizes():
    entries = json.loads(json.dumps(listing()))
    assert [entry["preset"] for entry in entries] == ["paper", "released", "small", "tiny"]
    assert entries[3]["needs"] == []
    assert {need["name"] for need in entries[0]["needs"]} == {"Llama-2-7b-chat-hf", "eva_vit_g"}
    for entry in entries:
        for need in entry["needs"]:
            assert need["source"]
            assert need["licence"]
            assert need["bytes"] > 50e6
    assert [need["gated"] for need in entries[0]["needs"]] == [True, False]


def test_the_table_says_the_same_to_people():
    text = table()
    for entry in listing():
        assert entry["preset"] in text
        for need in entry["needs"]:
            assert need["source"] in text
            assert need["licence"] in text
    assert "about 13.5 GB, access on request" in text
    assert "nothing: everything is trained from scratch" in text
    assert max(map(len, text.splitlines())) <= 130
    assert table("tiny").splitlines() == ["tiny", "  nothing: everything is trained from scratch"]


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(UserError, match="'smal'; the nearest is 'small'"):
        table("smal")


def test_importing_loads_nothing_heavy():
    code = "import sys, unimed_model.weights; print(*{'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
