"""What every room shares and no room owns: errors, files, the terminal."""
