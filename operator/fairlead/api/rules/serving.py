"""Rules about how it is reached and kept up, and about the user's own part of the pod."""

from __future__ import annotations

import re
from typing import Any, Final

from fairlead.api.quantity import DURATION_PATTERN, is_duration, parse_duration_s
from fairlead.api.rules.names import DNS_LABEL
from fairlead.api.rules.table import Rule, cel_list, matches, pattern_rule

#: Volumes and mount points of fairlead's own in every engine pod.
RESERVED_VOLUME_PREFIX: Final = "fairlead-"
RESERVED_MOUNT_PATHS: Final = ("/cache", "/model", "/tmp", "/dev/shm", "/home/fairlead")  # noqa: S108 - paths in a container


def duration_rules(rule_id: str, at: str, least: str, most: str) -> tuple[Rule, Rule]:
    """The text at `at` is a duration between `least` and `most`."""

    def explain(text: str) -> tuple[str, str]:
        number = re.fullmatch("[0-9]+", text)
        return f"{text!r} is not a duration", f"{text}s would work" if number else "for instance 90s, 20m or 1h30m"

    return (
        pattern_rule(
            f"{rule_id}.format",
            at,
            DURATION_PATTERN,
            "is not a duration",
            "for instance 90s, 20m or 1h30m",
            explain=explain,
        ),
        Rule(
            id=f"{rule_id}.range",
            at=at,
            holds=lambda text: (
                not is_duration(text) or parse_duration_s(least) <= parse_duration_s(text) <= parse_duration_s(most)
            ),
            cel=f"!{matches(DURATION_PATTERN)} || (duration(self) >= duration('{least}') && duration(self) <= duration('{most}'))",
            message=f"must be between {least} and {most}",
            remedy=f"{most} is the longest, {least} the shortest that works",
        ),
    )


def _unknown_mounts(pod: Any) -> list[str]:
    volumes = {volume["name"] for volume in pod.extra_volumes}
    return [mount["name"] for mount in pod.extra_volume_mounts if mount["name"] not in volumes]


def _mounts_over_files(spec: Any) -> bool:
    directories = {file.path.rpartition("/")[0] for file in spec.files}
    return spec.pod is not None and any(mount["mountPath"] in directories for mount in spec.pod.extra_volume_mounts)


def _surges_on_one_node(spec: Any) -> bool:
    storage = spec.storage
    return (
        spec.rollout is not None
        and spec.rollout.strategy == "Surge"
        and storage is not None
        and storage.type == "PersistentVolumeClaim"
        and storage.claim_name is None
        and "ReadWriteMany" not in storage.access_modes
    )


RULES: Final = (
    *duration_rules("probes.startupTimeout", "spec.probes.startupTimeout", "10s", "24h"),
    *duration_rules("rollout.drainTimeout", "spec.rollout.drainTimeout", "0s", "6h"),
    Rule(
        id="rollout.strategy.volume",
        at="spec",
        field=".rollout.strategy",
        holds=lambda spec: not _surges_on_one_node(spec),
        cel="!has(self.rollout) || self.rollout.strategy != 'Surge' || !has(self.storage)"
        " || self.storage.type != 'PersistentVolumeClaim' || has(self.storage.claimName)"
        " || (has(self.storage.accessModes) && 'ReadWriteMany' in self.storage.accessModes)",
        message="a surge pod cannot mount a volume that one node or pod holds",
        remedy="strategy: InPlace would work, or storage.accessModes: [ReadWriteMany]",
    ),
    Rule(
        id="networkPolicy.from.mode",
        at="spec.networkPolicy",
        field=".from",
        holds=lambda policy: policy.mode != "Disabled" or not policy.from_,
        cel="self.mode != 'Disabled' || !has(self.from) || size(self.from) == 0",
        message="mode Disabled writes no policy, so nobody is admitted or kept out by it",
        remedy="mode: Managed would work",
    ),
    pattern_rule(
        "pod.extraVolumes.name",
        "spec.pod.extraVolumes[*].name",
        DNS_LABEL,
        "is not the name of a volume: lower-case letters, digits and -",
        "for instance certificates",
    ),
    Rule(
        id="pod.extraVolumes.reserved",
        at="spec.pod.extraVolumes[*].name",
        holds=lambda name: not name.startswith(RESERVED_VOLUME_PREFIX),
        cel=f"!self.startsWith('{RESERVED_VOLUME_PREFIX}')",
        message=f"names that begin with {RESERVED_VOLUME_PREFIX} belong to fairlead",
        remedy="take another name",
    ),
    Rule(
        id="pod.extraVolumeMounts.volume",
        at="spec.pod",
        field=".extraVolumeMounts",
        holds=lambda pod: not _unknown_mounts(pod),
        cel="!has(self.extraVolumeMounts) || self.extraVolumeMounts.all(m,"
        " has(self.extraVolumes) && self.extraVolumes.exists(v, v.name == m.name))",
        message="a mount names a volume that extraVolumes does not have",
        remedy="add the volume or correct the name",
        explain=lambda pod: (
            f"volume {_unknown_mounts(pod)[0]} is not in extraVolumes",
            f"one of {', '.join(v['name'] for v in pod.extra_volumes)}"
            if pod.extra_volumes
            else "add the volume to extraVolumes",
        ),
    ),
    pattern_rule(
        "pod.extraVolumeMounts.path",
        "spec.pod.extraVolumeMounts[*].mountPath",
        "(/[^/:]+)+",
        "must be an absolute path in the container, without : or // or a / at the end",
        "for instance /etc/certificates",
    ),
    Rule(
        id="pod.extraVolumeMounts.reserved",
        at="spec.pod.extraVolumeMounts[*].mountPath",
        holds=lambda path: path not in RESERVED_MOUNT_PATHS,
        cel=f"!(self in {cel_list(RESERVED_MOUNT_PATHS)})",
        message=f"{', '.join(RESERVED_MOUNT_PATHS)} are mount points of fairlead",
        remedy="mount it elsewhere; spec.storage and spec.model.source decide what is mounted there",
    ),
    Rule(
        id="pod.extraVolumeMounts.clean",
        at="spec.pod.extraVolumeMounts[*].mountPath",
        holds=lambda path: re.search("/[.][.]?(/|$)", path) is None,
        cel="!self.matches('/[.][.]?(/|$)')",
        message="must not hold . or .. as a directory",
        remedy="write the path that it means",
    ),
    Rule(
        id="pod.extraVolumeMounts.files",
        at="spec",
        field=".pod.extraVolumeMounts",
        holds=lambda spec: not _mounts_over_files(spec),
        cel="!has(self.files) || !has(self.pod) || !has(self.pod.extraVolumeMounts) || !self.files.exists(f,"
        " self.pod.extraVolumeMounts.exists(m, f.path.startsWith(m.mountPath + '/')"
        " && !f.path.substring(size(m.mountPath) + 1).contains('/')))",
        message="a volume is mounted on the directory of a file of spec.files",
        remedy="give the file a directory of its own",
    ),
)
