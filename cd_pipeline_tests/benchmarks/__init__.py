"""Benchmarks: ratios and quality rows, run by hand or in a release."""
