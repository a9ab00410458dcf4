"""What happens before a model is loaded: the Hugging Face hub refuses, or the weights take their time.

The texts are those that huggingface_hub and vLLM print, as the operator reads them from a pod's last words.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

from fairlead_sim import loading
from fairlead_sim.settings import Settings
from fairlead_sim.vllm.config import ServeConfig, StartupError, is_local

#: Seconds of a start that do not depend on the model.
_LOAD_BASE_S = 1.0


def load_duration_s(config: ServeConfig, settings: Settings) -> float:
    """Seconds until the model is loaded."""
    return loading.load_duration_s(config.model, base_s=_LOAD_BASE_S, fixed_s=settings.load_seconds)


def check_model(config: ServeConfig, settings: Settings) -> None:
    """Raises StartupError where the hub or the file system would make vLLM fail."""
    if is_local(config.model):
        _check_directory(config.model)
        return
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.model):
        raise StartupError(
            "huggingface_hub.errors.HFValidationError: Repo id must use alphanumeric chars, '-', '_' or '.'. "
            f"The name cannot start or end with '-' or '.' and the maximum length is 96: '{config.model}'."
        )
    status = settings.hub_status or _status_of_name(config)
    if status is not None and status != HTTPStatus.OK:
        raise StartupError(refusal(config.model, status, has_token=config.has_hub_token))


def _status_of_name(config: ServeConfig) -> int | None:
    """Repositories whose names say so: `gated` wants any token, `forbidden` wants another one, `missing` is none."""
    words = set(re.split(r"[/\W_]+", config.model.lower()))
    if "missing" in words:
        return HTTPStatus.NOT_FOUND
    if "forbidden" in words:
        return HTTPStatus.FORBIDDEN
    if "gated" in words and not config.has_hub_token:
        return HTTPStatus.UNAUTHORIZED
    return None


def refusal(model: str, status: int, *, has_token: bool) -> str:
    """The last words of vLLM when the hub answers with this status."""
    url = f"https://huggingface.co/{model}/resolve/main/config.json"
    if status == HTTPStatus.UNAUTHORIZED and not has_token:
        reason = (
            f"401 Client Error.\n\nCannot access gated repo for url {url}.\n"
            f"Access to model {model} is restricted. You must have access to it and be authenticated to access it. "
            "Please log in."
        )
        return _gated(model, reason)
    if status == HTTPStatus.UNAUTHORIZED:
        reason = (
            f"401 Client Error.\n\nRepository Not Found for url: {url}.\nInvalid credentials in Authorization header"
        )
        return _not_found(model, reason)
    if status == HTTPStatus.FORBIDDEN:
        reason = (
            f"403 Client Error.\n\nCannot access gated repo for url {url}.\n"
            f"Access to model {model} is restricted and you are not in the authorized list. "
            f"Visit https://huggingface.co/{model} to ask for access."
        )
        return _gated(model, reason)
    if status == HTTPStatus.NOT_FOUND:
        reason = (
            f"404 Client Error.\n\nRepository Not Found for url: {url}.\n"
            "Please make sure you specified the correct `repo_id` and `repo_type`.\n"
            "If you are trying to access a private or gated repo, make sure you are authenticated. "
            "For more details, see https://huggingface.co/docs/huggingface_hub/authentication"
        )
        return _not_found(model, reason)
    phrase = HTTPStatus(status).phrase
    return f"huggingface_hub.errors.HfHubHTTPError: {status} Server Error: {phrase} for url: {url}"


def _gated(model: str, reason: str) -> str:
    return (
        f"huggingface_hub.errors.GatedRepoError: {reason}\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "OSError: You are trying to access a gated repo.\n"
        f"Make sure to have access to it at https://huggingface.co/{model}.\n{reason}"
    )


def _not_found(model: str, reason: str) -> str:
    return (
        f"huggingface_hub.errors.RepositoryNotFoundError: {reason}\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        f"OSError: {model} is not a local folder and is not a valid model identifier listed on "
        "'https://huggingface.co/models'\n"
        "If this is a private repository, make sure to pass a token having permission to this repo either by logging "
        "in with `hf auth login` or by passing `token=<your_token>`"
    )


def _check_directory(model: str) -> None:
    folder = Path(model).expanduser()
    if any((folder / name).is_file() for name in ("config.json", "params.json")):
        return
    raise StartupError(
        f"ValueError: Invalid repository ID or local directory specified: '{model}'.\n"
        "Please verify the following requirements:\n"
        "1. Provide a valid Hugging Face repository ID.\n"
        "2. Specify a local directory that contains a recognized configuration file.\n"
        "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
        "   - For Mistral models: ensure the presence of a 'params.json'."
    )
