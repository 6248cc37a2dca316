"""Losses, schedule, training loop and the checkpoint file."""
