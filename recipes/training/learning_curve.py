"""What a curve of losses says of a training: that it overfits, or that it ended too early."""

from collections.abc import Sequence

Curve = Sequence[tuple[int, float]]  # steps, rising, and a loss at each

NOTABLE_RISE = 0.02  # of the loss, as a share of it
# Parts of the steps, from the end, and the share of the loss that falls in each where training was too short. In the
# last steps a learning rate that decays hides it.
NOTABLE_FALLS = ((0.1, 0.02), (0.25, 0.03))
_AVERAGED = 3  # training losses that are averaged, since each is that of some batches only


def curve_notes(training: Curve, validation: Curve, loss: str, kept: str, longer: str | None) -> list[str]:
    """Say in a sentence, if at all, that a training overfits or ended too early.

    Args:
        loss: what the held-out loss is called.
        kept: which weights are kept, and what helps where it overfits.
        longer: the field that makes the training longer; None: nothing is said of one that ended too early.
    """
    found = overfits(training, validation)
    if found is not None:
        step, lowest, last = found
        rose = f"{loss} rose from {lowest:.4f} at step {step:,} to {last:.4f} while training loss fell"
        return [f"overfitting: {rose}; {kept}"]
    falling = None if longer is None else still_falls(validation)
    if falling is None:
        return []
    step, fall = falling
    return [f"{loss} was still falling, by {fall:.1%} since step {step:,}: train longer ({longer})"]


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


def still_falls(validation: Curve) -> tuple[int, float] | None:
    """Say whether the held-out loss fell notably below all before in the last steps (see `NOTABLE_FALLS`).

    Returns:
        The step of the lowest loss before these, and by which share it fell since; None where it hardly did.
    """
    last_step, last = validation[-1] if validation else (0, 0.0)
    for part, notable in NOTABLE_FALLS:
        earlier = [point for point in validation if point[0] <= last_step * (1 - part)]
        step, lowest = min(earlier, key=lambda point: (point[1], -point[0]), default=(0, 0.0))
        if lowest > 0 and 1 - last / lowest > notable:
            return step, 1 - last / lowest
    return None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
