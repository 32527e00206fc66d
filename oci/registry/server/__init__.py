"""A registry server (distribution-spec 1.1) on an image layout: what is built there is served, and what is
pushed is there.

    with RegistryServer(Layout.create(root), Options()) as server:
        server.serve()                      # until `stop`, or until a signal's exception passes through

`receive`, `request` and `response` speak HTTP/1.1 and `listener` owns sockets and threads; `app` finds the
endpoint (`blobs`, `manifests`, `uploads`, `listing`), and `repositories` knows what each repository has, from
`index.json` (`names`) and from what was pushed (`links`). `proxy` fetches what is missing from another
registry, `gc` forgets what nobody needs.
"""

from __future__ import annotations

from oci.registry.server.listener import RegistryServer
from oci.registry.server.options import Options

__all__ = ["Options", "RegistryServer"]
