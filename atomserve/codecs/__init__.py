"""Requests to a wrapper's arguments and its answers back: runs where the slot lives."""
