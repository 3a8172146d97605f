"""Runs in float64, whose comparison no processor's rounding decides.

Adam divides a gradient by its size, so that a gradient which is nothing but rounding makes a whole step: in float32 two
runs that add in another order go apart by what the processor rounds. The size has `adam_epsilon` (1e-8) added to it.
An error d of a gradient moves a weight by no more than learning_rate * d / adam_epsilon, which bounds nothing in
float32, where d is about as large as epsilon. In float64 d is about 1e-16, and the bound 1e-10 at a rate of 1e-2.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from transformers import PreTrainedModel

# Of the norm of each weight. A step left out, a row of another step or a wrong rate move a weight by 1e-4 and more.
APART = 1e-9


@contextlib.contextmanager
def models_in_float64() -> Iterator[None]:
    """While this lasts models are made, loaded and saved in float64, in processes that are forked meanwhile too."""

    def in_float64(make: Callable[..., PreTrainedModel]) -> classmethod:
        return classmethod(lambda cls, *args, **options: make(cls, *args, **{**options, "dtype": torch.float64}))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_from_config", "from_pretrained"):
            patch.setattr(PreTrainedModel, name, in_float64(getattr(PreTrainedModel, name).__func__))
        yield


def assert_same_weights(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal but for the order in which float64 numbers are added up."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == torch.float64, name
        assert (found[name] - value).norm() <= APART * value.norm(), name
