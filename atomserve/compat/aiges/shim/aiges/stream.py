"""Sessions in threads, for stream wrappers."""

from atomserve.compat.aiges.sessions import (
    Session,
    SessionManager,
    StreamHandleThread,
    WorkerThread,
)

__all__ = ["Session", "SessionManager", "StreamHandleThread", "WorkerThread"]
