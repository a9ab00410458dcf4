"""Whether a deployment keeps what it is sent. Only such a one takes Confidential requests.

A server in the cluster may still hand prompts on: an image that is a proxy, a variable that names another host, a network that is
open. (Models that Ollama runs elsewhere are refused by the rules of the spec.) Whoever may create pods is trusted; this is for
mistakes, and for what an operator decides for others.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from fairlead.api.llmdeployment import LLMDeploymentSpec
from fairlead.api.names import ANNOTATION_HANDS_ON, ANNOTATION_IMAGE
from fairlead.api.rules.flags import flag_pattern
from fairlead.api.serving import NetworkPolicyMode

__all__ = ["find_leak", "find_leak_of_pod", "find_record", "mark_pods"]

#: Variables by which engines and their libraries are sent elsewhere.
_POINTING: Final = re.compile(
    r"(?i).*(_proxy|_endpoint|_base_url|_api_base|_remotes?|_webhook|_url)$|^(ollama_host|openai_.*|http_proxy|https_proxy|all_proxy)$"
)
_POINTING_ARGUMENT: Final = re.compile(r"(?i)^--?[a-z_-]*(tool[-_]server|endpoint|webhook|remote|proxy|otlp|callback)")


#: By which an engine writes what it is sent into its log.
_RECORDING: Final = re.compile(
    r"(?i)^(vllm_logging_level|vllm_logging_config_path|vllm_debug_.*|ollama_debug|ollama_debug_.*)$"
)
#: `--config` may say any of the others in a file.
_RECORDING_ARGUMENT: Final = re.compile(
    flag_pattern(
        (
            "--enable-log-requests",
            "--enable-log-outputs",
            "--log-config-file",
            "--config",
            "--kv-events-config",
            "--kv-transfer-config",
        )
    )
)


def find_record(spec: LLMDeploymentSpec) -> str:
    """What may write requests into a log, in the terms of the LLMDeployment; "" where nothing does. Engines keep no request on a
    volume: those hold weights and compiled kernels."""
    for entry in spec.engine.env:
        if _RECORDING.match(str(entry.get("name"))):
            return f"spec.engine.env sets {entry.get('name')}, which may write requests into the log"
    for argument in spec.engine.args:
        if _RECORDING_ARGUMENT.match(argument):
            return f"spec.engine.args has {argument.partition('=')[0]}, which may write requests into the log"
    return ""


def find_leak(spec: LLMDeploymentSpec, local_images: Iterable[str] = ()) -> str:
    """What speaks against it, in the terms of the LLMDeployment; "" when it keeps what it is sent. `local_images`: patterns of
    images that the operator trusts beside the engines' own."""
    leak = find_leak_of_pod(mark_pods(spec), local_images)
    if leak:
        return leak
    policy = spec.network_policy
    if policy is not None and policy.mode is not NetworkPolicyMode.MANAGED:
        return "spec.networkPolicy.mode is Disabled, so its egress is open"
    return ""


def mark_pods(spec: LLMDeploymentSpec) -> dict[str, str]:
    """Annotations by which pods of this spec are known for as long as they are there, whatever the spec says by then."""
    engine = spec.engine
    pointing = "spec.engine.envFrom may set anything" if engine.env_from else _find_pointing(engine.env, engine.args)
    found = {ANNOTATION_IMAGE: engine.image, ANNOTATION_HANDS_ON: pointing}
    return {name: said for name, said in found.items() if said}


def find_leak_of_pod(annotations: Mapping[str, str], local_images: Iterable[str] = ()) -> str:
    """What such annotations say against a pod, as `find_leak`."""
    image = annotations.get(ANNOTATION_IMAGE)
    if image and not any(fnmatch.fnmatchcase(image, pattern) for pattern in local_images):
        return "spec.engine.image is an image of its own, and the operator's --local-images do not name it"
    return annotations.get(ANNOTATION_HANDS_ON, "")


def _find_pointing(env: Sequence[dict[str, object]], arguments: Sequence[str]) -> str:
    for entry in env:
        if _POINTING.match(str(entry.get("name"))):
            return f"spec.engine.env sets {entry.get('name')}, which may send requests elsewhere"
    for argument in arguments:
        if _POINTING_ARGUMENT.match(argument):
            return f"spec.engine.args has {argument.partition('=')[0]}, which may send requests elsewhere"
    return ""
