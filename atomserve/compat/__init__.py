"""What lets existing code run unchanged, reached through loaders and imported by nobody."""
