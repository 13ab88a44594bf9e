import pytest
import torch

from unimed_model.resampler import Resampler
from unimed_model.settings import ResamplerSettings, require_whole_windows


def by_hand(kind, patches, tokens):
    """Resample with a loop over what every output token is said to cover."""
    rows = []
    for covered in patches.tolist():
        parts = [tokens[:, index] for index in covered]
        if kind == "projection":
            rows.append(torch.cat(parts, dim=-1))
        else:
            stacked = torch.stack(parts)
            rows.append(stacked.mean(0) if kind == "average" else stacked.max(0).values)
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("kind", ["projection", "average", "max"])
@pytest.mark.parametrize(
    ("rate", "shape"), [(1, "strip"), (1, "block"), (2, "strip"), (4, "strip"), (4, "block"), (16, "block")]
)
def test_every_token_is_made_of_the_patches_it_covers(kind, rate, shape):
    module = Resampler(ResamplerSettings(kind=kind, rate=rate, shape=shape), side=8)
    tokens = torch.randn(2, 64, 3)
    torch.testing.assert_close(module(tokens), by_hand(kind, module.patches(), tokens))
    assert sorted(module.patches().flatten().tolist()) == list(range(64))


def test_shapes_are_as_released():
    strip = Resampler(ResamplerSettings(), side=16).patches()
    assert strip.shape == (64, 4)
    assert strip[5].tolist() == [20, 21, 22, 23]  # within one row of 16
    block = Resampler(ResamplerSettings(kind="average"), side=16).patches()
    assert block[9].tolist() == [34, 35, 50, 51]  # rows 2 and 3, columns 2 and 3


def test_projection_of_strips_is_a_plain_reshape():
    tokens = torch.randn(2, 256, 1408)
    assert torch.equal(Resampler(ResamplerSettings(), 16)(tokens), tokens.view(2, 64, 5632))


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="a block of 2 tokens is no square"):
        ResamplerSettings(kind="max", rate=2)
    with pytest.raises(ValueError, match="15 x 15 patches has no whole blocks of 2 x 2"):
        require_whole_windows(15, ResamplerSettings(kind="max"))
    with pytest.raises(ValueError, match="225 patches cannot be"):
        require_whole_windows(15, ResamplerSettings())
    with pytest.raises(ValueError, match="16 x 16 visual tokens, not 255"):
        Resampler(ResamplerSettings(), 16)(torch.zeros(1, 255, 2))
