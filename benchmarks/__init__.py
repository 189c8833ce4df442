"""Ratios against the unmodified peers, on the same sandbox, in the same run: ``python -m benchmarks foundation``."""
