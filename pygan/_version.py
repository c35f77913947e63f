"""The one place, beside pyproject.toml, that states the version; a test keeps the two equal."""

__version__ = "0.1.0"
