"""What operators read: metrics and readiness. It counts nothing itself."""
