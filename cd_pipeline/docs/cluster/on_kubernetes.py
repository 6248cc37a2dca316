"""The code location on Kubernetes: the recipes, with a pod for each step in place of one process for a run.

    dagster api grpc -h 0.0.0.0 -p 4000 -f cd_pipeline/docs/cluster/on_kubernetes.py

Needs dagster-k8s. `steps.yaml` beside it says what a step's pod gets.
"""

import os
from pathlib import Path

import dagster as dg
import yaml  # type: ignore[import-untyped]
from dagster_k8s import k8s_job_executor

from cd_pipeline.definitions import defs as of_one_machine
from cd_pipeline.resources import Compute, Workspace

STEPS = yaml.safe_load(Path(__file__).with_name("steps.yaml").read_text())
CPU_LIMIT = os.environ.get("CPU_LIMIT")
"""Of this pod: torch would start a thread for each core of the node."""


@dg.definitions
def defs() -> dg.Definitions:
    """Load the recipes and give them the executor and the resources of a pod."""
    recipes = of_one_machine()
    return dg.Definitions(
        assets=recipes.assets,
        asset_checks=recipes.asset_checks,
        jobs=recipes.jobs,
        schedules=recipes.schedules,
        sensors=recipes.sensors,
        resources={
            "workspace": Workspace(),
            "compute": Compute(threads=int(CPU_LIMIT) if CPU_LIMIT else None),
        },
        executor=k8s_job_executor.configured(STEPS),
    )
