"""Sessions in threads, for stream wrappers."""

from atomserve.compat.aiges.sessions import SessionManager
from atomserve.compat.aiges.stream_threads import Session, StreamHandleThread, WorkerThread

__all__ = ["Session", "SessionManager", "StreamHandleThread", "WorkerThread"]
