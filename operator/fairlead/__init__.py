"""Fairlead: two custom resources that become a complete LLM platform on Kubernetes."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fairlead")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0.0.0+checkout"
