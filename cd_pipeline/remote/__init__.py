"""Data on an object store: it holds the truth, a local folder mirrors it, and all other code works on that."""
