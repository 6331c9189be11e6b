"""HTTP dialects on top of the same jobs."""
