"""The command line: flags in, values down, events out."""
