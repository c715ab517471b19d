"""The one page of the portal."""

from django import forms
from django.contrib.auth.decorators import login_required
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from people.models import Profile


class ProfileForm(forms.ModelForm):
    """What people say about themselves."""

    class Meta:
        model = Profile
        fields = ("name", "year_of_birth")


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Show and change one's profile. What the database refuses is an IntegrityError: class 23."""
    profile, _ = Profile.objects.get_or_create(user=request.user)
    form = ProfileForm(request.POST or None, instance=profile)
    if request.method == "POST" and form.is_valid():
        try:
            with transaction.atomic():
                form.save()
            return redirect("/")
        except IntegrityError as exc:
            form.add_error(None, str(exc.__cause__.diag.message_primary))  # type: ignore[union-attr]
    return render(request, "portal.html", {"form": form})
