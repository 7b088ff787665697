"""JUnit reports: what is one, what it counts, and what is wrong with everything else."""
