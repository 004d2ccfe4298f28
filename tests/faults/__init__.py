"""Is anything lost when a command is killed, interrupted, or meets a full disk, at any moment?"""
