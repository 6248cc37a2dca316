"""Synthesis of changed pairs: plan (draws all randomness), render (draws none), sample rooms."""
