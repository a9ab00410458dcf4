"""Condition types and the one enum of reasons. Both are API once shipped: docs/conditions.md has an entry for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ConditionType(StrEnum):
    """Every type of condition. Which kind has which, and in which order status shows them, stands below."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    MODEL_READY = "ModelReady"
    PODS_SCHEDULED = "PodsScheduled"
    AVAILABLE = "Available"
    SCALING_ACTIVE = "ScalingActive"
    ACCEPTED = "Accepted"
    RESOLVED_REFS = "ResolvedRefs"
    PROGRAMMED = "Programmed"
    BACKENDS_HEALTHY = "BackendsHealthy"


DEPLOYMENT_CONDITIONS: Final = (
    ConditionType.READY,
    ConditionType.RECONCILING,
    ConditionType.STALLED,
    ConditionType.MODEL_READY,
    ConditionType.PODS_SCHEDULED,
    ConditionType.AVAILABLE,
    ConditionType.SCALING_ACTIVE,
)
ROUTE_CONDITIONS: Final = (
    ConditionType.READY,
    ConditionType.RECONCILING,
    ConditionType.STALLED,
    ConditionType.ACCEPTED,
    ConditionType.RESOLVED_REFS,
    ConditionType.PROGRAMMED,
    ConditionType.BACKENDS_HEALTHY,
)


class Reason(StrEnum):
    """Every reason that a condition or an Event of fairlead can carry. docs/conditions.md has an entry for each."""

    # all is well
    SERVING = "Serving"
    SCALED_TO_ZERO = "ScaledToZero"
    SUSPENDED = "Suspended"
    UP_TO_DATE = "UpToDate"
    MODEL_LOADED = "ModelLoaded"
    SCHEDULED = "Scheduled"
    MINIMUM_REPLICAS_AVAILABLE = "MinimumReplicasAvailable"
    NOT_STALLED = "NotStalled"
    REVISION_AVAILABLE = "RevisionAvailable"
    ACCEPTED = "Accepted"
    RESOLVED = "Resolved"
    PROGRAMMED = "Programmed"
    BACKENDS_READY = "BackendsReady"
    FIXED_REPLICAS = "FixedReplicas"
    EXTERNALLY_MANAGED = "ExternallyManaged"
    SIGNALS_READY = "SignalsReady"
    TARGETS_MET = "TargetsMet"
    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    # under way
    PROGRESSING = "Progressing"
    ROLLING_OUT = "RollingOut"
    MODEL_LOADING = "ModelLoading"
    PULLING_MODEL = "PullingModel"
    PODS_PENDING = "PodsPending"
    WAITING_FOR_VOLUME = "WaitingForVolume"
    WAITING_FOR_DELETION = "WaitingForDeletion"
    NO_REPLICAS = "NoReplicas"
    REPLICAS_UNAVAILABLE = "ReplicasUnavailable"
    API_UNAVAILABLE = "ApiUnavailable"
    PUBLISHING = "Publishing"
    GATEWAYS_PENDING = "GatewaysPending"
    GATEWAY_NOT_CARRIED = "GatewayNotCarried"
    BACKENDS_NOT_READY = "BackendsNotReady"
    TARGETS_MISSED = "TargetsMissed"
    STABILIZING = "Stabilizing"
    RATE_LIMITED = "RateLimited"
    WAKING_UP = "WakingUp"
    TOO_FEW_REQUESTS = "TooFewRequests"
    SIGNALS_PARTIAL = "SignalsPartial"
    REPLICAS_HELD = "ReplicasHeld"
    SCALING_PAUSED = "ScalingPaused"
    SCALE_IGNORED = "ScaleIgnored"
    # a person must act
    INVALID_SPEC = "InvalidSpec"
    INVALID_CHILD = "InvalidChild"
    NAME_CONFLICT = "NameConflict"
    IMMUTABLE_FIELD = "ImmutableField"
    ENGINE_INVALID = "EngineInvalid"
    ENGINE_NOT_FOUND = "EngineNotFound"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOP = "CrashLoop"
    UNSCHEDULABLE = "Unschedulable"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    MODEL_ACCESS_DENIED = "ModelAccessDenied"
    MODEL_NOT_FOUND = "ModelNotFound"
    STARTUP_TIMEOUT = "StartupTimeout"
    POD_CREATE_REFUSED = "PodCreateRefused"
    CHILD_REFUSED = "ChildRefused"
    CERTIFICATE_NOT_ISSUED = "CertificateNotIssued"
    NO_PERMITTED_TARGET = "NoPermittedTarget"
    PROVIDER_REFUSED = "ProviderRefused"
    PATTERN_REFUSED = "PatternRefused"
    TOO_LARGE = "TooLarge"
    REF_NOT_RESOLVED = "RefNotResolved"
    ROUTING_REJECTED = "RoutingRejected"
    GATEWAY_REMOVED = "GatewayRemoved"
    SIGNALS_MISSING = "SignalsMissing"
    SIGNALS_STALE = "SignalsStale"
    KEDA_MISSING = "KEDAMissing"
    KEDA_NOT_READY = "KEDANotReady"
    TARGETS_OUT_OF_REACH = "TargetsOutOfReach"
    AT_MAXIMUM = "AtMaximum"
    CAPACITY_BLOCKED = "CapacityBlocked"


