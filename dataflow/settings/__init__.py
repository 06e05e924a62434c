"""The configuration: its classes and defaults, and its loading with all mistakes reported at once."""
