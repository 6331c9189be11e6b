"""Wrappers to be measured: a file each, as workers load them."""
