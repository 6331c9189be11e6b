"""The API process: an application on an HTTP server, obeying the supervisor."""
