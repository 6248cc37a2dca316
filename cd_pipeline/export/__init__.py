"""Core ML export and the proof that the package agrees with the checkpoint."""
