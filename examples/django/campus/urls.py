"""Log-in, one page, and on the portal the admin."""

from django.apps import apps
from django.conf import settings
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

if apps.is_installed("people"):
    from people.views import home
else:
    from classroom.views import home

urlpatterns = [
    path("", home),
    path(settings.LOGIN_URL.strip("/") + "/", LoginView.as_view(template_name="login.html")),
    path("accounts/logout/", LogoutView.as_view(next_page="/")),
]
if apps.is_installed("django.contrib.admin"):
    from django.contrib import admin

    urlpatterns.append(path("admin/", admin.site.urls))
