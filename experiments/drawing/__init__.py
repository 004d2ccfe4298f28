"""Figures of all trained configurations (the zoo)."""
