"""The edge: HTTP, the dialects of editors, and the commands. The only place that knows of status codes."""
