"""The course site where every column travels: it writes none of them at log-in."""

from campus.course import *  # noqa: F403
from campus.course import INSTALLED_APPS as APPS

INSTALLED_APPS = ["classroom.apps.PortalsLastLogin" if app == "classroom" else app for app in APPS]
