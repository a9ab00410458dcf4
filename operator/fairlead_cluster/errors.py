"""What can go wrong with the local cluster, as exceptions whose text is meant for the person at the terminal."""

from __future__ import annotations


class LocalClusterError(Exception):
    """Base of everything that this package raises on purpose; `str()` says what happened and what to do."""


class UnsupportedPlatformError(LocalClusterError):
    """The local cluster cannot run here at all (it needs Linux)."""


class BuildError(LocalClusterError):
    """The control plane's binaries could neither be found nor built."""


class ComponentDiedError(LocalClusterError):
    """A process of the cluster ended although nobody asked it to; the text holds the end of its log."""


class NotReadyError(LocalClusterError):
    """Something did not become ready in its time."""


class CommandFailedError(LocalClusterError):
    """A command (kubectl, most often) ended with an error.

    `returncode`, `stdout` and `stderr` are the command's own.
    """

    def __init__(self, command: str, returncode: int, stdout: str, stderr: str) -> None:
        super().__init__(f"`{command}` ended with {returncode}: {stderr.strip() or stdout.strip()}")
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr
