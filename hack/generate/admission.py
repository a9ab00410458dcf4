"""ValidatingAdmissionPolicies that are shipped: what only the operator may change, which pods are those of whom they say they are, and
what the operator itself may not do although RBAC cannot say so. For the kustomize base and for the chart.

Who has the right `manage` on `children.fairlead.dev` of a namespace (no such resource exists; cluster administrators have it) is
bound by none of the first four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.api.names import (
    COMPONENT_ENGINE,
    COMPONENT_GATEWAY,
    GROUP,
    LABEL_COMPONENT,
    LABEL_INSTANCE,
    LABEL_LLMROUTE,
    LABEL_MANAGED_BY,
    MANAGED_BY,
)
from hack.generate import GENERATED_NOTICE
from hack.generate.rbac import LABELS, NAME, NAMESPACE, dump, dump_all

Json = dict[str, Any]
ADMISSION_GROUP = "admissionregistration.k8s.io"
NOTICE = f"# {GENERATED_NOTICE} Source: hack/generate/admission.py\n"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"
#: The chart evaluates it with `tpl`.
CHART_ACCOUNT = 'system:serviceaccount:{{ .Release.Namespace }}:{{ include "fairlead.serviceAccountName" . }}'
#: Set by the API server on every namespace, so that a selector can name one.
NAMESPACE_NAME = "kubernetes.io/metadata.name"

_OURS = {LABEL_MANAGED_BY: MANAGED_BY}
_MANAGES = f"authorizer.group('{GROUP}').resource('children').namespace(request.namespace).check('manage').allowed()"
_WHO = "request.userInfo.username"
#: Controllers of Kubernetes, with accounts of their own or with one for all.
_SYSTEM = (
    f"{_WHO}.startsWith('system:serviceaccount:kube-system:')"
    f" || {_WHO}.startsWith('system:') && !{_WHO}.startsWith('system:serviceaccount:')"
)
_COMPONENTS = f"['{COMPONENT_ENGINE}', '{COMPONENT_GATEWAY}']"
#: By that the Service of a route no longer leads to the gateway beside an engine.
_LEAVES_ROUTE = (
    f"oldObject.metadata.?labels['{LABEL_COMPONENT}'].orValue('') == '{COMPONENT_ENGINE}'"
    f" && object.metadata.labels.all(k, k != '{LABEL_LLMROUTE}' && oldObject.metadata.labels[?k] == optional.of(object.metadata.labels[k]))"
    f" && oldObject.metadata.labels.all(k, k == '{LABEL_LLMROUTE}' || k in object.metadata.labels)"
)
_TEMPLATE_LABELS = "object.spec.template.?metadata.?labels"


def generate() -> dict[str, str]:
    """The objects of the kustomize base, and the specs that the chart's template takes in."""
    return {
        "manifests/base/admission.yaml": NOTICE + dump_all(make_objects(ACCOUNT, NAME, LABELS)),
        "charts/fairlead/files/admission.yaml": dump(make_specs(CHART_ACCOUNT)),
    }


def make_objects(account: str, name: str, labels: Mapping[str, str], namespaces: Sequence[str] = ()) -> list[Json]:
    """Each policy and its binding: for all namespaces, or for some."""
    scope = {"namespaceSelector": {"matchExpressions": [
        {"key": NAMESPACE_NAME, "operator": "In", "values": list(namespaces)}]}}  # fmt: skip
    objects: list[Json] = []
    for part, spec in make_specs(account).items():
        metadata = {"name": f"{name}-{part}", "labels": dict(labels)}
        binding: Json = {"policyName": metadata["name"], "validationActions": ["Deny"]}
        if namespaces:
            binding["matchResources"] = scope
        for kind, body in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", binding)):
            objects.append(
                {"apiVersion": f"{ADMISSION_GROUP}/v1", "kind": kind, "metadata": dict(metadata), "spec": body}
            )
    return objects


def make_specs(account: str) -> dict[str, Json]:
    """Last part of a policy's name -> its spec. `account`: the operator's user name."""
    return {
        "children-data": _make_data(account),
        "children-spec": _make_children(account),
        "children-pods": _make_pods(),
        "children-templates": _make_templates(account),
        "operator-pods": _make_operator(account),
    }


def _make_data(account: str) -> Json:
    """What gateways read: whoever changes it decides where requests go."""
    return _make_spec(
        [_rule("", ("configmaps", "secrets"), ("CREATE", "UPDATE", "DELETE"))],
        [_others(account)],
        "false",
        "only fairlead changes ConfigMaps and Secrets that are labelled as its own: change the LLMRoute instead",
        selector=_OURS,
    )


def _make_children(account: str) -> Json:
    """What leads to pods and what fences them in. Annotations and finalizers are left to whoever needs some."""
    same = (
        "request.operation == 'UPDATE' && object.spec == oldObject.spec"
        " && object.metadata.?labels == oldObject.metadata.?labels"
        " && object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences"
    )
    return _make_spec(
        [
            _rule("", ("services",), ("CREATE", "UPDATE", "DELETE")),
            _rule("networking.k8s.io", ("networkpolicies",), ("CREATE", "UPDATE", "DELETE")),
            _rule("apps", ("deployments",), ("CREATE", "UPDATE", "DELETE")),
        ],
        [_others(account)],
        same,
        "only fairlead changes Services, NetworkPolicies and Deployments that are labelled as its own: change the LLMDeployment or"
        " LLMRoute instead (to restart one, annotate it with fairlead.dev/restartedAt)",
        selector=_OURS,
    )


