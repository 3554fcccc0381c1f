"""Benchmarks: how much Rockfill itself costs, each figure beside the floor that the project set itself.

``make bench``, or ``make bench ARGS="--only streaming --json figures.json"``. Nothing here is a test and no figure is
ever asserted; only with ``--strict`` does a figure over its floor end in exit status 1.

How it is measured: the real daemon is a process and is asked over HTTP on loopback, with the pure Python builds of
aiohttp and its companions, since those ship; the first line says what was in force (``AIOHTTP_NO_EXTENSIONS= make
bench`` and its like measure the compiled ones). Where the engine would drown what is measured, a worker whose engine
needs no time takes its place (`scripted.py`); the process, the link and its threads are the product's own. The client
is a bare socket (`client.py`), and what it costs is a row of its own.

How to read it: a floor is for the median. `p90` is left out below ten values. `least` is what noise added least to:
where the median is far above it, the machine was busy, and the last line says how busy. `others_percent` is what other
processes took, `steal_percent` what the hypervisor did, both of one core; `loop_…_ratio` is how much longer a loop that
always does the same took than when it was fastest, before and after. Above 1.1 in the median, or with others at work,
compare nothing with figures of another day; rows of CPU time suffer least. An indented row explains the one above it.
Figures with no floor are for reference.

To add one: write a function that yields `Row` values, and put it into `BENCHES` in `benches.py`.
"""
