"""Private methods of Trainer that are overridden, and may change with any version, are listed in one place."""

import re

from transformers import Trainer

from weft.recipes.finetuning.trainer import FineTuningTrainer
from weft.recipes.pretraining.trainer import PretrainingTrainer
from weft.recipes.training import trainer


def test_the_list_of_overridden_private_methods_is_whole():
    own = {
        one for made in (PretrainingTrainer, FineTuningTrainer) for one in made.__mro__ if one.__module__[:4] == "weft"
    }
    names = {name for one in own for name in vars(one) if re.match("_[a-z]", name) and hasattr(Trainer, name)}
    listed = re.findall(r"\b_[a-z]\w+", trainer.__doc__.split("\n\n")[2])
    assert sorted(listed) == sorted(names)
