"""Composition: settings in, a running gateway out."""
