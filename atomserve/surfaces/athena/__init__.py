"""The Athena dialect: what its HTTP and WebSocket endpoints decide, without any I/O."""
