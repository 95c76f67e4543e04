"""Measurements of speed, memory and compile time: `python -m benchmarks`, run at the repository's root."""
