"""Profiles and enrollments in the admin."""

from django.contrib import admin

from people.models import Enrollment, Profile

admin.site.register([Profile, Enrollment])
