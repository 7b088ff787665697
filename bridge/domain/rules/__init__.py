"""The rules of plan.py, by what they are about. Each is asked about one moment of a build."""
