"""What annotators draw in other tools, read into label maps, and label maps written for these tools."""
