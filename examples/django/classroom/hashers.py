"""Passwords are the portal's to renew."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class PortalHasher(PBKDF2PasswordHasher):
    """Never asks for a new hash: saving it would change the copy, which is refused."""

    def must_update(self, encoded: str) -> bool:  # noqa: ARG002
        """Return False: log-in on the portal renews the hash, and the copy follows."""
        return False
