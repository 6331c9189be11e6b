"""The outermost ASGI layer: nothing reaches the application unless it is sane and bounded."""
