"""The portal site: Django's own user model over portal.auth_user."""

import os

from campus.base import *  # noqa: F403

SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "portal_session", "portal_csrf"  # two sites on one host
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "people",
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "portal"),
        "USER": os.environ.get("PGUSER", "portal_site"),  # who migrates sets PGUSER
        "HOST": os.environ.get("PGHOST", ""),
        "OPTIONS": {"options": "-c search_path=portal,public"},
        "TEST": {"TEMPLATE": "portal_template"},
    }
}
