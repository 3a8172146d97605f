"""The loss of distillation: what a teacher's logits add to the cross-entropy, a few rows at a time."""

from collections.abc import Callable

import torch
from torch import nn


class Lesson:
    """What a teacher says of the targets of one batch, as the `teach` of `linear_cross_entropy` (modeling/losses.py).

    With it the loss of a target is (1 - weight) * cross-entropy + weight * temperature^2 * KL(teacher || student), both
    with logits over the temperature, whose square keeps gradients as large as they were (Hinton et al.,
    https://huggingface.co/papers/1503.02531). A z-loss stays whole. The teacher's probabilities are those of the
    classes that both have; vocabularies may be padded to other sizes.
    """

    def __init__(self, logits_of: Callable[[slice], torch.Tensor], weight: float, temperature: float) -> None:
        """Args:
        logits_of: gives the teacher's logits [m, its classes] of a part of the targets.
        """
        self.logits_of, self.weight, self.temperature = logits_of, weight, temperature

    def __call__(
        self, part: slice, logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is added to the cross-entropies of these targets.

        Args:
            part: which of the targets they are.
            logits: the student's [m, classes], float32 or wider.
            targets: [m, 1].
            label_smoothing: of the cross-entropy.

        Returns:
            weight * (temperature^2 * divergence - cross-entropy) of each [m], and its slopes [m, classes].
        """
        classes, heat, weight = logits.shape[-1], self.temperature, self.weight
        teacher = self.logits_of(part)[:, :classes].to(logits.dtype)
        student, teacher = (logits, teacher) if heat == 1 else (logits / heat, teacher / heat)
        shares, shared = teacher.softmax(-1), teacher.shape[-1]
        known = (teacher - student[:, :shared]).mul_(shares).sum(-1) - _denominator(teacher, shares)
        # the student's own denominators cancel each other where heat is 1
        added = heat * heat * known + (1 - label_smoothing) * logits.gather(-1, targets)[:, 0]
        slopes = shares.mul_(-heat * weight)
        slopes = slopes if shared == classes else nn.functional.pad(slopes, (0, classes - shared))
        slopes.scatter_add_(-1, targets, slopes.new_full(targets.shape, weight * (1 - label_smoothing)))
        if label_smoothing:
            added += label_smoothing * logits.mean(-1)
            slopes += weight * label_smoothing / classes
        if heat != 1:
            for of_student, sign, size in ((student, 1, heat), (logits, -1, 1)):
                chances = of_student.softmax(-1)
                added += sign * size * size * _denominator(of_student, chances)
                slopes.add_(chances, alpha=weight * sign * size)
        return weight * added, slopes


def _denominator(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The logarithm of the denominator of a softmax [rows], without another exponential of each logit."""
    return logits.amax(-1) - shares.amax(-1).log()
