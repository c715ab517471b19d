"""The models of a learning platform on stock Django, under the names of the original's tables, and a forum's."""

# mypy: disable-error-code="misc"

from django.contrib.auth.models import User
from django.db import models


class UserProfile(models.Model):
    user = models.OneToOneField(User, models.CASCADE, related_name="profile")
    name = models.CharField(max_length=255, blank=True, db_index=True)
    meta = models.TextField(blank=True)
    courseware = models.CharField(max_length=255, blank=True, default="course.xml")
    language = models.CharField(max_length=255, blank=True, db_index=True)
    location = models.CharField(max_length=255, blank=True, db_index=True)
    year_of_birth = models.IntegerField(null=True, blank=True, db_index=True)
    gender = models.CharField(max_length=6, null=True, blank=True, db_index=True)
    level_of_education = models.CharField(max_length=6, null=True, blank=True, db_index=True)
    mailing_address = models.TextField(null=True, blank=True)
    goals = models.TextField(null=True, blank=True)
    city = models.TextField(null=True, blank=True)  # an extra column: it stays, and does not travel

    class Meta:
        db_table = "auth_userprofile"


class Registration(models.Model):
    user = models.OneToOneField(User, models.CASCADE)
    activation_key = models.CharField(max_length=32, unique=True, db_index=True)

    class Meta:
        db_table = "auth_registration"


class CourseEnrollment(models.Model):
    user = models.ForeignKey(User, models.CASCADE)
    course_id = models.CharField(max_length=255, db_index=True)
    created = models.DateTimeField(auto_now_add=True, null=True, db_index=True)

    class Meta:
        db_table = "student_courseenrollment"
        unique_together = (("user", "course_id"),)


class CourseEnrollmentAllowed(models.Model):
    email = models.CharField(max_length=255, db_index=True)
    course_id = models.CharField(max_length=255, db_index=True)
    created = models.DateTimeField(auto_now_add=True, null=True, db_index=True)

    class Meta:
        db_table = "student_courseenrollmentallowed"
        unique_together = (("email", "course_id"),)


class UserTestGroup(models.Model):
    users = models.ManyToManyField(User, db_table="student_usertestgroup_users")
    name = models.CharField(max_length=32, db_index=True)
    description = models.TextField(blank=True)

    class Meta:
        db_table = "student_usertestgroup"


class PendingNameChange(models.Model):
    user = models.OneToOneField(User, models.CASCADE)
    new_name = models.CharField(max_length=255, blank=True)
    rationale = models.CharField(max_length=1024, blank=True)

    class Meta:
        db_table = "student_pendingnamechange"


class PendingEmailChange(models.Model):
    user = models.OneToOneField(User, models.CASCADE)
    new_email = models.CharField(max_length=255, blank=True, db_index=True)
    activation_key = models.CharField(max_length=32, unique=True, db_index=True)

    class Meta:
        db_table = "student_pendingemailchange"


class Post(models.Model):
    author = models.ForeignKey(User, models.CASCADE)
    enrollment = models.ForeignKey(CourseEnrollment, models.SET_NULL, null=True)
    title = models.CharField(max_length=100)

    class Meta:
        db_table = "forum_post"
