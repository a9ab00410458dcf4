"""Errors in vLLM's JSON form: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

#: What clients get when the engine has died (vLLM 0.33; up to 0.32 it was ENGINE_DEAD_LOG itself).
ENGINE_DEAD = "The server had an error while processing your request."
#: What the log says then.
ENGINE_DEAD_LOG = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class APIError(Exception):
    """An error that a client gets. `status` is the HTTP status, `kind` the JSON `type`."""

    def __init__(self, message: str, *, status: HTTPStatus, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status.value}}

    def response(self) -> web.Response:
        """The HTTP response."""
        return web.Response(status=self.status.value, body=orjson.dumps(self.body()), content_type="application/json")


class EngineDeadError(APIError):
    """The engine is gone: every request gets this 500."""

    def __init__(self) -> None:
        super().__init__(ENGINE_DEAD, status=HTTPStatus.INTERNAL_SERVER_ERROR, kind="InternalServerError")


class DrainingError(APIError):
    """SIGTERM has come and running requests may finish: a new one gets this 500."""

    def __init__(self) -> None:
        super().__init__(
            "cannot schedule new futures after shutdown",
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
            kind="InternalServerError",
        )


class QueueFullError(APIError):
    """Over --max-num-queued-reqs or --max-num-queued-tokens."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=HTTPStatus.SERVICE_UNAVAILABLE, kind=HTTPStatus.SERVICE_UNAVAILABLE.phrase)


def bad_request(message: str, param: str | None = None) -> APIError:
    """A request that can never be served."""
    return APIError(message, status=HTTPStatus.BAD_REQUEST, kind="BadRequestError", param=param)


def validation_error(message: str, *, parameter: str, value: object) -> APIError:
    """vLLM appends the parameter and value to the message of these."""
    return bad_request(f"{message} (parameter={parameter}, value={value})", parameter)


def not_found(message: str, param: str | None = None) -> APIError:
    """A model or an object that does not exist."""
    return APIError(message, status=HTTPStatus.NOT_FOUND, kind="NotFoundError", param=param)
