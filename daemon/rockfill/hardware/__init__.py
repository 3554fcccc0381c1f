"""The machine underneath: the one place where kernel interfaces are read and written."""
