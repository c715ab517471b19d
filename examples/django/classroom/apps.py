"""Two ways to log in: the course has its own last_login, or none of its own."""

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in


class ClassroomConfig(AppConfig):
    """The course was created --without last_login: Django writes it there."""

    name = "classroom"
    default = True


class PortalsLastLogin(ClassroomConfig):
    """last_login is copied from the portal, and the site does not write it."""

    default = False

    def ready(self) -> None:
        """Disconnect what saves the user at each log-in."""
        user_logged_in.disconnect(dispatch_uid="update_last_login")
