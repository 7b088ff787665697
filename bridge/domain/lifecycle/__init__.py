"""One module for each step of a build: when the step is due, and what each outcome changes."""
