"""Which activation, moved from one run to another, changes the answer?"""
