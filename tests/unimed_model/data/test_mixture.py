import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unimed_model.data.mixture import Mixture
from unimed_model.data.sample import Sample, Samples
from unimed_model.data.templates import TRAINING
from unimed_model.errors import UserError
from unimed_model.prompts import PAPER, RELEASED


def samples(name, count):
    return Samples(
        Sample(
            name, "REC", "train", str(i), f"i{i}", None, "fixed", "a", (), {"templates": "refer", "subject": "liver"}
        )
        for i in range(count)
    )


def mixture(steps=300, seed=0, batch_size=4, sizes=None, profile=RELEASED, **options):
    sizes = sizes or {"a": 9, "b": 5}
    return Mixture({n: samples(n, c) for n, c in sizes.items()}, batch_size, steps, seed, profile, **options)


KINDS = st.sampled_from(["homogeneous", "mixed"])
SIZES = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 12), min_size=1)


def beyond_chance(count, trials, probability):
    """Whether a binomial count is more than five standard deviations off."""
    return abs(count - trials * probability) > 5 * (trials * probability * (1 - probability)) ** 0.5


def test_batches_are_of_one_dataset_drawn_in_proportion_to_size():
    drawn = mixture(steps=4000, sizes={"a": 300, "b": 100})
    batches = list(drawn)
    assert len(batches) == len(drawn) == 4000
    assert all(len({draw.dataset for draw in batch}) == 1 and len(batch) == 4 for batch in batches)
    from_a = sum(batch[0].dataset == "a" for batch in batches)
    assert not beyond_chance(from_a, 4000, 0.75)
    assert drawn.realised() == {"a": from_a * 4, "b": (4000 - from_a) * 4}


def test_every_sample_of_a_mixed_batch_draws_its_dataset():
    drawn = mixture(steps=1000, batch_size=2, sizes={"a": 300, "b": 100}, batches="mixed")
    batches = list(drawn)
    assert not beyond_chance(sum(draw.dataset == "a" for batch in batches for draw in batch), 2000, 0.75)
    # both of one dataset: 9/16 + 1/16
    assert not beyond_chance(sum(len({draw.dataset for draw in batch}) == 1 for batch in batches), 1000, 10 / 16)


@settings(max_examples=25, deadline=None)
@given(SIZES, KINDS, st.integers(0, 99), st.integers(1, 5))
def test_every_sample_is_drawn_once_before_any_is_drawn_again(sizes, kind, seed, batch_size):
    drawn = mixture(40, seed, batch_size, sizes, batches=kind)
    order = {name: [] for name in sizes}
    for batch in drawn:
        for draw in batch:
            order[draw.dataset].append(draw.index)
    for name, size in sizes.items():
        for start in range(0, len(order[name]), size):
            epoch = order[name][start : start + size]
            assert len(set(epoch)) == len(epoch)
            assert set(epoch) <= set(range(size))
    assert drawn.realised() == {name: len(indices) for name, indices in order.items()} == drawn.realised(40)


def test_every_epoch_has_an_order_of_its_own_and_every_dataset_too():
    drawn = [draw.index for batch in mixture(steps=10, batch_size=10, sizes={"a": 10}) for draw in batch]
    assert len({tuple(drawn[start : start + 10]) for start in range(0, 100, 10)}) == 10
    first = {}
    for batch in mixture(steps=60, batch_size=10, sizes={"a": 10, "b": 10}):
        first.setdefault(batch[0].dataset, [draw.index for draw in batch])
    assert first["a"] != first["b"]


def test_every_order_is_as_likely_as_any_other():
    orders = Counter(tuple(draw.index for draw in next(iter(mixture(1, seed, 3, {"a": 3})))) for seed in range(3000))
    assert len(orders) == 6
    assert not any(beyond_chance(count, 3000, 1 / 6) for count in orders.values())


def test_the_sequence_depends_on_the_seed_and_not_on_the_order_of_the_datasets():
    assert list(mixture()) == list(mixture(sizes={"b": 5, "a": 9}))
    assert list(mixture()) != list(mixture(seed=1))
    twice = mixture()
    assert list(twice) == list(twice)


