"""Names: of the object itself, of what it refers to, and of labels and annotations."""

from __future__ import annotations

import re
from typing import Final

from fairlead.api.names import NAME_MAX_LENGTH, RESERVED_LABEL_KEYS, RESERVED_LABEL_PREFIX, RESERVED_NAME_SUFFIXES
from fairlead.api.rules.table import Root, Rule, cel_list, matches, pattern_rule

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DNS_LABEL: Final = _LABEL
DNS_SUBDOMAIN: Final = rf"{_LABEL}([.]{_LABEL})*"
LABEL_KEY: Final = rf"({DNS_SUBDOMAIN}/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
LABEL_VALUE: Final = "([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
DATA_KEY: Final = "[-._a-zA-Z0-9]+"
_OWN_NAME: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"


def _suggest_name(root: Root) -> tuple[str, str]:
    name = re.sub(r"[^a-z0-9-]+", "-", root.name.lower()).strip("-")
    name = re.sub(r"^[^a-z]+", "", name)[:NAME_MAX_LENGTH].rstrip("-") or "my-model"
    what = (
        f"has {len(root.name)} characters, at most {NAME_MAX_LENGTH} leave room for the names of children"
        if len(root.name) > NAME_MAX_LENGTH
        else f"{root.name!r} is not lower-case letters, digits and -, beginning with a letter"
    )
    return what, f"{name} would work"


def _suggest_without_suffix(root: Root) -> tuple[str, str]:
    suffix = next(s for s in RESERVED_NAME_SUFFIXES if root.name.endswith(s))
    return f"ends in {suffix}, which names children of other objects", f"{root.name.removesuffix(suffix)} would work"


def _label_keys_ok(labels: dict[str, str]) -> bool:
    return all(re.fullmatch(LABEL_KEY, key, re.ASCII) and len(key.rsplit("/", 1)[-1]) <= 63 for key in labels)


def _keys_rule(rule_id: str, at: str) -> Rule:
    return Rule(
        id=rule_id,
        at=at,
        holds=_label_keys_ok,
        cel=f"self.all(k, {matches(LABEL_KEY, 'k')} && size(k.split('/')[size(k.split('/')) - 1]) <= 63)",
        message="a key is not [prefix/]name with a DNS name as prefix and at most 63 letters, digits, -, _ and . as name",
        remedy="for instance example.com/team",
        explain=lambda labels: (
            f"key {next(k for k in labels if not _label_keys_ok({k: ''}))!r} is not [prefix/]name",
            "for instance example.com/team; the prefix is a DNS name, the name at most 63 letters, digits, -, _ and .",
        ),
    )


def _values_rule(rule_id: str, at: str) -> Rule:
    return pattern_rule(
        rule_id,
        f"{at}[*]",
        LABEL_VALUE,
        "is not a label value: letters, digits, -, _ and ., beginning and ending with a letter or digit",
        "write spaces as -",
        explain=lambda value: (
            f"{value!r} is not a label value",
            f"{re.sub(r'[^-A-Za-z0-9_.]+', '-', value).strip('-_.') or 'true'} would work",
        ),
    )


def _reserved(key: str) -> bool:
    return key in RESERVED_LABEL_KEYS or key.startswith(RESERVED_LABEL_PREFIX)


def _reserved_rule(rule_id: str, at: str) -> Rule:
    return Rule(
        id=rule_id,
        at=at,
        holds=lambda labels: not any(_reserved(key) for key in labels),
        cel=f"!self.exists(k, k in {cel_list(RESERVED_LABEL_KEYS)} || k.startsWith('{RESERVED_LABEL_PREFIX}'))",
        message="a key belongs to fairlead: app.kubernetes.io/name, component, instance, managed-by or fairlead.dev/…",
        remedy="use a key with a prefix of your own",
        explain=lambda labels: (
            f"{next(key for key in labels if _reserved(key))} belongs to fairlead",
            "use a key with a prefix of your own",
        ),
    )


