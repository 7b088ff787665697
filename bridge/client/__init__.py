"""Calls to TestNod, its storage and CodeArts over guarded sessions; network failures become outcomes."""
