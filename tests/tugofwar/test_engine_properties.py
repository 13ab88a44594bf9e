"""Properties of the Gram matrix on random models: batches permuted, blocks summed, losses scaled."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import tugofwar as tow

from . import small

models = st.builds(
    lambda seed, width: (small.build(seed, width=width), width), st.integers(0, 1000), st.integers(1, 20)
)


@st.composite
def problems(draw):
    """A model and 2 to 5 batches of 1 to 6 tokens each, some of which leave an expert out."""
    model, width = draw(models)
    data = []
    for number in range(draw(st.integers(2, 5))):
        idle = draw(st.sampled_from([(), (0,), (1,)]))
        data += small.batches(1, number, width, draw(st.integers(1, 6)), idle=idle)
    return model, data


def record(model, data, loss=small.loss, **more):
    return tow.record(model, {"a": data}, "*", len(data), loss, progress=False, statistics=False, **more)


@settings(max_examples=40)
@given(problems())
def test_it_is_the_gram_matrix_of_plain_autograd(problem):
    model, data = problem
    recording = record(model, data)
    assert small.relative_error(recording.gram, small.gram(model, {"a": data})) <= 1e-10
    parts = sum(recording.select(block.name).gram for block in recording.blocks if block.name != "(model)")
    np.testing.assert_allclose(
        parts + small.gram(model, {"a": data}, names=["token"]), recording.gram, rtol=1e-9, atol=1e-12
    )
    assert (recording.gram == recording.gram.T).all()


@settings(max_examples=25)
@given(problems(), st.randoms(use_true_random=False))
def test_permuted_batches_permute_it(problem, random):
    model, data = problem
    order = list(range(len(data)))
    random.shuffle(order)
    permuted = record(model, [data[row] for row in order]).gram
    assert small.relative_error(permuted, record(model, data).gram[np.ix_(order, order)]) <= 1e-12


@settings(max_examples=25)
@given(problems(), st.floats(1e-3, 1e3), st.booleans())
def test_a_scaled_loss_scales_it_by_the_square(problem, factor, negative):
    model, data = problem
    factor = -factor if negative else factor
    scaled = record(model, data, lambda model, batch: factor * small.loss(model, batch))
    assert small.relative_error(scaled.gram, factor**2 * record(model, data).gram) <= 1e-12


@settings(max_examples=25)
@given(problems(), st.integers(0, 10_000))
def test_the_size_of_the_buffer_does_not_matter(problem, surplus):
    model, data = problem
    small_buffer = record(model, data, memory=200_000 + surplus)
    assert small.relative_error(small_buffer.gram, record(model, data).gram) <= 1e-12
