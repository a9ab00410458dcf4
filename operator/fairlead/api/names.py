"""Every name, label and annotation that fairlead puts on the API server, in one place.

Names are API: a changed name orphans objects of running installations. Children are found by labels, owned by uid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GROUP: Final = "fairlead.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

LLMDEPLOYMENT: Final = "LLMDeployment"
LLMDEPLOYMENTS: Final = "llmdeployments"
LLMROUTE: Final = "LLMRoute"
LLMROUTES: Final = "llmroutes"

# One field manager per CR kind (law 2): with one for all, two CRs whose children's names meet would take the
# object from each other for ever; with one each the API server refuses the second controller.
FIELD_MANAGER_LLMDEPLOYMENT: Final = "fairlead-llmdeployment"
FIELD_MANAGER_LLMROUTE: Final = "fairlead-llmroute"

LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_LLMDEPLOYMENT: Final = f"{GROUP}/llmdeployment"
LABEL_LLMROUTE: Final = f"{GROUP}/llmroute"
LABEL_ENGINE: Final = f"{GROUP}/engine"  # on the ConfigMaps that override or add an engine
MANAGED_BY: Final = "fairlead"
COMPONENT_ENGINE: Final = "engine"
COMPONENT_GATEWAY: Final = "gateway"
COMPONENT_AUTHORITY: Final = "certificate-authority"

#: The Secret in the operator's namespace by which it issues certificates, and who writes it.
AUTHORITY_SECRET: Final = f"{MANAGED_BY}-ca"
FIELD_MANAGER_AUTHORITY: Final = "fairlead-authority"

#: Kinds of custom resources that own children, and the label on a child that says to which resource of the kind it belongs.
OWNER_LABELS: Final = {LLMDEPLOYMENT: LABEL_LLMDEPLOYMENT, LLMROUTE: LABEL_LLMROUTE}

#: On a Secret: what it may be used for, and for which hosts. Consent lives in the Secret, so that no route can send any of them.
LABEL_USE: Final = f"{GROUP}/use"
USE_PROVIDER: Final = "provider"
USE_CLIENTS: Final = "clients"
USE_GATEWAY_TLS: Final = "gateway-tls"
USE_JWKS: Final = "jwks"
ANNOTATION_HOSTS: Final = f"{GROUP}/hosts"

#: Label keys that belong to fairlead; `spec.pod.labels` may not touch them.
RESERVED_LABEL_KEYS: Final = (LABEL_NAME, LABEL_COMPONENT, LABEL_INSTANCE, LABEL_MANAGED_BY)
RESERVED_LABEL_PREFIX: Final = f"{GROUP}/"

ANNOTATION_APPLIED_HASH: Final = f"{GROUP}/applied-hash"  # blake2b of the body last applied (kube/compare.py)
#: Kubernetes' own: of several pods that may go, those with the lowest number go first.
ANNOTATION_DELETION_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
ANNOTATION_RESTARTED_AT: Final = f"{GROUP}/restartedAt"  # on the CR, copied to the pod template
ANNOTATION_REVISION: Final = f"{GROUP}/revision"  # on the Deployment: revision of engine file + pod builder
ANNOTATION_TEMPLATE_INPUT: Final = (
    f"{GROUP}/template-input"  # on the Deployment: hash of the spec fields behind the pod template
)
ANNOTATION_TEMPLATE: Final = f"{GROUP}/template"  # on the Deployment: the pod template as first rendered (law 8)

#: On the engine pods: why they may write requests into their log. Those that do not have none.
ANNOTATION_RECORDS: Final = f"{GROUP}/records-requests"
#: On the engine pods: an image that is not the engine's own, and what else may send requests elsewhere. Most have neither.
ANNOTATION_IMAGE: Final = f"{GROUP}/own-image"
ANNOTATION_HANDS_ON: Final = f"{GROUP}/hands-requests-on"

#: On an application's pod: the route whose sidecar it gets; and the Secret whose ca.crt says who may sign for the gateway.
LABEL_GATEWAY: Final = f"{GROUP}/gateway"
ANNOTATION_AUTHORITIES: Final = f"{GROUP}/gateway-authorities"

#: On a gateway's pods: which routing their kubelet was told to project, and when.
ANNOTATION_ROUTING: Final = f"{GROUP}/routing"

#: On engine pods that carry a gateway: which routing it can carry out, and under this prefix the files that it starts with.
ANNOTATION_INTERFACE: Final = f"{GROUP}/gateway-interface"
FILE_ANNOTATION_PREFIX: Final = f"{GROUP}/gateway."

#: On a gateway's pods: the Secret with whose certificate they serve; without it they serve plain HTTP.
ANNOTATION_TLS: Final = f"{GROUP}/tls-secret"

#: On the Secret with a certificate that fairlead issued: since when its ca.crt has all authorities that may sign it.
ANNOTATION_TRUSTED_SINCE: Final = f"{GROUP}/trusted-since"

#: On the cache claim: the storage class that fairlead asked for (absent: it left the choice to the cluster).
ANNOTATION_STORAGE_CLASS: Final = f"{GROUP}/storage-class"

#: On the HorizontalPodAutoscaler that KEDA makes for a ScaledObject: the name of that.
LABEL_SCALED_OBJECT: Final = "scaledobject.keda.sh/name"

#: Kinds of children that a spec can stop asking for, and that are then deleted. Every LLMDeployment has its Deployment and Services
#: until it goes, and then the garbage collector deletes them.
PRUNED_KINDS: Final = frozenset({"PersistentVolumeClaim", "PodDisruptionBudget", "NetworkPolicy", "ScaledObject"})
#: Names that an LLMDeployment may not end with: they are names of other CRs' children.
RESERVED_NAME_SUFFIXES: Final = ("-gateway", "-cache", "-pods")
NAME_MAX_LENGTH: Final = 48


def make_engine_labels(name: str) -> dict[str, str]:
    """Labels on every child of LLMDeployment `name`."""
    return {
        LABEL_NAME: MANAGED_BY,
        LABEL_COMPONENT: COMPONENT_ENGINE,
        LABEL_INSTANCE: name,
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_LLMDEPLOYMENT: name,
    }


def make_engine_selector(name: str) -> dict[str, str]:
    """Selector of the engine pods of LLMDeployment `name`: immutable for the life of its Deployment."""
    return {LABEL_INSTANCE: name, LABEL_COMPONENT: COMPONENT_ENGINE, LABEL_MANAGED_BY: MANAGED_BY}


def make_gateway_labels(name: str) -> dict[str, str]:
    """Labels on every child of LLMRoute `name`."""
    return {
        LABEL_NAME: MANAGED_BY,
        LABEL_COMPONENT: COMPONENT_GATEWAY,
        LABEL_INSTANCE: name,
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_LLMROUTE: name,
    }


def make_gateway_selector(name: str) -> dict[str, str]:
    """Selector of the gateway pods of LLMRoute `name`: immutable for the life of its Deployment."""
    return {LABEL_INSTANCE: name, LABEL_COMPONENT: COMPONENT_GATEWAY, LABEL_MANAGED_BY: MANAGED_BY}


def make_carrier_labels(route: str) -> dict[str, str]:
    """Labels on engine pods that carry a gateway of LLMRoute `route`, beside those of an engine."""
    return {LABEL_LLMROUTE: route}


def make_carrier_selector(route: str) -> dict[str, str]:
    """Selector of the engine pods, of whatever LLMDeployment, that carry a gateway of LLMRoute `route`."""
    return {LABEL_LLMROUTE: route, LABEL_COMPONENT: COMPONENT_ENGINE, LABEL_MANAGED_BY: MANAGED_BY}


def find_route_ref(spec: object) -> str:
    """Name of the LLMRoute whose gateway an LLMDeployment's pods carry, "" if they carry none. The raw spec need not be valid."""
    gateway = spec.get("gateway") if isinstance(spec, Mapping) else None
    reference = gateway.get("routeRef") if isinstance(gateway, Mapping) else None
    return str(reference.get("name") or "") if isinstance(reference, Mapping) else ""


