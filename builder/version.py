"""The version, where reading it costs nothing: the distribution's metadata is slow to find."""

VERSION = "0.1.0"
