"""When validations are due, and what they cost."""

from __future__ import annotations

import pytest

from throughtime.training.validation import Load, Record, ScheduleByClock, ScheduleBySteps

SMALL, LARGE = 10_000, 10_000_000


def steps_of_validations(schedule, steps):
    return [n for n in range(1, steps + 1) if schedule.due((n - 1) / steps, n / steps, 0.0, 0)]


@pytest.mark.parametrize(("wanted", "steps"), [(10, 100), (3, 30), (4, 30), (7, 100), (50, 20), (1, 9), (100, 100)])
def test_validations_of_a_small_model_are_as_many_as_asked_for_and_evenly_spread(wanted, steps):
    schedule = ScheduleBySteps(wanted, Load(1000, 1000, SMALL), Record(), 100.0)
    found = steps_of_validations(schedule, steps)
    assert found == sorted({-(-steps * slot // wanted) for slot in range(1, wanted + 1)})
    assert schedule.note() is None


def test_validations_that_would_cost_more_than_a_tenth_are_fewer_and_said():
    record = Record()
    schedule = ScheduleBySteps(10, Load(90_000, 100_000, LARGE), record, 1_300_000.0)
    assert steps_of_validations(schedule, 300) == [100, 200, 300]
    assert record.tokens == 90_000
    assert schedule.note().startswith("validations: 3 of 10; more would take over 10% of the training")


def test_a_text_too_long_to_read_twice_is_read_in_part_and_always_the_same_part():
    record = Record()
    schedule = ScheduleBySteps(10, Load(900_000, 908_192, LARGE), record, 1_000_000.0)
    assert steps_of_validations(schedule, 10) == [5, 10]
    assert record.tokens == 125_000 - 8_192
    assert "2 of 10, on 116,808 of 900,000 tokens each" in schedule.note()
    again = ScheduleBySteps(10, Load(900_000, 908_192, LARGE), record, 2_000_000.0)
    assert record.tokens == 116_808
    assert again.note() is not None


def by_clock(cost, wanted=10, budget=240.0, load=None, step=0.4, tokens_per_second=5_000):
    """Validate as a schedule says, where each validation takes `cost` seconds: the times at which they begin."""
    record = Record()
    schedule = ScheduleByClock(wanted, load or Load(80_000, 88_000, LARGE), record, budget)
    seconds, trained, before, began = 0.0, 0, 0.0, []
    while before < 1:
        seconds += step
        trained += int(step * tokens_per_second)
        progress = min(1.0, seconds / budget)
        if schedule.due(before, progress, seconds, trained):
            schedule.plan(seconds, trained)
            began.append(seconds)
            schedule.add(seconds, cost)
            seconds += cost
        before = progress
    return began, record, schedule


@pytest.mark.parametrize("cost", [0.01, 0.5, 2.0, 5.0, 8.0, 11.9])
def test_by_the_clock_validations_take_a_tenth_of_the_budget_at_most(cost):
    began, record, schedule = by_clock(cost)
    assert record.seconds <= 24.0
    assert len(began) == record.count >= 2
    assert began[-1] >= 239.9
    assert (schedule.note() is None) == (record.count == 10)
    gaps = [second - first for first, second in zip(began, began[1:], strict=False)]
    assert min(gaps) > 5 * cost


def test_a_validation_that_turns_out_dear_is_followed_by_the_last_one_only():
    began, _, _ = by_clock(60.0)
    assert len(began) == 2
    assert began[-1] >= 239.9


def test_cheap_validations_by_the_clock_are_evenly_spread():
    began, _, _ = by_clock(0.01, wanted=4, load=Load(1000, 1000, SMALL))
    assert began == pytest.approx([60, 120, 180, 240], abs=0.5)


def test_by_the_clock_a_text_too_long_to_read_twice_is_read_in_part():
    _, record, schedule = by_clock(6.0, load=Load(50_000_000, 50_010_000, LARGE))
    assert record.tokens == pytest.approx(24 * 5_000 / 0.5 / 2 - 10_000, rel=0.1)
    assert "of 50,000,000 tokens each" in schedule.note()


def test_a_longer_budget_goes_on_with_the_validations_of_a_shorter_one():
    _, record, _ = by_clock(0.1, wanted=10, budget=100.0)
    schedule = ScheduleByClock(10, Load(80_000, 88_000, LARGE), record, 200.0)
    assert not schedule.due(0.5, 0.51, 102.0, 500_000)
    assert schedule.due(0.59, 0.61, 122.0, 500_000)
