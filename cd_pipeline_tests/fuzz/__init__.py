"""Tests; the folders mirror cd_pipeline."""
