"""Offline evaluation: campaigns over benchmarks and own files, and verdicts against random selection."""
