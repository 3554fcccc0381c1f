"""The tests of the RKLLM binding on the architecture that it is for, under qemu's user mode: ``make test-arm64``.

The simulator is compiled by Debian's cross compiler, Python is Debian's for arm64, unpacked and not installed, and
pytest is the checkout's own. Structures by value, callbacks and threads so go through AAPCS64 instead of the System V
ABI. It takes minutes and some 150 MB of packages, so it is no part of ``make test``.
"""
