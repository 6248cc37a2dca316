"""Which engine runs a recipe's heavy stages."""

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EngineSettings(BaseModel):
    """Where pictures are rendered and predicted and networks are trained: here, or on a Ray cluster.

    It changes nothing of what comes out but the last digits of trained weights.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    engine: Literal["local", "ray"] = Field(
        default="local", description="local: this machine's cores or GPUs; ray: a Ray cluster (extra ray)"
    )
    address: str | None = Field(
        default=None,
        description="ray: of the cluster, such as auto or ray://head:10001; none: RAY_ADDRESS, or else a "
        "cluster of this machine alone. Data root and source folder must be at the same paths on all nodes",
    )
    workers: int | None = Field(
        default=None, ge=1, description="ray: processes at a time; none: by the cluster's GPUs or cores"
    )

    @model_validator(mode="after")
    def _ray_is_there(self) -> Self:
        if self.engine == "ray" and find_spec("ray") is None:
            raise ValueError("engine ray: pip install -c constraints.txt -e '.[ray]', or set engine to local")
        if self.engine == "local" and (self.address is not None or self.workers is not None):
            raise ValueError("address and workers are for engine ray; leave them out")
        return self
