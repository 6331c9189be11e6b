"""What upstream keeps closed."""
