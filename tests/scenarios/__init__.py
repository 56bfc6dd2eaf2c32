"""Faults that clients bring: a real server, clients on raw sockets that misbehave, and figures that are asserted.

Each scenario injects its fault, proves that it happened, asserts the promised figure, and ends with the aftermath:
the healthy clients lost nothing, the books balance, descriptors are back, no traceback is in the log.
"""