@dataclass(frozen=True, slots=True)
class ReasonDoc:
    """What a reason means, and what a person does about it ("" where nothing is to be done)."""

    meaning: str
    next_step: str = ""


REASON_DOCS: Final[Mapping[Reason, ReasonDoc]] = {
    Reason.SERVING: ReasonDoc("All replicas of the current generation run, and the model answers in them."),
    Reason.SCALED_TO_ZERO: ReasonDoc(
        "No pod runs, as asked for: by `spec.replicas: 0`, or by `spec.autoscaling` with `minReplicas: 0` after a time without requests.",
        "With `autoscaling`, send a request to a gateway whose route leads there; otherwise raise `spec.replicas`.",
    ),
    Reason.SUSPENDED: ReasonDoc(
        "`spec.suspend` is true: no pod runs; Service, volumes and settings stay.",
        "Set `spec.suspend` to false to serve again.",
    ),
    Reason.UP_TO_DATE: ReasonDoc("Nothing is left to do: the cluster is as the spec says."),
    Reason.MODEL_LOADED: ReasonDoc("At least one pod has loaded the model and answers."),
    Reason.SCHEDULED: ReasonDoc("Every pod has a node."),
    Reason.MINIMUM_REPLICAS_AVAILABLE: ReasonDoc("At least all replicas but one serve (with one replica: that one)."),
    Reason.NOT_STALLED: ReasonDoc("Nothing waits for a person."),
    Reason.REVISION_AVAILABLE: ReasonDoc(
        "It serves with the pod template of an earlier operator or engine file; a newer one exists and is not taken by itself.",
        "Nothing must be done. To take it, set `spec.rollout.revision: Latest` (`spec.gateway.revision: Latest` of a route), or change"
        " the pods' spec.",
    ),
    Reason.ACCEPTED: ReasonDoc("The route is carried out as it is written."),
    Reason.RESOLVED: ReasonDoc("Every deployment, Secret and provider that the route names is there and may be used."),
    Reason.PROGRAMMED: ReasonDoc("Every gateway has said that it has loaded this generation."),
    Reason.BACKENDS_READY: ReasonDoc("Each model has a backend to which requests are sent, or that a request wakes."),
    Reason.FIXED_REPLICAS: ReasonDoc("`spec.replicas` says how many replicas there are."),
    Reason.EXTERNALLY_MANAGED: ReasonDoc(
        "Somebody else decides how many replicas there are, such as a HorizontalPodAutoscaler; the message names it where it is known.",
        "Nothing must be done. For decisions by `spec.autoscaling` with `mode: Operator`, delete what the message names.",
    ),
    Reason.SIGNALS_READY: ReasonDoc("What `spec.autoscaling.targets` name is measured, and replicas follow it."),
    Reason.REPLICAS_HELD: ReasonDoc(
        "After a hand-over to whoever writes `spec.replicas`: the number from before stays until somebody writes it, at most five minutes.",
        "If the number in `spec.replicas` is right, nothing must be done.",
    ),
    Reason.SCALING_PAUSED: ReasonDoc(
        "`spec.autoscaling.policy` is Pause: the number of replicas stays.", "Set it to Apply for decisions again."
    ),
    Reason.SCALE_IGNORED: ReasonDoc(
        "An Event, no condition: `spec.replicas` was set, by `kubectl scale` perhaps, where `spec.autoscaling` decides.",
        "Set `spec.autoscaling.minReplicas`, `policy: Pause`, or `mode: External`.",
    ),
    Reason.PUBLISHING: ReasonDoc(
        "Gateways are loading the routing: within seconds, step by step when something is added or removed.",
        "If it lasts, look at the gateway's pods and their logs (`kubectl logs deploy/<route>-gateway`).",
    ),
    Reason.GATEWAYS_PENDING: ReasonDoc(
        "The gateway's pods are starting, or fewer are ready than asked for.",
        "If it lasts, look at the pods (`kubectl describe pod`).",
    ),
    Reason.GATEWAY_NOT_CARRIED: ReasonDoc(
        "The route says `gateway.mode: Sidecar`, and no LLMDeployment carries its gateway, or only pods of an earlier release do.",
        "Name the route in `spec.gateway.routeRef` of an LLMDeployment, or do as the message says.",
    ),
    Reason.BACKENDS_NOT_READY: ReasonDoc(
        "Some model has no backend that answers; `status.backends` says which backend lacks what.",
        "Follow the message of the backend that should answer.",
    ),
    Reason.PROGRESSING: ReasonDoc("Objects are being made, or the last pods are ending."),
    Reason.ROLLING_OUT: ReasonDoc("Pods are being replaced by pods of the current template, or their number changes."),
    Reason.MODEL_LOADING: ReasonDoc("Engines run and download or load the model; they do not answer yet."),
    Reason.PULLING_MODEL: ReasonDoc("The `model` init container puts the model on the pod's volume."),
    Reason.PODS_PENDING: ReasonDoc("Pods wait for the scheduler, for images or for volumes."),
    Reason.WAITING_FOR_VOLUME: ReasonDoc(
        "A pod has no node because its PersistentVolumeClaim has no volume yet.",
        "Check the claim's events and its storage class (`kubectl describe pvc`).",
    ),
    Reason.WAITING_FOR_DELETION: ReasonDoc(
        "An object of an earlier LLMDeployment of the same name still has the name of one of the children, for a minute or more: "
        "a finalizer holds it, or the garbage collector has not begun to delete it. The child is made as soon as it is gone.",
        "Look at the `metadata.finalizers` of the object that the message names, and at whoever should remove them.",
    ),
    Reason.NO_REPLICAS: ReasonDoc("No pods are meant to run, so there is nothing to say about them."),
    Reason.REPLICAS_UNAVAILABLE: ReasonDoc(
        "Too few replicas serve. After a rollout that had finished: pods died or lost their node and are being replaced.",
        "Look at the pods (`kubectl describe pod`) if it lasts longer than a model load.",
    ),
    Reason.API_UNAVAILABLE: ReasonDoc("The API server did not take the last change; it is tried again."),
    Reason.INVALID_SPEC: ReasonDoc(
        "The spec is refused: the message names each field and what would work. What runs goes on as it is.",
        "Correct the fields that the message names.",
    ),
    Reason.INVALID_CHILD: ReasonDoc(
        "The API server refused an object made from the spec: a raw Kubernetes field (affinity, volumes, env) has a mistake.",
        "Correct the field that the message names.",
    ),
    Reason.NAME_CONFLICT: ReasonDoc(
        "An object with the name of one of the children exists and belongs to somebody else. It is left alone.",
        "Rename the LLMDeployment, or remove the other object.",
    ),
    Reason.IMMUTABLE_FIELD: ReasonDoc(
        "The spec asks for a change that Kubernetes does not allow on an existing object (class, modes or shrinking of a claim).",
        "Set the field back, or delete the object that the message names so that it is made anew.",
    ),
    Reason.ENGINE_INVALID: ReasonDoc(
        "The engine file cannot be used; the message says file, line and reason. What runs goes on as it is.",
        "Correct the ConfigMap labelled `fairlead.dev/engine` in the operator's namespace.",
    ),
    Reason.ENGINE_NOT_FOUND: ReasonDoc(
        "`spec.engine.type` names no engine that this installation has.",
        "Use one that the message lists, or add a ConfigMap labelled `fairlead.dev/engine`.",
    ),
    Reason.IMAGE_PULL_FAILED: ReasonDoc(
        "The kubelet cannot pull the engine's image.",
        "Check `spec.engine.image` and `version`, the registry, and `spec.pod.imagePullSecrets`.",
    ),
    Reason.CRASH_LOOP: ReasonDoc(
        "A container keeps ending; the message quotes its last words. OOMKilled means that it ran out of memory.",
        "Read its log (`kubectl logs --previous`); raise `spec.resources.limits.memory` after OOMKilled.",
    ),
    Reason.UNSCHEDULABLE: ReasonDoc(
        "No node fits a pod; the message quotes the scheduler. After a minute a person is asked for (`Stalled`).",
        "Free capacity or add nodes, or change `spec.accelerator`, `spec.resources` or `spec.pod`.",
    ),
    Reason.CONTAINER_CONFIG_ERROR: ReasonDoc(
        "A container cannot be made, mostly because a Secret, a ConfigMap or a key of one is missing; the message names it.",
        "Create what is missing, or correct the reference.",
    ),
    Reason.MODEL_ACCESS_DENIED: ReasonDoc(
        "The model hub answered 401 or 403: no token, a wrong one, or terms that are not accepted.",
        "Accept the model's terms and give a token that may read it in `spec.model.secretRef`.",
    ),
    Reason.MODEL_NOT_FOUND: ReasonDoc(
        "The model hub, registry or volume has no such model, file or revision.",
        "Check `spec.model.source` and `spec.model.revision`; private repositories look absent without a token.",
    ),
    Reason.STARTUP_TIMEOUT: ReasonDoc(
        "Pods did not become ready within the start-up budget that `status.model.startupTimeout` shows.",
        "Read their events and logs; raise `spec.probes.startupTimeout`, or keep the model on a volume.",
    ),
    Reason.POD_CREATE_REFUSED: ReasonDoc(
        "The cluster refuses to create pods: a quota, an admission policy or Pod Security; the message quotes it.",
        "Raise the quota, or satisfy the policy that the message names.",
    ),
    Reason.NO_PERMITTED_TARGET: ReasonDoc(
        "A role may send a class of requests for which a model has no target that may take it. The routing that runs goes on.",
        "Add a target that may, take the class from the role, or list it in `spec.dataPolicy.denyClasses`.",
    ),
    Reason.PROVIDER_REFUSED: ReasonDoc(
        "A provider of the route cannot be used as it is written: its address, a parameter, or trust that the operator does not share.",
        "Correct the field that the message names.",
    ),
    Reason.PATTERN_REFUSED: ReasonDoc(
        "A pattern of a detector cannot be looked for: RE2 does not compile it, it matches the empty text, or it is too large. The "
        "routing that runs goes on, less what the new spec withdraws.",
        "Correct the pattern that the message names.",
    ),
    Reason.TOO_LARGE: ReasonDoc(
        "The routing does not fit into a ConfigMap. The routing that runs goes on.",
        "Spread the models, or the consumers with limits of their own, over several LLMRoutes.",
    ),
    Reason.REF_NOT_RESOLVED: ReasonDoc(
        "A deployment, Secret or key that the route names is missing or may not be used; nothing is sent to that backend, and without "
        "the certificate of `spec.gateway.tls` no gateway is started or changed.",
        "Run the command that the message gives.",
    ),
    Reason.ROUTING_REJECTED: ReasonDoc(
        "A gateway refuses the routing and goes on with the one before. This is a mistake of fairlead.",
        "Read the gateway's log, and report it.",
    ),
    Reason.GATEWAY_REMOVED: ReasonDoc(
        "An Event, no condition: a pod of the gateway had not loaded, half a minute later, a routing that withdraws something, so it "
        "was deleted and another one takes its place. Streams through it were cut. A pod in which an engine runs is left, and the route's "
        "Service leads there no more.",
        "If it happens again, look at the node of that pod: its kubelet does not bring changed ConfigMaps to pods, or the operator does"
        " not reach the pod's port `status`.",
    ),
    Reason.CERTIFICATE_NOT_ISSUED: ReasonDoc(
        "The operator cannot issue or renew the certificate of the pods, because its certificate authority (Secret `fairlead-ca` in "
        "its own namespace) cannot be made or used. A certificate that is there serves until it expires.",
        "Do what the message says.",
    ),
    Reason.CHILD_REFUSED: ReasonDoc(
        "The API server refuses one of the children: missing rights, a policy or a quota. It is tried again after two seconds, and "
        "then ever more seldom; from the second refusal on the LLMDeployment is `Stalled`.",
        "Grant the right or satisfy the policy that the message names.",
    ),
    # scaling
    Reason.TARGETS_MET: ReasonDoc(
        "Every target of `spec.autoscaling` is met. The number of replicas stays, or goes down when fewer have been enough for a while."
    ),
    Reason.SCALED_UP: ReasonDoc(
        "There are more replicas now; the message says what was measured and from how many to how many."
    ),
    Reason.SCALED_DOWN: ReasonDoc(
        "There are fewer replicas now; the message says what was measured and from how many to how many."
    ),
    Reason.TARGETS_MISSED: ReasonDoc(
        "A target is missed, and as many replicas as it asks for are there or load already.",
        "If it lasts though all replicas are ready, look at what the message measures: a target may be too tight for the model.",
    ),
    Reason.STABILIZING: ReasonDoc(
        "The number of ready pods has just changed, or more replicas are wanted, but not for as long yet as `behavior.scaleUp` says."
    ),
    Reason.RATE_LIMITED: ReasonDoc(
        "More replicas are wanted, and the limits of `behavior.scaleUp` permit none now, or it is disabled."
    ),
    Reason.WAKING_UP: ReasonDoc(
        "The first pods start, for requests that gateways hold or because none ran; until one is ready, nothing can be measured."
    ),
    Reason.TOO_FEW_REQUESTS: ReasonDoc(
        "Too few requests ended in the last minutes to judge a target of time, so the number of replicas stays."
    ),
    Reason.SIGNALS_PARTIAL: ReasonDoc(
        "Not every ready pod told what is measured. Replicas may be added and are not taken away.",
        "If it lasts, look at the pods that the message counts, and at who may reach their metrics.",
    ),
    Reason.SIGNALS_MISSING: ReasonDoc(
        "What scaling is decided from is not there or cannot be believed; the message says what. Replicas are not taken away.",
        "Check the source of the signals (Prometheus, or the pods' metrics), and that the engine tells of what the target needs.",
    ),
    Reason.SIGNALS_STALE: ReasonDoc(
        "The newest sample is too old, or clocks disagree. The number of replicas stays.",
        "Check the source of the signals, and the clocks of the operator's and of Prometheus' nodes.",
    ),
    Reason.KEDA_MISSING: ReasonDoc(
        "`spec.autoscaling.mode` is KEDA, and the cluster does not have KEDA's ScaledObjects, or the operator may not see them. Nobody"
        " decides: `spec.replicas` counts, within the bounds.",
        "Install KEDA, which is found within half a minute, or use `mode: Operator`.",
    ),
    Reason.KEDA_NOT_READY: ReasonDoc(
        "KEDA says for a minute that it cannot scale by the ScaledObject that fairlead made; the message has its words.",
        "Follow them: `kubectl describe scaledobject`, and KEDA's log.",
    ),
    Reason.TARGETS_OUT_OF_REACH: ReasonDoc(
        "A target of time is missed although the replicas have hardly anything to do: more of them would make no request faster.",
        "Raise the target, or make one request faster: another quantization, more accelerators for each replica, a smaller model.",
    ),
    Reason.AT_MAXIMUM: ReasonDoc(
        "More replicas are wanted than `maxReplicas` permits.",
        "Raise `maxReplicas` if targets are missed, and there are accelerators.",
    ),
    Reason.CAPACITY_BLOCKED: ReasonDoc(
        "More replicas are wanted than the cluster's accelerators permit; those that there is room for are made.",
        "Add nodes or free accelerators; where nodes are added for pods that wait, set the operator's option `--nodes=OnDemand`.",
    ),
}
