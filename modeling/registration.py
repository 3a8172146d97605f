"""Registers Weft with transformers' Auto classes, without importing these before they are needed (never shipped).

torch and transformers take seconds to import, which who asked for --help, or misspelt a field, should not wait for.
"""

import copyreg
import functools
import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

AUTO_CONFIG = "transformers.models.auto.configuration_auto"
AUTO_MODELS = "transformers.models.auto.modeling_auto"


def register() -> None:
    """Register configuration and models with the Auto classes: now, or as soon as these are imported."""
    for name, call in ((AUTO_CONFIG, _register_config), (AUTO_MODELS, _register_models)):
        if name in sys.modules:
            call(sys.modules[name])
        else:
            sys.meta_path.insert(0, _AfterImport(name, call))


@functools.cache
def import_models() -> ModuleType:
    """The module of the models; from now on the Auto classes hold the models themselves."""
    module = importlib.import_module(".modeling_weft", __package__)
    _register_models(importlib.import_module(AUTO_MODELS), functools.partial(getattr, module))
    return module


class _Deferred(type):
    """A model class of which there is only the name yet: it is imported when an Auto class makes a model of it.

    Not before, since transformers imports its Auto classes half-way through files that the models are built on.
    """

    def __getattr__(cls, name: str) -> Any:
        return getattr(_find(cls.__name__), name)


def _find(name: str) -> type:
    return getattr(import_models(), name)


copyreg.pickle(_Deferred, lambda deferred: (_find, (deferred.__name__,)))


def _defer(name: str) -> type:
    from .configuration_weft import WeftConfig

    return _Deferred(name, (), {"__module__": f"{__package__}.modeling_weft", "config_class": WeftConfig})


def _register_config(auto: ModuleType) -> None:
    from .configuration_weft import WeftConfig

    auto.AutoConfig.register(WeftConfig.model_type, WeftConfig, exist_ok=True)


def _register_models(auto: ModuleType, find: Callable[[str], type] = _defer) -> None:
    from .configuration_weft import AUTO_MAP, WeftConfig

    for auto_class, reference in AUTO_MAP.items():
        if auto_class != "AutoConfig":
            getattr(auto, auto_class).register(WeftConfig, find(reference.split(".")[-1]), exist_ok=True)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with a module when that has just been imported."""

    def __init__(self, name: str, call: Callable[[ModuleType], None]) -> None:
        self.name, self.call = name, call

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)  # the other finders know where the module is
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(self._execute, spec.loader.exec_module)
        return spec

    def _execute(self, execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        self.call(module)
