"""The course's users are the copies; what the course adds is its own."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class Student(AbstractUser):
    """The copy of the portal's user: read it; write `reputation`, the course's own column."""

    groups = None  # type: ignore[assignment]
    user_permissions = None  # type: ignore[assignment]
    reputation = models.IntegerField(default=0)

    class Meta:
        managed = False
        db_table = "auth_user"


class Profile(models.Model):
    """The copy of the portal's profile: read it."""

    user = models.OneToOneField(Student, models.DO_NOTHING, related_name="profile")
    name = models.CharField(max_length=255)

    class Meta:
        managed = False
        db_table = "auth_userprofile"

    def __str__(self) -> str:
        return self.name


class Note(models.Model):
    """A table of the course's own, with a key to the copy."""

    student = models.ForeignKey(Student, models.CASCADE)
    text = models.TextField()

    def __str__(self) -> str:
        return self.text
