"""bridge: takes JUnit reports where CodeArts Build uploads them and delivers them to TestNod."""
