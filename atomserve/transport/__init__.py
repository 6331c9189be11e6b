"""The way between an API process and a worker: frames, and shared memory without a name."""