def test_instructions_are_drawn_from_the_pool():
    drawn = mixture(sizes={"a": 5}, profile=PAPER)
    seen = Counter(drawn[draw].instruction for batch in drawn for draw in batch)
    assert set(seen) == {template.format("liver") for template in TRAINING["refer"]}
    assert not any(beyond_chance(count, 1200, 1 / 7) for count in seen.values())


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, (0.1, 0.3, 0.6)),
        ({"temperature": 1.0}, (0.1, 0.3, 0.6)),
        ({"temperature": 2.0}, tuple(n**0.5 / (1 + 3**0.5 + 6**0.5) for n in (1, 3, 6))),
        ({"temperature": 1e9}, (1 / 3, 1 / 3, 1 / 3)),
        ({"weights": {"a": 2, "b": 5, "c": 3}}, (0.2, 0.5, 0.3)),
        ({"weights": {"b+c": 6, "a": 4}}, (0.4, 0.2, 0.4)),
    ],
)
def test_datasets_are_drawn_by_size_temperature_or_ratio(options, shares):
    drawn = mixture(4000, 3, 1, {"a": 10, "b": 30, "c": 60}, **options)
    realised = drawn.realised(4000)
    for name, share in zip("abc", shares, strict=True):
        assert drawn.weights[name] / sum(drawn.weights.values()) == pytest.approx(share)
        assert not beyond_chance(realised[name], 4000, share)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": {"planes": 1, "boxs": 2}}, "name 'boxs', which is not trained on; the nearest dataset is 'boxes'"),
        ({"weights": {"planes": 1, "boxes": 1, "qa": 1}}, r"name 'qa', which is not .*all: planes, boxes"),
        ({"weights": {"planes": 1}}, "have none for boxes, which is trained on; the nearest of their keys is 'planes'"),
        ({"weights": {}}, "have none for planes"),
        ({"weights": {"planes": 1, "boxes": 0}}, "ratio of boxes is 0; it must be a number above 0"),
        ({"weights": {"planes": 1, "boxes": -2}}, "ratio of boxes is -2"),
        ({"weights": {"planes": 1, "boxes": float("inf")}}, "ratio of boxes is inf"),
        ({"weights": {"planes+boxes": float("nan")}}, r"ratio of planes\+boxes is nan"),
        ({"weights": {"planes+boxes": 1, "boxes": 1}}, "name 'boxes' twice"),
        ({"weights": {"planes+planes": 1, "boxes": 1}}, "name 'planes' twice"),
        ({"temperature": 0.0}, "temperature of a mixture is at least 0.1, not 0"),
        ({"temperature": float("nan")}, "temperature of a mixture is at least 0.1, not nan"),
        ({"batches": "mixd"}, "'homogeneous' or 'mixed', not 'mixd'"),
        ({"world": 2, "rank": 2}, "Of 2 processes none has the rank 2"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, says):
    with pytest.raises(UserError, match=says):
        mixture(sizes={"planes": 4, "boxes": 2}, **options)


def test_an_empty_dataset_is_named():
    with pytest.raises(UserError, match="void has no training samples"):
        Mixture({"a": samples("a", 2), "void": Samples([])}, 4, 1, 0)
    with pytest.raises(UserError, match="needs at least one dataset"):
        Mixture({}, 4, 1, 0)


# --- several processes ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SIZES, KINDS, st.integers(0, 99), st.integers(1, 3), st.integers(1, 4))
def test_processes_share_the_batches_that_one_process_would_see(sizes, kind, seed, batch_size, world):
    alone = list(mixture(20, seed, batch_size * world, sizes, batches=kind))
    ranks = [mixture(20, seed, batch_size, sizes, batches=kind, world=world, rank=rank) for rank in range(world)]
    parts = [list(rank) for rank in ranks]
    for whole, *shares in zip(alone, *parts, strict=True):
        assert [draw for share in shares for draw in share] == whole
        assert all(len(share) == batch_size for share in shares)
    assert all(rank.realised() == ranks[0].realised() for rank in ranks)


def test_no_two_processes_see_a_sample_in_the_same_epoch():
    parts = [list(mixture(5, 0, 4, {"a": 40}, world=2, rank=rank)) for rank in (0, 1)]
    first, second = ({draw.index for batch in part for draw in batch} for part in parts)
    assert not first & second
    assert first | second == set(range(40))


# --- stopping and going on --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data(), SIZES, KINDS, st.integers(0, 99), st.integers(1, 5))
def test_a_resumed_mixture_goes_on_with_the_identical_sequence(data, sizes, kind, seed, batch_size):
    weights = {name: 1 + index for index, name in enumerate(sizes)} if data.draw(st.booleans()) else None
    options = {"batches": kind, "weights": weights}
    whole = list(mixture(30, seed, batch_size, sizes, **options))
    stop = data.draw(st.integers(0, 30))
    stopped = mixture(30, seed, batch_size, sizes, **options)
    iterator = iter(stopped)
    seen = [next(iterator) for _ in range(stop)]
    state = json.loads(json.dumps(stopped.state_dict()))
    shuffled = dict(data.draw(st.permutations(list(sizes.items()))))
    resumed = mixture(30, seed, batch_size, shuffled, **options)
    resumed.load_state_dict(state)
    assert resumed.realised() == stopped.realised()
    assert seen + list(resumed) == whole
    assert resumed.realised() == {name: sum(d.dataset == name for b in whole for d in b) for name in sizes}
    # a loader that fetched ahead can still say where training stands
    assert resumed.state_dict(stop) == state


