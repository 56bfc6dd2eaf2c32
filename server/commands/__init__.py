"""The commands of the program: a module each, with `PARSER` (its options) and `run` (what it does)."""
