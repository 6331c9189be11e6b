"""The folder of `aiges.utils.log`."""
