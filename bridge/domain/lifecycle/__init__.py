"""One module per step of a build: when the step is due, and what each outcome changes."""