def annotation_rules(rule_id: str, at: str) -> tuple[Rule, Rule]:
    """The map at `at` holds annotations that a user may set."""
    return _keys_rule(f"{rule_id}.keys", at), _reserved_rule(f"{rule_id}.reserved", at)


def _is_own_name(name: str) -> bool:
    return len(name) <= NAME_MAX_LENGTH and re.fullmatch(_OWN_NAME, name, re.ASCII) is not None


def own_name_rule(rule_id: str, at: str, kind: str, command: str) -> Rule:
    """The text at `at` may be the name of a custom resource of ours, such as `command` shows."""
    return Rule(
        id=rule_id,
        at=at,
        holds=_is_own_name,
        cel=f"size(self) <= {NAME_MAX_LENGTH} && {matches(_OWN_NAME)}",
        message=(
            f"is not the name of an {kind}: at most {NAME_MAX_LENGTH} lower-case letters, digits and -, beginning with a letter"
        ),
        remedy=f"copy the name as kubectl get {command} shows it",
    )


def _reference_rules() -> tuple[Rule, ...]:
    """Names of objects that the spec refers to, and keys inside of ConfigMaps and Secrets."""
    references = ("spec.model.secretRef", "spec.files[*].secretRef", "spec.files[*].configMapRef")
    names = {f"{at}.name" for at in references} | {
        "spec.encryption.certificate.secretName",
        "spec.storage.claimName",
        "spec.storage.storageClassName",
        "spec.pod.priorityClassName",
        "spec.pod.runtimeClassName",
        "spec.pod.schedulerName",
        "spec.pod.serviceAccountName",
    }
    return tuple(
        pattern_rule(
            f"{at}.dns".removeprefix("spec."),
            at,
            DNS_SUBDOMAIN,
            "is not the name of a Kubernetes object: lower-case letters, digits, - and .",
            "copy the name as kubectl get shows it",
        )
        for at in sorted(names)
    ) + tuple(
        pattern_rule(
            f"{at}.key.charset".removeprefix("spec."),
            f"{at}.key",
            DATA_KEY,
            "is not a key of a Secret or ConfigMap: letters, digits, -, _ and .",
            "copy the key as kubectl describe shows it",
        )
        for at in references
    )


#: Every kind of ours has them: names of children are made from the name.
NAME_RULES: Final = (
    Rule(
        id="name",
        at="",
        field=".metadata.name",
        holds=lambda root: _is_own_name(root.name),
        cel=f"size(self.metadata.name) <= {NAME_MAX_LENGTH} && {matches(_OWN_NAME, 'self.metadata.name')}",
        message=f"must be lower-case letters, digits and -, begin with a letter and have at most {NAME_MAX_LENGTH} characters",
        remedy="for instance llama-8b",
        explain=_suggest_name,
    ),
    Rule(
        id="name.suffix",
        at="",
        field=".metadata.name",
        holds=lambda root: not root.name.endswith(RESERVED_NAME_SUFFIXES),
        cel=f"!{cel_list(RESERVED_NAME_SUFFIXES)}.exists(s, self.metadata.name.endsWith(s))",
        message=f"must not end in {', '.join(RESERVED_NAME_SUFFIXES)}: those are names of other objects' children".replace(
            "'", ""
        ),
        remedy="leave the suffix out",
        explain=_suggest_without_suffix,
    ),
)

RULES: Final = (
    *NAME_RULES,
    *_reference_rules(),
    own_name_rule("gateway.routeRef.name.form", "spec.gateway.routeRef.name", "LLMRoute", "llmrt"),
    _keys_rule("pod.labels.keys", "spec.pod.labels"),
    _values_rule("pod.labels.values", "spec.pod.labels"),
    _reserved_rule("pod.labels.reserved", "spec.pod.labels"),
    _keys_rule("pod.annotations.keys", "spec.pod.annotations"),
    _reserved_rule("pod.annotations.reserved", "spec.pod.annotations"),
    _keys_rule("pod.nodeSelector.keys", "spec.pod.nodeSelector"),
    _values_rule("pod.nodeSelector.values", "spec.pod.nodeSelector"),
    *annotation_rules("service.annotations", "spec.service.annotations"),
)
