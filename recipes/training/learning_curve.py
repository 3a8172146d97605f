"""What a curve of losses says of a training: that it overfits, or that it ended too early."""

from collections.abc import Sequence

Curve = Sequence[tuple[int, float]]  # steps, rising, and a loss at each

NOTABLE_RISE, NOTABLE_FALL = 0.02, 0.01  # of the loss, as shares of it
LAST_PART = 0.1  # of the steps
_AVERAGED = 3  # training losses that are averaged, since each is that of some batches only


def overfits(training: Curve, validation: Curve) -> tuple[int, float, float] | None:
    """Say whether the held-out loss ended above its lowest, while the training loss went on falling.

    Returns:
        The step at which it was lowest, the loss there, and the last one; None where it did not rise so.
    """
    if len(validation) < 2 or len(training) < 2:
        return None
    step, lowest = min(validation, key=lambda point: point[1])
    last = validation[-1][1]
    before = [loss for at, loss in training if at <= step] or [training[0][1]]
    after = [loss for at, loss in training if at > step]
    if not after or not last > lowest * (1 + NOTABLE_RISE):
        return None
    fell = _mean(after[-_AVERAGED:]) < _mean(before[-_AVERAGED:])
    return (step, lowest, last) if fell else None


def still_falls(validation: Curve) -> float | None:
    """By which share the held-out loss fell over the last tenth of the steps; None where it hardly did."""
    last_step, last = validation[-1] if validation else (0, 0.0)
    earlier = [loss for step, loss in validation if step <= last_step * (1 - LAST_PART)]
    if not earlier or not earlier[-1] > 0:
        return None
    fall = 1 - last / earlier[-1]
    return fall if fall > NOTABLE_FALL else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
