"""Tests of the prediction for people."""
