"""What can be configured: a default is written once, and every mistake is told at once."""
