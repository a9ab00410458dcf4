"""The schema of an LLMRoute's status: the planner builds it as a dict, the API server prunes what is not declared here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fairlead.api.base import ApiModel, Atomic, Int, ListMap
from fairlead.api.status import ConditionStatus


class BackendStatus(ApiModel):
    """What is known of one backend."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the backend, as spec.backends has it."""
    kind: Annotated[str, Field(max_length=63)]
    """Local, or the type of the provider."""
    state: Annotated[str, Field(max_length=63)]
    """Ready, NotReady or Unresolved: whether requests are sent there at the moment; or Asleep: at zero replicas, and a request wakes
    it."""
    message: Annotated[str | None, Field(max_length=1024)] = None
    """Why it is not ready, and what mends it. Absent: it is ready."""


class ModelTargetsStatus(ApiModel):
    """Where requests for one model may go, by class."""

    name: Annotated[str, Field(max_length=128)]
    """Name of the model, as clients send it in "model"."""
    targets: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=4)]
    """For each class that some caller can send: the backends that are tried, in their order."""


class LLMRouteStatus(ApiModel):
    """What the operator saw and decided; written by the operator only."""

    observed_generation: Annotated[Int, Field(ge=-1)] = -1
    """metadata.generation for which this status holds. Default: -1, no operator has seen the object yet; tools that
    wait then know that it is not ready."""
    conditions: Annotated[list[ConditionStatus], ListMap("type"), Field(max_length=32)] = Field(default_factory=list)
    """The state in the form that kubectl wait, Helm, Argo CD and Flux read. Absent: no operator has seen the object
    yet."""
    endpoint: Annotated[str | None, Field(max_length=1024)] = None
    """Base URL of the OpenAI-compatible API inside the cluster. Absent until the Service is planned."""
    gateways: Annotated[str | None, Field(max_length=32)] = None
    """Gateway pods that have loaded the routing of this generation, of those wanted, such as "2/2". Absent: not seen
    yet."""
    routing: Annotated[str | None, Field(max_length=64)] = None
    """Version of the routing that is published; the gateways tell the same once they have loaded it. Absent: none."""
    model_count: Annotated[Int | None, Field(ge=0)] = None
    """How many models clients may ask for. Absent until the first plan."""
    backends: Annotated[list[BackendStatus], ListMap("name"), Field(max_length=64)] = Field(default_factory=list)
    """Each backend, and whether requests are sent there. Absent until the first plan."""
    models: Annotated[list[ModelTargetsStatus], Atomic, Field(max_length=32)] = Field(default_factory=list)
    """Where requests may go, for the first 32 models. Absent until the first plan."""
