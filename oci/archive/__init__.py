"""Images in one tar file: written for every tool's `load`, read from every tool's `save`.

`write_archive` makes an image layout in a tar (`oci-archive`), on request with the `manifest.json` that
`docker load` reads beside it. `read_archive` takes both, and the older forms of `docker save`, from a pipe.
"""

from oci.archive.read import read_archive
from oci.archive.write import Named, write_archive

__all__ = ["Named", "read_archive", "write_archive"]
