"""The top-level modules that AIGES wrappers import, each under its own name in this folder."""
