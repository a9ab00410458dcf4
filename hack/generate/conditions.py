"""docs/conditions.md: every condition and every reason, from the enums and texts that the operator itself uses."""

from __future__ import annotations

from fairlead.api.conditions import REASON_DOCS, ConditionType, Reason
from hack.generate import GENERATED_NOTICE

#: What True means, and when the condition is something else although nothing is wrong.
CONDITION_DOCS = {
    ConditionType.READY: "The pods of the current spec serve. The one to wait for. Once it was true, one missing replica of "
    "several does not make it false.",
    ConditionType.RECONCILING: "Something is under way: a rollout, a model load, a replacement of lost pods. Never true together "
    "with `Stalled`.",
    ConditionType.STALLED: "A person must act; reason and message say why and what to do. Nothing changes by waiting alone, "
    "though the operator notices when the cause is gone.",
    ConditionType.MODEL_READY: "At least one pod has loaded the model. Unknown while no engine runs.",
    ConditionType.PODS_SCHEDULED: "Every pod has a node. Unknown while there are no pods.",
    ConditionType.AVAILABLE: "At least all replicas but one serve, whatever the spec's generation: requests are answered.",
}

HEAD = """\
# Conditions and reasons

The status of an LLMDeployment speaks in conditions, as `kubectl wait`, Helm, Argo CD and Flux read them. All of them are there
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
    conditions = "".join(f"| `{one.value}` | {CONDITION_DOCS[one]} |\n" for one in ConditionType)
    reasons = "".join(make_entry(reason) for reason in sorted(Reason, key=lambda reason: reason.value))
    return {
        "docs/conditions.md": f"<!-- {GENERATED_NOTICE} -->\n\n{HEAD}\n## Conditions\n\n| Condition | True means |\n| --- | --- |\n"
        f"{conditions}{TAIL_OF_CONDITIONS}\n## Reasons\n\nReasons are words for machines and stay; messages are for people and may "
        f"change. Events carry the same reasons.\n{reasons}"
    }


def make_entry(reason: Reason) -> str:
    """One reason with its next step, under a heading that can be linked to."""
    doc = REASON_DOCS[reason]
    step = f"\nNext: {doc.next_step}\n" if doc.next_step else ""
    return f"\n### {reason.value}\n\n{doc.meaning}\n{step}"
