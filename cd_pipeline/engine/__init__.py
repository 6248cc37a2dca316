"""Where work on shards runs: threads of this machine, or a Ray cluster. The results are the same."""
