"""The languages that clients speak: bytes to publications and back. Pure, like the core."""
