"""What can go wrong with bytes.

    OciError
    ├── InvalidDigest       text that is no digest of the image-spec's grammar
    ├── InvalidReference    text that is no image name
    ├── InvalidPlatform     text that is no os/arch[/variant]
    ├── InvalidDocument     JSON that is no valid manifest, index, config, layout or descriptor
    │   └── NotAnImage      a manifest, but of an artifact
    ├── InvalidArchive      a tar, layout or compressed stream that cannot be read as what it claims to be
    │   └── UnsafePath      an entry that would leave its root
    ├── LimitExceeded       input larger than the limits allow (a bomb, or a document beyond its cap)
    ├── BlobNotFound        a digest the store does not hold
    ├── DigestMismatch      bytes that are not those their descriptor promises
    └── RegistryError       a registry refused, was out of reach, or answered what it may not (exit code 3)
        ├── Unauthorized    who we are is unknown there, or not allowed to do this (exit code 4)
        ├── ManifestUnknown no such repository, tag, manifest or blob
        ├── TooManyRequests the registry's limit, after all the waiting we may do
        └── WrongContent    it sent other bytes than their digest promises; also a DigestMismatch

Messages are for the person at the keyboard: what was read, what was expected.
"""


class OciError(Exception):
    """Base of every error this floor raises on purpose."""


class InvalidDigest(OciError):
    """Text that is no digest (image-spec: descriptor.md, Digests)."""


class InvalidReference(OciError):
    """Text that is no image name (distribution-spec: pulling manifests; Docker's short names)."""


class InvalidPlatform(OciError):
    """Text that is no `os/arch[/variant]`."""


class InvalidDocument(OciError):
    """A JSON document that breaks the image-spec."""


class NotAnImage(InvalidDocument):
    """A manifest whose config is no image's: an artifact."""


class InvalidArchive(OciError):
    """A tar stream, archive, layout or compressed stream that is not what it claims to be."""


class UnsafePath(InvalidArchive):
    """An archive entry or link that would leave the directory it is unpacked into."""


class LimitExceeded(OciError):
    """Input beyond a safety limit."""


class BlobNotFound(OciError):
    """The store does not hold the blob."""


class DigestMismatch(OciError):
    """Bytes differ from what their digest or size promises. `blob` is the digest of the blob of a store whose
    file is damaged, "" for bytes from elsewhere."""

    def __init__(self, message: str, *, blob: str = "") -> None:
        super().__init__(message)
        self.blob = blob


class RegistryError(OciError):
    """A registry refused, could not be reached, or answered what it may not.

    `status` is the HTTP status, 0 if there was none; `codes` are the registry's own (distribution-spec: Error
    Codes). Messages never hold credentials.
    """

    exit_code = 3

    def __init__(self, message: str, *, status: int = 0, codes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes


class Unauthorized(RegistryError):
    """Credentials are missing, wrong, or do not reach this far."""

    exit_code = 4


class ManifestUnknown(RegistryError):
    """The registry has no such repository, tag, manifest or blob."""


class TooManyRequests(RegistryError):
    """The registry's rate limit holds on for longer than we wait."""


class WrongContent(RegistryError, DigestMismatch):
    """A registry sent bytes that are not those their digest or size promises."""
