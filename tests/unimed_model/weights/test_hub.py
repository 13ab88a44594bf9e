"""The path through the hub with its functions replaced where a network would be needed."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from unimed_model import UserError
from unimed_model.weights import from_hub, hub
from unimed_model.weights.catalogue import EVA, LLAMA
from unimed_model.weights.provenance import RECORD

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"tensors",
    "tokenizer.json": b"[]",
    "LICENSE.txt": b"terms",
    "pytorch_model.bin": b"pickled",
    "pytorch_model.bin.index.json": b"{}",
    "onnx/config.json": b"{}",
    ".gitattributes": b"",
}


def sibling(name, content):
    """An entry of the hub's listing; weights are in LFS, other files are git's own."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if name.endswith(".safetensors") else None
    return SimpleNamespace(rfilename=name, size=len(content), blob_id=blob, lfs=lfs)


class Hub:
    """Stands for the model hub: what it serves, what was asked of it, and how it fails."""

    def __init__(self):
        self.files = dict(FILES)
        self.asked = []
        self.error = None
        self.stop_after = None
        self.truncated, self.damaged = set(), set()

    def model_info(self, repository, revision=None, files_metadata=False):
        self.asked.append(("info", repository))
        if self.error:
            raise self.error
        assert files_metadata
        return SimpleNamespace(sha="c0ffee", siblings=[sibling(name, self.files[name]) for name in self.files])

    def snapshot_download(self, repository, revision, local_dir, allow_patterns):
        self.asked.append(("files", repository, revision))
        folder = Path(local_dir)
        (folder / ".cache" / "huggingface").mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(sorted(set(self.files) & set(allow_patterns))):
            if number == self.stop_after:
                raise errors.OfflineModeIsEnabled("the cable is out\nsecond line")
            content = self.files[name]
            content = content[:-1] if name in self.truncated else content
            (folder / name).write_bytes(content[::-1] if name in self.damaged else content)
        return str(folder)


@pytest.fixture
def served(monkeypatch):
    made = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    return made


def refused(kind, status):
    """An error as the hub's client raises it."""
    from huggingface_hub.utils import httpx

    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/api/models/x"))
    return kind("Refused.\n\nmore", response=response)


def test_repositories_become_folders(served, tmp_path):
    obtained = from_hub("small", tmp_path, quiet=True)
    assert [(one.folder, one.made) for one in obtained] == [
        (tmp_path / "SmolLM2-135M-Instruct", True),
        (tmp_path / "dinov2-small", True),
    ]
    for one in obtained:
        names = {path.name for path in one.folder.iterdir()}
        assert names == {"config.json", "model.safetensors", "tokenizer.json", "LICENSE.txt", RECORD}
    record = json.loads((tmp_path / "dinov2-small" / RECORD).read_text())
    assert (record["source"], record["revision"]) == ("facebook/dinov2-small", "c0ffee")
    assert record["licence"].startswith("Apache-2.0")


def test_a_second_call_asks_the_hub_nothing(served, tmp_path):
    from_hub("small", tmp_path, quiet=True)
    served.asked.clear()
    assert [one.made for one in from_hub("small", tmp_path, quiet=True)] == [False, False]
    assert served.asked == []


