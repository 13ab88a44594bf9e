"""How much sooner a prepared corpus opens than it is scanned, and what it takes in memory.

The corpus has the paper's size: 150,000 samples, questions in the Path-VQA layout on 10,000 images and reports in the
JSONL layout on 10,000 more. Scanning is `unimed-data prepare`: annotations read, every image decoded. Opening is
`load_dataset` of every split of the prepared folder and the first sample of each. Both are timed in processes of their
own, imports not counted.
"""

import json
import pickle
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from data_cost.row import Row

GOAL_RATIO = 50.0
GOAL_MEGABYTES = 150.0
SAMPLES = 150_000
IMAGES = 20_000
REPEATS = 5

_SCAN = """
import json, sys, time
from pathlib import Path
from unimed_model.data import discover
from unimed_model.data.preparation.preparing import Settings, prepare
import PIL.Image, numpy, pyarrow.parquet, unimed_model.data.cells
root, out = map(Path, sys.argv[1:])
start = time.perf_counter()
refused = [done.refused for done in prepare(root, out, discover(root), Settings(), quiet=True) if done.refused]
assert not refused, refused
print(json.dumps({"seconds": time.perf_counter() - start}))
"""

_OPEN = """
import json, sys, time
from pathlib import Path
from unimed_model.data import discover, open_source
import PIL.Image, numpy, pyarrow.parquet, unimed_model.data.cells
def memory(key):
    return int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0]) / 1024
root = Path(sys.argv[1])
before, start = memory("VmRSS"), time.perf_counter()
opened = [open_source(source, split) for source in discover(root) for split in ("train", "test")]
first = [samples[0] for samples in opened]
seconds = time.perf_counter() - start
count = sum(map(len, opened))
print(json.dumps({"seconds": seconds, "megabytes": memory("VmHWM") - before, "samples": count}))
"""


def measure(quick: bool) -> list[Row]:
    """Return how many times sooner it opens, and the memory of opening above that of the imports."""
    samples, images = (3_000, 400) if quick else (SAMPLES, IMAGES)
    with tempfile.TemporaryDirectory() as name:
        root, prepared = Path(name) / "root", Path(name) / "prepared"
        write_corpus(root, samples, images)
        scan = _run(_SCAN, root, prepared)["seconds"]
        opened = [_run(_OPEN, prepared) for _ in range(REPEATS)]
    assert opened[0]["samples"] == samples
    corpus = f"index, {samples:,} samples on {images:,} images"
    faster = [scan / each["seconds"] for each in opened]
    memory = [each["megabytes"] for each in opened]
    return [
        Row(f"{corpus}: time to scan over time to open", faster, GOAL_RATIO, "at least", "", 0),
        Row(f"{corpus}: memory of opening above the imports", memory, GOAL_MEGABYTES, "at most", " MB", 0),
    ]


def _run(code: str, *arguments: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def write_corpus(root: Path, samples: int, images: int) -> None:
    """Write questions (two thirds) and reports (one third) of random words, one fifth of them for testing."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(4000)]
    pixels = np.random.default_rng(0)

    def text(least: int, most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(least, most)))

    def write_image(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = pixels.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(coarse).resize((256, 192), Image.Resampling.BILINEAR).save(path, quality=85)

    for split, share in (("train", 0.8), ("test", 0.2)):
        count, shown = round(share * samples * 2 / 3), round(share * images / 2)
        for number in range(shown):
            write_image(root / "path_vqa" / "images" / split / f"{split}_{number:05d}.jpg")
        questions = [
            {
                "answer_type": "other",
                "img_id": f"{split}_{number % shown:05d}",
                "label": {text(1, 3): 1},
                "question_id": number,
                "question_type": "what",
                "sent": text(5, 14) + "?",
            }
            for number in range(count)
        ]
        (root / "path_vqa" / "qas").mkdir(parents=True, exist_ok=True)
        (root / "path_vqa" / "qas" / f"{split}_vqa.pkl").write_bytes(pickle.dumps(questions))
        count = round(share * samples / 3)
        for number in range(shown):
            write_image(root / "reports" / "images" / f"{split}_{number:05d}.jpg")
        lines = [
            json.dumps({"image": f"images/{split}_{n % shown:05d}.jpg", "answer": text(20, 60), "id": f"{split}-{n}"})
            for n in range(count)
        ]
        (root / "reports" / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    declared = "- {name: reports, layout: jsonl, root: reports, options: {task: RG}}\n"
    (root / "datasets.yaml").write_text(declared, encoding="utf-8")
