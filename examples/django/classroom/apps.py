"""The course site does not record log-ins in the copy."""

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


class ClassroomConfig(AppConfig):
    """Without the signal that writes last_login."""

    name = "classroom"

    def ready(self) -> None:
        """Leave last_login to the portal, where the column is copied from."""
        user_logged_in.disconnect(dispatch_uid="update_last_login")
