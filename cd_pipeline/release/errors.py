"""What can go wrong with releases."""


class ReleaseError(ValueError):
    """Releases that do not belong together, or a version that cannot be shipped; the message has the remedy."""
