"""The protocol between daemon and worker: JSON lines over a socketpair. Pure: bytes and values, no I/O."""
