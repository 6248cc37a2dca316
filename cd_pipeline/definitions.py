"""The code location: all recipes under defs/, with the resources they share."""

import warnings
from pathlib import Path

import dagster as dg

from cd_pipeline.automation import runs_that_died
from cd_pipeline.resources import Compute, Workspace

# Dagster warns of a parameter that it sets itself when it builds asset checks.
warnings.filterwarnings("ignore", "Parameter `execution_type`", dg.BetaWarning)


@dg.definitions
def defs() -> dg.Definitions:
    """Load the recipes and add resources, executor, and what closes runs that died."""
    shared = dg.Definitions(
        resources={"workspace": Workspace(), "compute": Compute()},
        executor=dg.in_process_executor,
        sensors=[runs_that_died],
    )
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), shared)
