"""Stands in for transformers' tests of `generate`, which only its git repository has."""


class GenerationTesterMixin:
    """No tests; `test_generation_tester_mixin_inheritance` looks for the name."""
