"""The Dagster assets of a recipe, one file a stage."""
