"""`stentor doctor`: machines that are made up, file by file, and the one that the tests run on."""
