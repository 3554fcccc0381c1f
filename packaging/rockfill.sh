#!/bin/sh
# The installed command: Debian's Python, and of Python's settings in the environment none but our own.
unset PYTHONHOME PYTHONSTARTUP
export PYTHONPATH=/usr/lib/rockfill:/usr/lib/rockfill/vendor PYTHONDONTWRITEBYTECODE=1
exec /usr/bin/python3 -s -P -m rockfill "$@"
