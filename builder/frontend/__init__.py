"""Dockerfile text to a step graph. Runs nothing and reads nothing: what it needs is handed in."""
