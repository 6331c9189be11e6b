"""The folder of `aiges.core.types`."""
