"""Serve blocking Python inference code as a fast, typed, observable HTTP service."""
