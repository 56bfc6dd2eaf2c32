"""Benchmarks: `python -m bench` runs them all. Figures, never verdicts: machines are noisy, ratios count."""
