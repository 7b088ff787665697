"""bridge: takes JUnit reports where CodeArts Build uploads them and delivers them to TestNod."""

__version__ = "0.1.0"
