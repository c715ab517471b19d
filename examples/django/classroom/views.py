"""The one page of the course."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from classroom.models import Note


@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Show the copy, and write notes: each is a point of reputation, saved as Django saves, with all columns."""
    if request.method == "POST":
        student = request.user
        Note.objects.create(student=student, text=request.POST["text"])
        student.reputation += 1
        student.save()
        return redirect("/")
    return render(request, "course.html", {"notes": Note.objects.filter(student=request.user)})
