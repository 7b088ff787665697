from hypothesis import HealthCheck, settings

# A deadline for an example is absolute timing: a loaded machine must not fail a test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
