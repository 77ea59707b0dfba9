"""Masks: how often an entry is dropped, and what is left is scaled by."""

import pytest
import torch

from throughtime.cells.masks import draw_mask


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.93])
def test_as_many_are_dropped_as_asked_for(probability):
    mask = draw_mask(torch.empty(400, 301), probability, torch.Generator().manual_seed(1))
    spread = (probability * (1 - probability) / mask.numel()) ** 0.5
    assert abs((mask == 0).float().mean() - probability) < 5 * spread
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability)).item()}


def test_entries_are_dropped_one_by_one():
    """Neighbours along either axis, and entries drawn from one number, know nothing of each other."""
    kept = draw_mask(torch.empty(512, 512), 0.5, torch.Generator().manual_seed(2)).bool()
    for distance in (1, 2, 3, 4, 512):
        agree = (kept.flatten()[distance:] == kept.flatten()[:-distance]).float().mean()
        assert abs(agree - 0.5) < 5 * 0.5 / 512


def test_the_generator_decides():
    def draw(noise):
        return draw_mask(torch.empty(3, 5, 7), 0.4, noise)

    noise = torch.Generator().manual_seed(3)
    first, second = draw(noise), draw(noise)
    assert torch.equal(first, draw(torch.Generator().manual_seed(3)))
    assert not torch.equal(first, second)
    assert first.shape == (3, 5, 7)


def test_nothing_to_drop():
    assert draw_mask(torch.empty(2, 2), 0.0, torch.Generator()) is None
    assert draw_mask(torch.empty(2, 2), 0.5, None) is None
    assert draw_mask(torch.empty(0, 2), 0.5, torch.Generator()).shape == (0, 2)
