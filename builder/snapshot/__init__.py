"""Directories to run in, and what a step changed in them."""
