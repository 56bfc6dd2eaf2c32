"""Stentor's load test: a swarm of WebSocket clients under Locust, a ledger of every message, and a verdict.

It speaks to a server only over the network and never imports ``server``. Importing this package is cheap and
starts nothing: Locust's ``--processes`` forks after the import.
"""
