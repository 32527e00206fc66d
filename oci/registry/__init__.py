"""Registries: a client of the distribution-spec 1.1, its credentials, and the bytes it moves.

    with Client(RegistryConfig.load(path), CredentialStore.default()) as client:
        descriptor = client.pull(Reference.parse("docker.io/library/debian:12"), store)

`client` is what callers use; `repository` and `upload` speak the protocol, `pull`, `push` and `copying` move
images. `transport` alone imports requests, and only when the first byte is about to cross the network.
"""
