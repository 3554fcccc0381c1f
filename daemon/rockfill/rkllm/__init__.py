"""Rockchip's `librkllmrt.so`, used in the worker process only."""
