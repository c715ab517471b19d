"""The portal's tables that Django does not know. Rollbook made them, so Django does not manage them."""

from django.contrib.auth.models import User
from django.db import models
from django.db.models.functions import Now


class Profile(models.Model):
    """portal.auth_userprofile; further columns: `manage.py inspectdb auth_userprofile`."""

    user = models.OneToOneField(User, models.CASCADE, related_name="profile")
    name = models.CharField(max_length=255, blank=True)
    meta = models.TextField(blank=True)
    language = models.CharField(max_length=255, blank=True)
    location = models.CharField(max_length=255, blank=True)
    courseware = models.CharField(max_length=255, default="course.xml")
    year_of_birth = models.IntegerField(null=True, blank=True)
    gender = models.CharField(max_length=6, null=True, blank=True)
    level_of_education = models.CharField(max_length=6, null=True, blank=True)
    mailing_address = models.TextField(null=True, blank=True)
    goals = models.TextField(null=True, blank=True)

    class Meta:
        managed = False
        db_table = "auth_userprofile"

    def __str__(self) -> str:
        return self.name


class Enrollment(models.Model):
    """portal.student_courseenrollment: a row here is a copy of the user in that course."""

    user = models.ForeignKey(User, models.CASCADE, related_name="enrollments")
    course_id = models.CharField(max_length=255)
    created = models.DateTimeField(db_default=Now())

    class Meta:
        managed = False
        db_table = "student_courseenrollment"
        unique_together = [("user", "course_id")]

    def __str__(self) -> str:
        return self.course_id
