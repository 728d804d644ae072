"""Schedules for NVIDIA GPUs: every stage bound to blocks and threads, integer products on tensor cores or by dp4a."""
