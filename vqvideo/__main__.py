"""`python -m vqvideo VERB ...`, where the console command is not on the path."""

from vqvideo.cli import console

if __name__ == "__main__":
    console()
