"""Hosted applications: ASGI applications of others, served behind the guard beside the models."""
