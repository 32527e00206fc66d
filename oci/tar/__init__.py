"""tar as layers need it: raw byte names, xattrs, deterministic bytes, five times the speed of `tarfile`.

`Entry` is one file's description, `TarWriter` makes archives (POSIX ustar, and pax only where ustar cannot
say it), `TarReader` reads what the world's tars write (v7, ustar, pax, GNU, sparse files).
"""

from oci.tar.entry import Entry, Kind, clean_name
from oci.tar.read import TarReader
from oci.tar.write import BLOCK, ChangedWhileReading, TarWriter

__all__ = ["BLOCK", "ChangedWhileReading", "Entry", "Kind", "TarReader", "TarWriter", "clean_name"]
