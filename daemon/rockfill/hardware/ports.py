"""Who listens on this machine."""

from __future__ import annotations

from rockfill.hardware import sysfs


def listener_on(port: int) -> str | None:
    """The program that listens on the TCP port, as ``nginx (process 812)``; None where that can't be told.

    Only root and the user whose program it is can tell.
    """
    import psutil  # here: 2 MB of memory that a daemon never needs which got its port

    psutil.PROCFS_PATH = str(sysfs.root() / "proc")
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError, ValueError):  # it ended meanwhile, or the kernel's files are not as expected
        return None
    return None
