"""Pictures of data that was computed elsewhere."""
