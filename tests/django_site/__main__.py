"""Make the tables of the site as stock Django's `migrate` does: python -m tests.django_site CONNINFO."""

import sys

import django
from django.conf import settings
from django.core.management import call_command
from psycopg.conninfo import conninfo_to_dict

where = conninfo_to_dict(sys.argv[1])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": where["dbname"],
            "HOST": where["host"],
            "USER": where["user"],
        }
    },
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "tests.django_site",
        *(["django.contrib.admin", "django.contrib.messages"] if "--admin" in sys.argv else []),
    ],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
)
django.setup()
call_command("migrate", verbosity=0)
call_command("migrate", run_syncdb=True, verbosity=0)  # the models without migrations refer to those of auth
