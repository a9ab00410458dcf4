"""One exception hierarchy, so that every layer can say what kind of trouble it has without importing another layer.

FairleadError
├── EngineTemplateError     an engine file cannot be read, rendered or does not hold what it must
├── RenderError             a custom resource passes validation and still cannot be turned into objects
└── ApiError                the API server said no, or said nothing
    ├── NotFound            404
    ├── Conflict            409: another writer, or another field manager
    ├── Gone                410: the resourceVersion of a watch or a page is too old
    ├── Invalid             400, 422, and the 500 of a typed patch: will not go away by itself
    ├── Forbidden           403 (`being_terminated` tells a dying namespace from missing rights)
    ├── Unauthorized        401
    ├── TooManyRequests     429, with the server's Retry-After
    └── Unavailable         5xx, time-outs, broken connections: worth another try
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "Conflict",
    "EngineTemplateError",
    "FairleadError",
    "Forbidden",
    "Gone",
    "Invalid",
    "NotFound",
    "RenderError",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
]


class FairleadError(Exception):
    """Base of everything that fairlead raises on purpose."""


class EngineTemplateError(FairleadError):
    """An engine definition is broken. `str()` names file, line and reason."""


class RenderError(FairleadError):
    """A valid custom resource cannot be rendered. `path` is the field in the CR's own terms, e.g. `spec.engine.args[2]`."""

    def __init__(self, path: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{path}: {message}" + (f"; {remedy}" if remedy else ""))
        self.path = path
        self.message = message
        self.remedy = remedy


class ApiError(FairleadError):
    """The API server refused or did not answer.

    `status` is the HTTP code (0: no answer), `reason` the machine word of the Status object, `message` its sentence.
    `retryable` says whether the same request can succeed later without anybody changing anything.
    """

    retryable = False

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", details: dict[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason
        self.details = details or {}


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409: resourceVersion, precondition, AlreadyExists or another field manager."""

    retryable = True


class Gone(ApiError):
    """410: list again."""

    retryable = True


class Invalid(ApiError):
    """The object is wrong; only a changed object can help. Includes the typed-patch 500."""


class Forbidden(ApiError):
    """403. Rights can be granted later, so it is retried, slowly."""

    retryable = True

    @property
    def being_terminated(self) -> bool:
        """True when the namespace is going away: nothing can be created there any more."""
        return "being terminated" in self.message


class Unauthorized(ApiError):
    """401: the credentials are expired or wrong."""

    retryable = True


class TooManyRequests(ApiError):
    """429. `retry_after_s` is what the server asked for, in seconds."""

    retryable = True

    def __init__(
        self, message: str, *, retry_after_s: float = 1.0, status: int = 429, reason: str = "TooManyRequests"
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.retry_after_s = retry_after_s


class Unavailable(ApiError):
    """5xx, a time-out, or no connection at all."""

    retryable = True
