"""The course site: users are the copies in the course's schema; its own tables are beside them."""

import os

from campus.base import *  # noqa: F403

SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "course_session", "course_csrf"  # two sites on one host
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "classroom",
]

AUTH_USER_MODEL = "classroom.Student"
PASSWORD_HASHERS = ["classroom.hashers.PortalHasher"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "portal"),
        "USER": os.environ.get("PGUSER", "course_site"),
        "HOST": os.environ.get("PGHOST", ""),
        # Without public: the portal's own tables may be there.
        "OPTIONS": {"options": "-c search_path=course_edx_demox_2012_fall"},
    }
}
