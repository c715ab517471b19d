"""A TransactionTestCase for a portal: its flush must reach the tables that Django does not manage."""

from django.core.management import call_command
from django.test import TransactionTestCase


class PortalTransactionTestCase(TransactionTestCase):
    """Truncates with CASCADE after each test; Rollbook empties the copies too."""

    def _fixture_teardown(self) -> None:
        call_command("flush", verbosity=0, interactive=False, allow_cascade=True)
