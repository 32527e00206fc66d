"""Kernel calls and the process that makes a step's surroundings. Imports the standard library only."""
