"""How the properties of this package are tried: the same examples in every run, on however slow a machine."""

from hypothesis import settings

LAW = settings(derandomize=True, deadline=None, max_examples=100)