def test_another_number_of_processes_goes_on_where_one_stopped():
    sizes = {"a": 30, "b": 11}
    whole = list(mixture(20, 5, 6, sizes))
    stopped = mixture(20, 5, 6, sizes)
    iterator = iter(stopped)
    for _ in range(7):
        next(iterator)
    parts = []
    for rank in range(3):
        part = mixture(20, 5, 2, sizes, world=3, rank=rank)
        part.load_state_dict(stopped.state_dict())
        parts.append(list(part))
    assert [[draw for share in shares for draw in share] for shares in zip(*parts, strict=True)] == whole[7:]


def test_another_process_goes_on_where_one_stopped():
    whole = [[(draw.dataset, draw.index, draw.seed) for draw in batch] for batch in mixture(12)]
    stopped = mixture(12)
    iterator = iter(stopped)
    for _ in range(5):
        next(iterator)
    code = (
        "import json, sys; from unimed_model.data.mixture import Mixture\n"
        "drawn = Mixture({'b': range(5), 'a': range(9)}, 4, 12, 0); drawn.load_state_dict(json.load(sys.stdin))\n"
        "print(json.dumps([[(d.dataset, d.index, d.seed) for d in batch] for batch in drawn]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(stopped.state_dict()),
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
        env={"PYTHONHASHSEED": "77"},
    )
    assert [[tuple(draw) for draw in batch] for batch in json.loads(done.stdout)] == whole[5:]


def test_only_the_first_iteration_after_loading_goes_on():
    resumed = mixture(10)
    resumed.load_state_dict(mixture(10).state_dict(4))
    assert list(resumed) == list(mixture(10))[4:]
    assert list(resumed) == list(mixture(10))


def test_a_state_is_small_however_long_the_run_and_large_the_data():
    drawn = mixture(400, sizes={"a": 20_000, "b": 3})
    list(drawn)
    assert len(json.dumps(drawn.state_dict())) < 300


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"seed": 1}, "its seed is 0, here it is 1"),
        ({"sizes": {"a": 8, "b": 5}}, "its sizes of a is 9, here it is 8"),
        ({"sizes": {"a": 9, "c": 5}}, "its sizes of c is none, here it is 5"),
        ({"sizes": {"a": 9}}, "its sizes of b is 5, here it is none"),
        ({"batch_size": 2}, "its samples per step is 4, here it is 2"),
        ({"world": 2, "rank": 1}, "its samples per step is 4, here it is 8"),
        ({"batches": "mixed"}, "its batches is 'homogeneous', here it is 'mixed'"),
        ({"weights": {"a": 1, "b": 1}}, "its weights of a is 9, here it is 1"),
        ({"temperature": 2}, "its weights of a is 9, here it is 3"),
        ({"steps": 3}, "taken after 4 steps, but this run has 3"),
    ],
)
def test_the_state_of_another_mixture_is_refused(other, says):
    with pytest.raises(UserError, match=says):
        mixture(**other).load_state_dict(mixture().state_dict(4))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda state: state.clear(), "no state of a mixture: it lacks 'seed'"),
        (lambda state: state.pop("drawn"), "damaged: it does not say"),
        (lambda state: state.update(steps="3"), "damaged: it does not say"),
        (lambda state: state["drawn"].update(a="3"), "damaged: it does not say"),
        (lambda state: state["drawn"].update(a=99), "damaged: 4 steps do not draw"),
    ],
)
def test_a_damaged_state_is_refused(damage, says):
    state = json.loads(json.dumps(mixture().state_dict(4)))
    damage(state)
    with pytest.raises(UserError, match=says):
        mixture().load_state_dict(state)


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
        ("rec", 3, "Where can I locate the X?"),
        ("rec", 2, "From this image, tell me the location of X."),
        ("cls", 2, "fixed"),
        ("cls", 1, "fixed"),
        ("rec", 4, "Where is X?"),
        ("rec", 0, "Where can I locate the X?"),
        ("cls", 0, "fixed"),
        ("cls", 2, "fixed"),
        ("cls", 0, "fixed"),
        ("cls", 1, "fixed"),
        ("rec", 1, "Could you tell me the location for X?"),
        ("rec", 0, "From this image, tell me the location of X."),
    ]


@pytest.mark.parametrize(("size", "steps"), [(0, 4), (-1, 4), (2, -1)])
def test_batches_of_nothing_are_refused(size: int, steps: int) -> None:
    with pytest.raises(UserError, match="batches of 1 sample or more"):
        Mixture({"a": range(5)}, size, steps, seed=0)  # type: ignore[arg-type]


def test_a_state_whose_counts_were_shifted_is_refused() -> None:
    mixture = Mixture({"a": range(50), "b": range(50)}, 2, 20, seed=0)  # type: ignore[arg-type]
    state = mixture.state_dict(steps=10)
    mixture.load_state_dict(state)
    shifted = {**state, "drawn": {"a": state["drawn"]["a"] + 2, "b": state["drawn"]["b"] - 2}}
    with pytest.raises(UserError, match="other samples come first"):
        mixture.load_state_dict(shifted)
