from collections import Counter

import pytest

from unimed_model.data.mixture import Mixture
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import TRAINING
from unimed_model.errors import UserError


def samples(name, count):
    return Samples(
        Sample(
            name, "REC", "train", str(i), f"i{i}", None, "fixed", "a", (), {"templates": "refer", "subject": "liver"}
        )
        for i in range(count)
    )


def mixture(steps=300, seed=0, **sizes):
    return Mixture({name: samples(name, count) for name, count in sizes.items()}, 4, steps, seed)


def test_batches_are_of_one_dataset_drawn_in_proportion_to_size():
    drawn = mixture(steps=4000, a=300, b=100)
    batches = list(drawn)
    assert len(batches) == len(drawn) == 4000
    assert all(len({draw.dataset for draw in batch}) == 1 and len(batch) == 4 for batch in batches)
    share = sum(batch[0].dataset == "a" for batch in batches) / 4000
    assert share == pytest.approx(0.75, abs=0.03)
    assert drawn.realised() == {"a": int(share * 4000) * 4, "b": (4000 - int(share * 4000)) * 4}


def test_every_sample_is_drawn_once_before_any_is_drawn_again():
    drawn = [draw.index for batch in mixture(steps=30, a=10) for draw in batch]
    for start in range(0, 120, 10):
        assert sorted(drawn[start : start + 10]) == list(range(10))
    assert drawn[:10] != drawn[10:20]


def test_the_sequence_depends_on_the_seed_alone():
    assert list(mixture(a=9, b=5)) == list(mixture(a=9, b=5))
    assert list(mixture(a=9, b=5)) != list(mixture(a=9, b=5, seed=1))
    twice = mixture(a=9, b=5)
    assert list(twice) == list(twice)


def test_instructions_are_drawn_from_the_pool():
    drawn = mixture(a=5)
    seen = Counter(drawn[draw].instruction for batch in drawn for draw in batch)
    assert set(seen) == {template.format("liver") for template in TRAINING["refer"]}
    assert min(seen.values()) > 100


def test_an_empty_dataset_is_named():
    with pytest.raises(UserError, match="void has no training samples"):
        Mixture({"a": samples("a", 2), "void": Samples([])}, 4, 1, 0)


def test_a_seed_draws_what_it_always_drew():
    def of(name, task, count, **meta):
        return Samples(Sample(name, task, "train", str(i), None, None, "fixed", "a", (), meta) for i in range(count))

    drawn = Mixture(
        {
            "rec": of("rec", "REC", 5, templates="refer", subject="X"),
            "cls": of("cls", "CLS", 3),
            "qa": of("qa", "QA", 4, templates="pubmedqa", subject="X"),
        },
        batch_size=2,
        steps=6,
        seed=7,
    )
    assert [(draw.dataset, draw.index, drawn[draw].instruction) for batch in drawn for draw in batch] == [
        ("rec", 4, "Give me the location of X."),
        ("rec", 0, "Where can I locate the X?"),
        ("cls", 2, "fixed"),
        ("cls", 0, "fixed"),
        ("rec", 2, "Where can I locate the X?"),
        ("rec", 3, "From this image, tell me the location of X."),
        ("cls", 1, "fixed"),
        ("cls", 1, "fixed"),
        ("qa", 1, "X"),
        ("qa", 2, "X"),
        ("rec", 1, "Where can I locate the X?"),
        ("rec", 1, "Could you tell me the location for X?"),
    ]
