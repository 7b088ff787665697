"""`bridge check`: validate local JUnit files."""
