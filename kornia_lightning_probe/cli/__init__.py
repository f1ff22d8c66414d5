"""The command line: words in, files and an exit status out. Knows no Lightning and no mathematics."""