def gateway_name(route: str) -> str:
    """Deployment, Service and policies of a route's gateway."""
    return f"{route}-gateway"


def gateway_part_name(route: str, part: str) -> str:
    """A ConfigMap or Secret of a route's gateway."""
    return f"{gateway_name(route)}-{part}"


def format_selector(selector: dict[str, str]) -> str:
    """A selector as the one string that the scale subresource and `kubectl -l` take; keys sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))


def headless_service_name(name: str) -> str:
    """The Service whose A records are the pods, for gateways."""
    return f"{name}-pods"


def cache_claim_name(name: str) -> str:
    """The PersistentVolumeClaim that fairlead makes for `spec.storage.type: PersistentVolumeClaim`."""
    return f"{name}-cache"


def issued_certificate_name(name: str) -> str:
    """The Secret with the certificate that fairlead issues for the pods. No other custom resource has a child of this name: none may be
    called `<name>-pods`, and Secrets of gateways end otherwise."""
    return f"{headless_service_name(name)}-tls"


def possible_owner_names(child_name: str) -> tuple[str, ...]:
    """Names of the LLMDeployments that could plan a child of this name, whatever its kind."""
    return (
        child_name,
        *(
            child_name.removesuffix(suffix)
            for suffix in ("-pods", "-cache", "-pods-tls")
            if child_name.endswith(suffix)
        ),
    )
