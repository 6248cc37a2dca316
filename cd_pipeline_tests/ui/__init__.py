"""The Dagster UI as a person uses it, in a browser."""
