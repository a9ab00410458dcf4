"""Errors of Ollama's own API: `{"error": "..."}`."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from fairlead_sim.ollama import wire


class OllamaError(Exception):
    """What a client gets."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.INTERNAL_SERVER_ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.status = status

    def response(self) -> web.Response:
        """The HTTP response."""
        return wire.json_response({"error": self.message}, status=self.status.value)


def not_found(model: str) -> OllamaError:
    """404 for a model that is not on disk."""
    return OllamaError(f"model '{model}' not found", HTTPStatus.NOT_FOUND)


def bad_request(message: str) -> OllamaError:
    """400."""
    return OllamaError(message, HTTPStatus.BAD_REQUEST)
