"""Another machine over ssh."""
