import numpy as np

from unimed_model import baselines
from unimed_model.data.images import ImageArray
from unimed_model.data.sample import Sample


def sample(number, answer, instruction="q", boxes=(), subject="", source=None):
    return Sample(
        "d", "CLS", "train", str(number), f"i{number}", None, instruction, answer, boxes, {"subject": subject}, source
    )


def test_majority_is_of_the_same_question_where_it_was_seen():
    train = [sample(0, "a", "p"), sample(1, "b", "q"), sample(2, "b", "q"), sample(3, "a", "q"), sample(4, "b", "r")]
    assert baselines.majority_answer(train, [sample(5, "?", "p"), sample(6, "?", "q"), sample(7, "?", "new")]) == [
        "a",
        "b",
        "b",
    ]


def test_thumbnail_neighbour_against_brute_force(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    samples = [sample(i, str(i), source=ImageArray(tmp_path / "a.npz", "images", i)) for i in range(12)]
    train, test = samples[:8], samples[8:]
    flat = images.reshape(12, -1).astype(float)
    wanted = [str(int(((flat[:8] - flat[i]) ** 2).sum(axis=1).argmin())) for i in range(8, 12)]
    assert baselines.thumbnail_neighbour(train, test) == wanted


def test_mean_boxes_by_object_and_plane():
    train = [
        sample(0, "", boxes=((0, 0, 10, 10),), subject="brain"),
        sample(1, "", boxes=((10, 10, 30, 30),), subject="brain"),
        sample(2, "", boxes=((50, 50, 90, 90),), subject="left half"),
    ]
    asked = [sample(3, "", subject="brain"), sample(4, "", subject="never seen")]
    planes = {"i0": "axial", "i1": "coronal", "i2": "axial", "i3": "coronal", "i4": "axial"}
    assert baselines.mean_box(train, asked) == ["<20><20><43><43>"] * 2
    assert baselines.mean_box_of_object(train, asked) == ["<5><5><20><20>", "<20><20><43><43>"]
    assert baselines.mean_box_of_object_and_plane(planes)(train, asked[:1]) == ["<10><10><30><30>"]
