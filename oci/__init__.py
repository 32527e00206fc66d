"""Bytes of the container world: digests, documents, layers, layouts, archives.

This floor stands alone: it never imports `builder`. `__owner__` names the distribution, because another
one (Oracle's SDK) uses the same import name; `builder.cli.main` checks it at start-up.
"""

__owner__ = "pybuild-oci"
