"""JUnit reports: validation, counts, explanations for invalid files, and repair."""
