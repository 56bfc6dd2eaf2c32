"""Whole servers from their start to their end: under load, at their limits, and against the letter of the protocol."""
