"""Stentor: a WebSocket broadcast server."""

__version__ = "0.1.0"
