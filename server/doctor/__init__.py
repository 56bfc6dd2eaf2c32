"""The preflight: what this machine can hold with these settings, and which limit binds first."""
