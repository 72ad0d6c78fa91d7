"""What editors share: where to write, which value to search, the least change that writes it, the edit itself."""
