"""Readers, split, manifests, data sets and preprocessing."""
