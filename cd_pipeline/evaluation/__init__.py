"""Metrics, threshold sweep, prediction, figures and the measuring protocol."""
