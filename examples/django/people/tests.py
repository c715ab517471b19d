"""Tests of the portal site: python manage.py test --settings campus.portal."""

from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection, transaction
from django.test import TestCase

from people.models import Enrollment, Profile
from people.testing import PortalTransactionTestCase


def create_course(course_id: str) -> None:
    """Make a course, as `rollbook course create` does."""
    with connection.cursor() as cursor:
        cursor.execute("select rollbook.create_course(%s)", [course_id])


def copies() -> int:
    """Return how many users the course has."""
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from course_edx_test.auth_user")
        return int(cursor.fetchone()[0])


class ProfileTest(TestCase):
    """Each test is rolled back, course and copies too."""

    def test_an_enrollment_is_a_copy(self) -> None:
        create_course("edX/test")
        user = User.objects.create_user("ada")
        user.groups.add(Group.objects.create(name="tutors"))
        Enrollment.objects.create(user=user, course_id="edX/test")
        self.assertEqual(copies(), 1)
        user.delete()
        self.assertEqual(copies(), 0)

    def test_a_rule_on_data_is_an_integrity_error(self) -> None:
        user = User.objects.create_user("ada")
        with self.assertRaises(IntegrityError), transaction.atomic():
            Profile.objects.create(user=user, year_of_birth=1066)


class CommitTest(PortalTransactionTestCase):
    """These commit; each finds the tables empty."""

    def setUp(self) -> None:
        create_course(f"edX/{self._testMethodName}")

    def tearDown(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("select rollbook.drop_course(%s)", [f"edX/{self._testMethodName}"])

    def test_one(self) -> None:
        user = User.objects.create_user("ada")
        Enrollment.objects.create(user=user, course_id="edX/test_one")
        self.assertEqual(User.objects.count(), 1)

    def test_two(self) -> None:
        User.objects.create_user("ada")
        self.assertEqual((User.objects.count(), Enrollment.objects.count()), (1, 0))