def test_the_revision_is_fixed_before_files_are_fetched(served, tmp_path):
    from_hub("small", tmp_path, quiet=True)
    assert served.asked[:2] == [
        ("info", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("files", "HuggingFaceTB/SmolLM2-135M-Instruct", "c0ffee"),
    ]


def test_an_interrupted_fetch_goes_on(served, tmp_path):
    served.stop_after = 2
    with pytest.raises(
        UserError, match=r"cannot be fetched from the model hub \(the cable is out\); .*--from-packages"
    ):
        from_hub("small", tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["SmolLM2-135M-Instruct.download"]
    served.stop_after = None
    from_hub("small", tmp_path, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SmolLM2-135M-Instruct", "dinov2-small"]


def test_ctrl_c_says_what_is_kept(served, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub, "snapshot_download", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        from_hub("small", tmp_path, quiet=True)
    assert caught.value.__notes__ == [hub.KEPT]


@pytest.mark.parametrize("spoil", [{"truncated": {"model.safetensors"}}, {"stop_after": 1}])
def test_what_did_not_arrive_whole_is_noticed(served, tmp_path, monkeypatch, spoil):
    """Without a connection the client returns a folder as it is, with a warning at most."""
    vars(served).update(spoil)

    def tolerant(*arguments, **options):
        try:
            return served.snapshot_download(*arguments, **options)
        except ConnectionError:
            return options["local_dir"]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", tolerant)
    with pytest.raises(UserError, match="did not arrive whole"):
        from_hub("small", tmp_path, quiet=True)
    assert not (tmp_path / "SmolLM2-135M-Instruct").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_is_not_the_announced_one_is_removed(served, tmp_path, name):
    served.damaged.add(name)
    with pytest.raises(UserError, match=f"{name} of HuggingFaceTB/SmolLM2-135M-Instruct is not the file that the hub"):
        from_hub("small", tmp_path, quiet=True)
    kept = {path.name for path in (tmp_path / "SmolLM2-135M-Instruct.download").iterdir() if path.is_file()}
    assert kept == {"config.json", "model.safetensors", "tokenizer.json", "LICENSE.txt"} - {name}


def test_a_gated_repository_names_the_steps(served, tmp_path):
    served.error = refused(errors.GatedRepoError, 403)
    with pytest.raises(UserError) as caught:
        from_hub("paper", tmp_path, quiet=True)
    sentence = str(caught.value)
    assert f"ask for access on https://huggingface.co/{LLAMA.source}" in sentence
    assert "hf auth login" in sentence
    assert "\n" not in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        lambda: refused(errors.RepositoryNotFoundError, 404),
        lambda: refused(errors.HfHubHTTPError, 500),
        lambda: errors.OfflineModeIsEnabled("offline"),
        lambda: errors.LocalEntryNotFoundError("nothing in the cache"),
        lambda: ConnectionResetError("reset"),
        lambda: TimeoutError(),
        lambda: OSError("Consistency check failed: file should be of size 5 but has size 4.\nTry again."),
        lambda: RuntimeError("Data processing error: CAS service error (os error 111)"),
        lambda: json.JSONDecodeError("Expecting value", "<html>", 0),
        lambda: huggingface_hub.utils.httpx.ConnectError("no route"),
    ],
)
def test_any_failure_of_the_network_is_one_sentence(served, tmp_path, error):
    served.error = error()
    for preset, otherwise in (("small", True), ("paper", False)):
        with pytest.raises(UserError, match="cannot be fetched from the model hub") as caught:
            from_hub(preset, tmp_path, quiet=True)
        assert "\n" not in str(caught.value)
        assert ("--from-packages" in str(caught.value)) == otherwise


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_is_not_blamed_on_the_network(served, tmp_path, error):
    served.error = error
    with pytest.raises(type(error), match="No space left"):
        from_hub("small", tmp_path, quiet=True)


def test_a_repository_without_safetensors_is_refused(served, tmp_path):
    del served.files["model.safetensors"]
    with pytest.raises(UserError, match=r"holds no config\.json with safetensors"):
        from_hub("small", tmp_path, quiet=True)


def test_a_folder_of_the_users_own_is_left_alone(served, tmp_path):
    (tmp_path / "dinov2-small").mkdir()
    (tmp_path / "dinov2-small" / "config.json").write_text("mine")
    with pytest.raises(UserError, match="was not made by this command"):
        from_hub("small", tmp_path, quiet=True)
    assert (tmp_path / "dinov2-small" / "config.json").read_text() == "mine"


def test_tiny_needs_nothing(served, tmp_path):
    assert from_hub("tiny", tmp_path, quiet=True) == []
    assert served.asked == []


@pytest.mark.parametrize("by_hand", [True, False])
def test_eva_is_downloaded_and_converted(served, tmp_path, monkeypatch, by_hand):
    fetched = []

    def download(url, target, *, quiet):
        fetched.append(url)
        torch.save({"a": 1}, target)

    def convert(checkpoint, out, *, origin, quiet):
        assert checkpoint.is_file()
        hub.seal(_made(out), origin, quiet=True)

    monkeypatch.setattr(hub, "download", download)
    monkeypatch.setattr(hub, "convert_eva", convert)
    checkpoint = tmp_path / "eva_vit_g.pth"
    if by_hand:
        checkpoint.write_bytes(b"fetched before")
    obtained = from_hub("released", tmp_path, quiet=True)
    assert [one.folder.name for one in obtained] == ["Llama-2-7b-chat-hf", "eva_vit_g"]
    assert fetched == ([] if by_hand else [EVA.source])
    assert checkpoint.exists() == by_hand
    assert [one.made for one in from_hub("paper", tmp_path, quiet=True)] == [False, False]


def _made(folder):
    folder.mkdir()
    return folder


def test_bars_are_off_only_while_asked():
    from huggingface_hub.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    with hub._bars(True):
        assert are_progress_bars_disabled()
    assert are_progress_bars_disabled() == before
