"""The tokenizer: video to codes and back."""
