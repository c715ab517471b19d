"""An operation for a migration of a site that was adopted in place (this example is not): it alters a copied column."""

from django.db import migrations, models

widen_email = migrations.RunSQL(
    "select rollbook.alter_site_table('auth_user', 'alter table auth_user alter column email type varchar(300)')",
    state_operations=[migrations.AlterField("user", "email", models.EmailField(max_length=300))],
)
