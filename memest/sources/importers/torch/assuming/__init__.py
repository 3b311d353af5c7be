"""What depends on values, as the user's statements have it: counts, numbers that follow from them, and branches."""