def _make_pods() -> Json:
    """Services, and so gateways, find pods by these labels: a pod that copies them would be sent requests. So would one of ours that is
    made another one afterwards, by the label that says whose it is or by another image."""
    was = f"oldObject != null && oldObject.metadata.?labels['{LABEL_MANAGED_BY}'].orValue('') == '{MANAGED_BY}'"
    labels = (LABEL_COMPONENT, LABEL_INSTANCE)
    same = " && ".join(f"oldObject.metadata.?labels['{one}'] == object.metadata.?labels['{one}']" for one in labels)
    same += " && oldObject.spec == object.spec"
    route = "{}.metadata.?labels['" + LABEL_LLMROUTE + "'].orValue('')"
    same += f" && {route.format('object')} in ['', {route.format('oldObject')}]"  # an engine that carries its gateway
    return _make_spec(
        [_rule("", ("pods",), ("CREATE", "UPDATE"))],
        [
            ("is-a-server", f"object.metadata.?labels['{LABEL_COMPONENT}'].orValue('') in {_COMPONENTS}"),
            ("gets-the-labels", f"!({was} && {same})"),
            ("is-not-of-a-replica-set", f"!({_is_controller('replicaset')})"),
            ("is-not-a-controller", f"!(request.operation == 'UPDATE' && ({_SYSTEM}))"),
            ("may-not-manage", f"!{_MANAGES}"),
        ],
        "false",
        "only pods of fairlead's own Deployments have its labels, and stay as they are: leave out app.kubernetes.io/managed-by: fairlead",
        selector=_OURS,
    )


def _make_templates(account: str) -> Json:
    """Controllers would make such pods for everybody."""
    ours = f"{_TEMPLATE_LABELS}['{LABEL_MANAGED_BY}'].orValue('') == '{MANAGED_BY}'"
    server = f"{_TEMPLATE_LABELS}['{LABEL_COMPONENT}'].orValue('') in {_COMPONENTS}"
    return _make_spec(
        [_rule("apps", ("deployments", "replicasets"), ("CREATE", "UPDATE"))],
        [
            ("makes-servers", f"{ours} && {server}"),
            ("is-not-the-operator", f"{_WHO} != '{account}'"),
            (
                "is-not-of-a-deployment",
                f"!(request.resource.resource == 'replicasets' && ({_is_controller('deployment')}))",
            ),
            ("is-not-a-controller", f"!(request.operation == 'UPDATE' && ({_SYSTEM}))"),
            ("may-not-manage", f"!{_MANAGES}"),
        ],
        "request.operation == 'UPDATE' && object.spec.template == oldObject.spec.template",
        "only fairlead makes pods with its labels: leave app.kubernetes.io/managed-by: fairlead out of the template",
    )


def _make_operator(account: str) -> Json:
    """RBAC gives it all pods of the namespaces that it serves."""
    same = (
        f"object.spec == oldObject.spec && (object.metadata.?labels == oldObject.metadata.?labels || ({_LEAVES_ROUTE}))"
        " && object.metadata.?ownerReferences == oldObject.metadata.?ownerReferences"
    )
    gateway = (
        f"oldObject.metadata.?labels['{LABEL_MANAGED_BY}'].orValue('') == '{MANAGED_BY}'"
        f" && oldObject.metadata.?labels['{LABEL_COMPONENT}'].orValue('') == '{COMPONENT_GATEWAY}'"
    )
    return _make_spec(
        [_rule("", ("pods",), ("UPDATE", "DELETE"))],
        [("is-the-operator", f"{_WHO} == '{account}'")],
        f"request.operation == 'DELETE' ? ({gateway}) : ({same})",
        "the operator changes nothing of a pod but its annotations, takes an engine's label of a route away, and deletes pods of"
        " gateways only",
    )


def _make_spec(
    rules: Sequence[Json],
    conditions: Sequence[tuple[str, str] | Json],
    expression: str,
    message: str,
    *,
    selector: Mapping[str, str] | None = None,
) -> Json:
    named = [one if isinstance(one, dict) else {"name": one[0], "expression": one[1]} for one in conditions]
    constraints: Json = {"resourceRules": list(rules)}
    if selector is not None:  # of the object before or after: taking the label away is a change, too
        constraints["objectSelector"] = {"matchLabels": dict(selector)}
    return {
        "failurePolicy": "Fail",
        "matchConstraints": constraints,
        "matchConditions": named,
        "validations": [{"expression": expression, "message": message, "reason": "Forbidden"}],
    }


def _rule(group: str, resources: Sequence[str], operations: Sequence[str]) -> Json:
    return {
        "apiGroups": [group],
        "apiVersions": ["v1"],
        "operations": list(operations),
        "resources": list(resources),
    }


def _others(account: str) -> Json:
    """Neither the operator, nor Kubernetes, nor who may do what it does."""
    return {"name": "others", "expression": f"{_WHO} != '{account}' && !({_SYSTEM}) && !{_MANAGES}"}


def _is_controller(name: str) -> str:
    names = (f"system:serviceaccount:kube-system:{name}-controller", "system:kube-controller-manager")
    return f"{_WHO} in {list(names)}"
