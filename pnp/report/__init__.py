"""What a run leaves behind: figures, numbers, and the settings that gave them."""
