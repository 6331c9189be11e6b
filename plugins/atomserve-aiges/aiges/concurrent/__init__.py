"""The folder of `aiges.concurrent.fixpool`."""
