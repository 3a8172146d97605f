"""Stands in for transformers' tests of exporting, which only its git repository has."""


class ExportTesterMixin:
    """No tests; the mixin of all models inherits from it."""
