"""docs/conditions.md: every condition and every reason, from the enums and texts that the operator itself uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.api.conditions import DEPLOYMENT_CONDITIONS, REASON_DOCS, ROUTE_CONDITIONS, ConditionType, Reason
from hack.generate import GENERATED_NOTICE

#: What True means, and when the condition is something else although nothing is wrong.
DEPLOYMENT_DOCS = {
    ConditionType.READY: "The pods of the current spec serve. The one to wait for. Once it was true, one missing replica of "
    "several does not make it false.",
    ConditionType.RECONCILING: "Something is under way: a rollout, a model load, a replacement of lost pods. Never true together "
    "with `Stalled`.",
    ConditionType.STALLED: "A person must act; reason and message say why and what to do. Nothing changes by waiting alone, "
    "though the operator notices when the cause is gone.",
    ConditionType.MODEL_READY: "At least one pod has loaded the model. Unknown while no engine runs.",
    ConditionType.PODS_SCHEDULED: "Every pod has a node. Unknown while there are no pods.",
    ConditionType.AVAILABLE: "At least all replicas but one serve, whatever the spec's generation: requests are answered.",
    ConditionType.SCALING_ACTIVE: "Something decides how many replicas there are, and has what it needs for it. False where `spec.replicas`"
    " alone says it, too.",
}
ROUTE_DOCS = {
    ConditionType.READY: "The gateways serve the current spec, and each model has a backend that answers. The one to wait for.",
    ConditionType.RECONCILING: "Something is under way: pods start, routing is being loaded, a backend is not there yet. Never true "
    "together with `Stalled`.",
    ConditionType.STALLED: "A person must act; reason and message say why and what to do.",
    ConditionType.ACCEPTED: "The route is carried out as it is written. False: what ran before goes on.",
    ConditionType.RESOLVED_REFS: "Every deployment, Secret and key that the route names is there and may be used. Where one is not, "
    "nothing is sent to that backend, and the next target serves.",
    ConditionType.PROGRAMMED: "Every gateway has said that it has loaded this generation; one of several may be missing.",
    ConditionType.BACKENDS_HEALTHY: "Each model has a backend that answers. `status.backends` tells of each.",
}

HEAD = """\
# Conditions and reasons

The status of LLMDeployments and LLMRoutes speaks in conditions, as `kubectl wait`, Helm, Argo CD and Flux read them. All of them are there
from the first write on. Each carries `observedGeneration`: if it is lower than `metadata.generation`, the condition speaks of an
older spec. `lastTransitionTime` moves only when `status` does. Before any operator has seen the object,
`status.observedGeneration` is -1, so no tool takes it for ready.

```console
$ kubectl wait --for=condition=Ready llmdep/llama-8b --timeout=20m
$ kubectl get llmdep llama-8b -o jsonpath='{.status.conditions[?(@.type=="Stalled")].message}'
```
"""

TAIL_OF_CONDITIONS = """
How tools read them (kstatus): observedGeneration behind the spec → in progress; `Reconciling` true → in progress; `Stalled` true
→ failed; `Ready` true → current; anything else → in progress. So an LLMDeployment with `suspend: true`, which is not ready, keeps
them waiting.
"""


def generate() -> dict[str, str]:
    """The page. Raises KeyError when a condition or a reason has no text."""
    tables = (("LLMDeployment", DEPLOYMENT_CONDITIONS, DEPLOYMENT_DOCS), ("LLMRoute", ROUTE_CONDITIONS, ROUTE_DOCS))
    conditions = "".join(make_table(kind, types, docs) for kind, types, docs in tables)
    reasons = "".join(make_entry(reason) for reason in sorted(Reason, key=lambda reason: reason.value))
    head = f"<!-- {GENERATED_NOTICE} -->\n\n{HEAD}{conditions}{TAIL_OF_CONDITIONS}"
    words = "Reasons are words for machines and stay; messages are for people and may change. Events carry the same reasons."
    return {"docs/conditions.md": f"{head}\n## Reasons\n\n{words}\n{reasons}"}


def make_table(kind: str, types: Iterable[ConditionType], docs: Mapping[ConditionType, str]) -> str:
    """The conditions of one kind."""
    rows = "".join(f"| `{one.value}` | {docs[one]} |\n" for one in types)
    return f"\n## Conditions of an {kind}\n\n| Condition | True means |\n| --- | --- |\n{rows}"


def make_entry(reason: Reason) -> str:
    """One reason with its next step, under a heading that can be linked to."""
    doc = REASON_DOCS[reason]
    step = f"\nNext: {doc.next_step}\n" if doc.next_step else ""
    return f"\n### {reason.value}\n\n{doc.meaning}\n{step}"
