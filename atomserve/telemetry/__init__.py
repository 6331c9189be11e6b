"""What an instance tells of itself."""
