"""What a streamer is given while a model writes."""

import torch
from transformers import TextStreamer


class StreamedIds(TextStreamer):
    """Keeps the ids [tokens] in `given`, and in `ended` whether the end was told."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.given.extend(value.flatten().tolist())

    def end(self) -> None:
        self.ended = True
